"""The store's time: the wall clock, for as long as the monotonic clock agrees with it.

Leases, locks and TTLs last so many milliseconds, while a job's start is an instant of the wall clock. So
the wall clock is followed, and when it is set (more than `TOLERANCE` away from where the monotonic clock
expects it) all leases, locks and TTLs are moved by as much, by a command in the journal: all processes
do the same at the same place. A host that was suspended looks like one whose clock was set.

Each process watches its own clocks, and believes of those of others only what they have written down. So
one that goes by other clocks is not taken for one whose clock was set, again and again: see `OwnClock`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jobqueue.runtime.clock import Clock

__all__ = ["TOLERANCE", "OwnClock", "Reading"]

TOLERANCE = 500
"""Milliseconds that the two clocks may drift apart before the wall clock counts as set."""
_NAMESPACES = Path("/proc/self/ns")
_OFFSETS = Path("/proc/self/timens_offsets")


class Reading(NamedTuple):
    """A reading of both clocks, in milliseconds."""

    wall: int
    offset: int
    """Wall minus monotonic."""


class OwnClock:
    """The clocks of this process, and when they were set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        found = _namespace_offset()
        self._is_shared = found is not None
        self._namespace = found or 0
        self._own: int | None = None
        """The offset read here at the last comparison."""
        self._known = 0
        """The offset of the store at the last comparison."""

    def read(self) -> Reading:
        """Read both clocks."""
        wall = int(self._clock.time() * 1000)
        return Reading(wall, wall - int(self._clock.monotonic() * 1000) + self._namespace)

    def forget(self) -> None:
        """Forget the last comparison, before another store is opened."""
        self._own = None

    def step(self, now: Reading, offset: int) -> int:
        """Return by how much the clock was set without a record of it in the journal; 0 if it was not.

        ``offset``: by how much the store's clock is ahead of the monotonic one, with all that others have
        written.
        """
        if self._own is None:
            # With the same monotonic clock as the others, any difference is a step that they have not seen.
            self._own, self._known = offset if self._is_shared else now.offset, offset
        moved = now.offset - self._own
        if -TOLERANCE <= moved <= TOLERANCE:
            return 0
        unwritten = moved - (offset - self._known)
        return unwritten if abs(unwritten) > TOLERANCE else 0

    def note(self, now: Reading, offset: int) -> None:
        """Remember this comparison: every step before it is in the journal."""
        self._own, self._known = now.offset, offset


def _namespace_offset() -> int | None:
    """Return by how many milliseconds the monotonic clock of this process is ahead of its host's.

    A container may have a time namespace of its own: the wall clock is the same in all of them. ``None``
    if this one does not tell, in a process that has made another one for its children.
    """
    try:
        own, offsets_of = ((_NAMESPACES / name).readlink() for name in ("time", "time_for_children"))
        if own != offsets_of:
            return None
        lines = _OFFSETS.read_text("ascii").splitlines()
    except OSError:  # this system has no time namespaces
        return 0
    for name, seconds, nanoseconds in map(str.split, lines):
        if name == "monotonic":
            return int(seconds) * 1000 + int(nanoseconds) // 1_000_000
    return 0
