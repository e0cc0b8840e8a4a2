"""Figures of the last minutes of the queues that are looked at, for charts. Kept in this process only."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import NamedTuple

from jobqueue.storage.capabilities import Totals
from jobqueue.storage.contract import Storage
from jobqueue.web.counting import Counting

__all__ = ["EVERY", "Sample", "Samples"]

EVERY = 5.0
"""Seconds between two samples."""
KEPT = 121
"""Samples of a queue: ten minutes."""
MOST_QUEUES = 200
"""Queues that are sampled: those that were shown last."""


class Sample(NamedTuple):
    """A look at a queue."""

    at: float
    waiting: int
    running: int
    failed: int
    rate: float | None
    """Jobs that have ended per second since the sample before; ``None``: not known."""


class _Ended(NamedTuple):
    at: float
    ended: int
    rate: float | None


class Samples:
    """Figures by queue."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Sample]] = OrderedDict()
        self._ended: dict[str, _Ended] = {}

    def want(self, names: Iterable[str]) -> None:
        """Sample these from now on; those that were wanted longest ago make room."""
        for name in names:
            self._queues.setdefault(name, deque(maxlen=KEPT))
            self._queues.move_to_end(name)
        while len(self._queues) > MOST_QUEUES:
            gone, _ = self._queues.popitem(last=False)
            self._ended.pop(gone, None)

    def of(self, name: str) -> list[Sample]:
        """Return the samples of a queue, oldest first."""
        return list(self._queues.get(name, ()))

    async def take(self, store: Storage, counting: Counting) -> None:
        """Look at every queue that is wanted. Raises `StorageError`."""
        for name in list(self._queues):
            counts = await counting.of(store, name)
            now = store.clock.monotonic()
            rate = await self._rate(store, name, counting)
            kept = self._queues.get(name)
            if kept is not None:
                waiting = counts.queued + counts.failing + counts.scheduled
                kept.append(Sample(now, waiting, counts.processing, counts.failed, rate))

    async def _rate(self, store: Storage, name: str, counting: Counting) -> float | None:
        """Return the jobs that have ended per second between the last two counts of them."""
        if not isinstance(store, Totals):
            return None
        at, ended = await counting.ended(store, name)
        before = self._ended.get(name)
        if before is None or at > before.at:
            rate = None if before is None else max(0, ended - before.ended) / (at - before.at)
            before = self._ended[name] = _Ended(at, ended, rate)
        return before.rate

    def forget(self) -> None:
        """Keep nothing: the store was away, and a line over the gap would be untrue."""
        for kept in self._queues.values():
            kept.clear()
        self._ended.clear()
