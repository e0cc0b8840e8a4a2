"""The store's time: the wall clock, for as long as the monotonic clock agrees with it.

Leases, locks and TTLs last so many milliseconds, while a job's start is an instant of the wall clock. So
the wall clock is followed, and when it is set (more than `TOLERANCE` away from where the monotonic clock
expects it) all leases, locks and TTLs are moved by as much, by a command in the journal: all processes
do the same at the same place. A host that was suspended looks like one whose clock was set.
"""

from __future__ import annotations

from typing import NamedTuple

from jobqueue.runtime import Clock

__all__ = ["TOLERANCE", "Reading", "read_clock"]

TOLERANCE = 500
"""Milliseconds that the two clocks may drift apart before the wall clock counts as set."""


class Reading(NamedTuple):
    """A reading of both clocks."""

    wall: int
    offset: int
    """Wall minus monotonic."""

    def stepped(self, offset: int) -> int:
        """Return by how many milliseconds the clock was set since ``offset`` was true; 0 if it was not."""
        delta = self.offset - offset
        return delta if abs(delta) > TOLERANCE else 0


def read_clock(clock: Clock) -> Reading:
    """Read both clocks, in milliseconds."""
    wall = int(clock.time() * 1000)
    return Reading(wall, wall - int(clock.monotonic() * 1000))
