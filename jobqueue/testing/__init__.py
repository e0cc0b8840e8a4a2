"""What tests of jobs, and of stores, are built with."""

from __future__ import annotations

from jobqueue.testing.clock import FakeClock

__all__ = ["FakeClock"]
