"""Counts of jobs that cost the store something, kept for a moment.

To count exactly takes some stores as long as there are jobs: a database looks at a million rows, and many
pages ask, again and again. So a count is kept for a hundred times as long as it took: at most a hundredth of
the time is spent counting a queue, and where it takes no time, nothing is kept. Nor does a page wait for the
next count while somebody looks at the queue: it shows the last one, and a task of its own makes the next.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from jobqueue.errors import JobQueueError
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.tasks import apart
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Counts

__all__ = ["Counting"]

log = get_logger("jobqueue.web")

TIMES = 100
"""A count is kept for so many times as long as it took."""
LONGEST = 10.0
"""Seconds for which one is kept at the most, and shown at the most while the next one is made."""
CHEAP = 0.005
"""Seconds that a count may take and is not kept."""
MOST = 1_000
"""Queues whose counts are kept."""


class _Kept(NamedTuple):
    counts: Counts
    fresh_until: float
    shown_until: float
    """Until then it is shown although it is not fresh, while the next one is made."""


class Counting:
    """Counts by queue."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._made: dict[str, asyncio.Task[None]] = {}
        """The counts that are being made for those who come next."""

    async def of(self, store: Storage, queue: str) -> Counts:
        """Return the number of jobs in each state. Raises `StorageError`."""
        now = store.clock.monotonic()
        kept = self._kept.get(queue)
        if kept is None or now >= kept.shown_until:
            return await self._count(store, queue)
        if now >= kept.fresh_until and queue not in self._made:
            making = self._made[queue] = apart(self._renew(store, queue, kept), "web-count")
            making.add_done_callback(lambda made: self._over(queue, made))
        return kept.counts

    async def _count(self, store: Storage, queue: str) -> Counts:
        clock = store.clock
        began = clock.monotonic()
        counts = await store.counts(queue)
        self._keep(queue, counts, clock.monotonic() - began, clock.monotonic())
        return counts

    async def _renew(self, store: Storage, queue: str, before: _Kept) -> None:
        clock = store.clock
        began = clock.monotonic()
        try:
            counts = await store.counts(queue)
        except JobQueueError:  # whoever asks next is told
            self._kept.pop(queue, None)
            return
        if self._kept.get(queue) is before:  # or somebody has acted meanwhile: it may be from before that
            self._keep(queue, counts, clock.monotonic() - began, clock.monotonic())

    def _keep(self, queue: str, counts: Counts, took: float, now: float) -> None:
        self._kept.pop(queue, None)
        if took > CHEAP:
            fresh_until = now + min(LONGEST, took * TIMES)
            self._kept[queue] = _Kept(counts, fresh_until, fresh_until + LONGEST)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def _over(self, queue: str, made: asyncio.Task[None]) -> None:
        del self._made[queue]
        if not made.cancelled() and (error := made.exception()) is not None:
            log.error("counting the jobs of a queue for the dashboard failed", exc_info=error)

    def forget(self, queue: str | None = None) -> None:
        """Count a queue, or all, anew: somebody has just changed it from here."""
        if queue is None:
            self._kept.clear()
        else:
            self._kept.pop(queue, None)

    async def close(self) -> None:
        """End what is being counted, and keep nothing."""
        made = list(self._made.values())
        self.forget()
        for task in made:
            task.cancel()
        if made:
            await asyncio.wait(made)
