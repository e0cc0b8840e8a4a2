"""A deterministic simulation of several processes on one store, under faults."""
