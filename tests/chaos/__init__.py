"""Histories of real processes under faults, and the check that each fits the model of a job."""
