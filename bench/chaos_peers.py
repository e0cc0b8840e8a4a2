"""Outages that other libraries go through as well; see `bench.chaos.against`."""

from bench.chaos.against import main

__all__ = ["main"]
