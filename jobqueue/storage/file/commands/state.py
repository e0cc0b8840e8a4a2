"""The state on which the journal's commands act."""

from __future__ import annotations

from jobqueue.storage.engine.engine import Engine

__all__ = ["SEEN_EVERY", "State"]

SEEN_EVERY = 20_000
"""Milliseconds after which an idle worker is written down again as seen: a third of the time that it is
listed, so that idling costs next to no writes."""


class State:
    """An engine, the time of its last command, and the offset of the clock that gave the times."""

    __slots__ = ("_trim_at", "clock_offset", "engine", "noted", "now")

    def __init__(self) -> None:
        self.engine = Engine()
        self.now = 0
        """Time of the last command; no later command has an earlier time."""
        self.clock_offset = 0
        """Milliseconds by which the wall clock was ahead of the monotonic one at the last comparison."""
        self._trim_at = 1000
        self.noted: dict[tuple[str, str], int] = {}
        """Times at which this process last wrote down that a (queue, worker) was seen."""

    def is_noted(self, queue: str, worker: str, now: int) -> bool:
        """Return whether a worker has been written down as seen lately enough."""
        return now < self.noted.get((queue, worker), 0) + SEEN_EVERY

    def note(self, queue: str, worker: str, now: int) -> None:
        if len(self.noted) > self._trim_at:
            self.noted = {key: at for key, at in self.noted.items() if now < at + SEEN_EVERY}
            self._trim_at = 2 * len(self.noted) + 1000
        self.noted[queue, worker] = now
