"""Observation of running queues: the log."""
