"""Which part of the line a claim looks through.

A claimed job leaves the line, but its row stays in the index until vacuum may remove it; a transaction left
open anywhere in the database keeps it there for as long. A claim that begins at the front walks over all of
them. So each store remembers how far the claims of a queue have come, and most begin there.

That is not exact: a job gets its place, a number not below the clock, before the transaction that inserts it
ends. So the last `_LATE` microseconds are always looked through, and now and then a claim begins at the
front: at once where that is cheap, and never for more than a `_SHARE` of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jobqueue.model.checks import MAX_PRIORITY
from jobqueue.runtime.clock import SYSTEM_CLOCK

__all__ = ["Lines", "Reached", "Span"]

_SHARE = 0.05
"""The part of the time that may go into claims from the front."""
_LATE = 500_000
"""Microseconds that most transactions take less."""
_MOST_KNOWN = 32
"""Priorities whose places are remembered: each costs a claim two short looks into the index."""
_FIRST, _LAST = -(2**63), 2**63 - 1


class Span(NamedTuple):
    """A part of the line: from a place to another in one priority, or all places of several."""

    most: int
    """The highest priority."""
    least: int
    low: int = _FIRST
    high: int = _LAST
    """Below this place."""


class Reached(NamedTuple):
    """How far a claim has come."""

    clock: int
    """The server's clock in microseconds. Jobs with places below were seen, unless inserted late."""
    due: int
    """No job that was due before this instant, in milliseconds, waits for its time, unless it was late."""
    took: int
    """Microseconds that the server took to find the jobs."""
    taken: tuple[int, ...] = ()
    """The priorities of the jobs that were found."""
    priority: int | None = None
    """Of the last one, if there may be more; then nothing is known of lower ones."""
    place: int = 0


EVERYTHING = (Span(MAX_PRIORITY, -MAX_PRIORITY),)


class Lines:
    """How far the claims of one queue have come, in one store."""

    def __init__(self) -> None:
        self._floors: dict[int, int] = {}
        """The place by priority from which on jobs may be ready."""
        self._due = 0
        self._front_at = 0.0
        self._again_at: float | None = None
        """When to claim from the front, as the last claim did not."""

    def claims_from_front(self, now: float) -> bool:
        """Return whether a claim may begin at the front, at a monotonic time in seconds."""
        return now >= self._front_at

    def due(self, next_due: int | None) -> int | None:
        """Return the milliseconds until a claim may find something, after one that has found too little.

        ``next_due``: until a job is due. One that did not begin at the front is followed by one that does.
        """
        if self._again_at is None:
            return next_due
        again = max(0, int((self._again_at - SYSTEM_CLOCK.monotonic()) * 1000) + 1)
        return again if next_due is None else min(again, next_due)

    def spans(self, *, front: bool) -> tuple[Sequence[Span], int]:
        """Return what a claim looks through, best first, and the instant from which on jobs may be due."""
        if front or not self._floors:
            return EVERYTHING, 0 if front else self._due
        spans: list[Span] = []
        above = MAX_PRIORITY
        for priority in sorted(self._floors, reverse=True):
            if priority < above:
                spans.append(Span(above, priority + 1))
            # What was released or recovered stands in front of all others, at negative places.
            spans += [Span(priority, priority, high=0), Span(priority, priority, low=self._floors[priority])]
            above = priority - 1
        if above >= -MAX_PRIORITY:
            spans.append(Span(above, -MAX_PRIORITY))
        return spans, self._due

    def note(self, reached: Reached | None, *, front: bool, now: float) -> None:
        """Note how far a claim has come; ``None``: that is not known."""
        if reached is None:
            return
        if front:
            self._front_at = now + reached.took / _SHARE / 1e6
        self._again_at = None if front else self._front_at
        self._due = max(self._due, reached.due - _LATE // 1000)
        for priority in reached.taken:
            self._floors.setdefault(priority, 0)
        seen = reached.clock - _LATE
        for priority, floor in self._floors.items():
            if reached.priority is None or priority > reached.priority:
                self._floors[priority] = max(floor, seen)
            elif priority == reached.priority:
                self._floors[priority] = max(floor, min(reached.place, seen))
        if len(self._floors) > _MOST_KNOWN:
            self._floors.clear()
