"""Chaos: workers and reapers as processes, some of them killed in mid-run, and every job accounted for.

The order of events is that of an outage: a worker dies while it runs jobs, and so does the reaper that
would have recovered them. The other reaper takes over, the other worker does the work.
"""

from bench.chaos.command import main

__all__ = ["main"]
