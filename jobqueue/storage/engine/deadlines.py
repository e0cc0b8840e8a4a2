"""The jobs of a queue that have to start in time, by the instant at which that time is over."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

J = TypeVar("J")


class Deadlines(Generic[J]):
    """Waiting jobs that were never claimed, by the instant from which on they may not start."""

    __slots__ = ("_by_time", "_times")

    def __init__(self) -> None:
        self._by_time: dict[int, dict[int, J]] = {}  # by seq; no empty entries
        self._times: list[int] = []  # heap of the instants, with dead ones

    def __iter__(self) -> Iterator[J]:
        return chain.from_iterable(entries.values() for entries in self._by_time.values())

    def add(self, job: J, seq: int, time: int) -> None:
        """Note that a job may not start at an instant or later."""
        entries = self._by_time.get(time)
        if entries is None:
            entries = self._by_time[time] = {}
            heapq.heappush(self._times, time)
            if len(self._times) > 64 + 2 * len(self._by_time):
                self._times = sorted(self._by_time)
        entries[seq] = job

    def drop(self, seq: int, time: int) -> None:
        """Forget a job: it has started, or waits no more."""
        entries = self._by_time.get(time)
        if entries is not None and entries.pop(seq, None) is not None and not entries:
            del self._by_time[time]

    def over(self, now: int) -> bool:
        """Return whether the time of any job is over."""
        times = self._times
        while times and times[0] not in self._by_time:
            heapq.heappop(times)
        return bool(times) and times[0] <= now

    def take(self, now: int, limit: int) -> list[J]:
        """Remove up to ``limit`` jobs whose time is over, by that instant, then by seq."""
        taken: list[J] = []
        while len(taken) < limit and self.over(now):
            entries = self._by_time[self._times[0]]
            taken += [entries.pop(seq) for seq in sorted(entries)[: limit - len(taken)]]
            if not entries:
                del self._by_time[self._times[0]]
        return taken
