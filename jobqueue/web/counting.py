"""Counts of jobs that cost the store something, kept for a moment.

To count exactly takes some stores as long as there are jobs: a database looks at a million rows, and many
pages ask, again and again. So a count is kept for a hundred times as long as it took: at most a hundredth of
the time is spent counting a queue, and where it takes no time, nothing is kept. Nor does a page wait for the
next count while somebody looks at the queue: it shows the last one, and a task of its own makes the next.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple

from jobqueue.errors import JobQueueError
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.tasks import apart
from jobqueue.storage.capabilities import Totals
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
MOST = 2_000
"""Counts that are kept."""


class _Kept(NamedTuple):
    value: Any
    at: float
    """When it was counted."""
    fresh_until: float
    shown_until: float
    """Until then it is shown although it is not fresh, while the next one is made."""


class _Key(NamedTuple):
    queue: str
    ended: bool
    """Whether the ended jobs are counted, those whose records are deleted included."""


class Counting:
    """Counts by queue."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._made: dict[_Key, asyncio.Task[None]] = {}
        """The counts that are being made for those who come next."""

    async def of(self, store: Storage, queue: str) -> Counts:
        """Return the number of jobs in each state. Raises `StorageError`."""
        counts: Counts = (await self._get(store, _Key(queue, ended=False))).value
        return counts

    async def ended(self, store: Storage, queue: str) -> tuple[float, int]:
        """Return when it was counted how many jobs have ended, and how many, in a store that has `Totals`.

        Raises `StorageError`.
        """
        kept = await self._get(store, _Key(queue, ended=True))
        return kept.at, kept.value

    async def _get(self, store: Storage, key: _Key) -> _Kept:
        now = store.clock.monotonic()
        kept = self._kept.get(key)
        if kept is None or now >= kept.shown_until:
            kept = await _count(store, key)
            self._keep(key, kept)
        elif now >= kept.fresh_until and key not in self._made:
            making = self._made[key] = apart(self._renew(store, key, kept), "web-count")
            making.add_done_callback(lambda made: self._over(key, made))
        return kept

    async def _renew(self, store: Storage, key: _Key, before: _Kept) -> None:
        try:
            made = await _count(store, key)
        except JobQueueError:  # whoever asks next is told
            self._kept.pop(key, None)
            return
        if self._kept.get(key) is before:  # or somebody has acted meanwhile: it may be from before that
            self._keep(key, made)

    def _keep(self, key: _Key, made: _Kept) -> None:
        self._kept.pop(key, None)
        if made.fresh_until > made.at:
            self._kept[key] = made
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def _over(self, key: _Key, made: asyncio.Task[None]) -> None:
        del self._made[key]
        if not made.cancelled() and (error := made.exception()) is not None:
            log.error("counting the jobs of a queue for the dashboard failed", exc_info=error)

    def forget(self, queue: str | None = None) -> None:
        """Count a queue, or all, anew: somebody has just changed it from here."""
        if queue is None:
            self._kept.clear()
        else:
            for ended in (False, True):
                self._kept.pop(_Key(queue, ended), None)

    async def close(self) -> None:
        """End what is being counted, and keep nothing."""
        made = list(self._made.values())
        self.forget()
        for task in made:
            task.cancel()
        if made:
            await asyncio.wait(made)


async def _count(store: Storage, key: _Key) -> _Kept:
    clock = store.clock
    began = clock.monotonic()
    value: Any
    if key.ended:
        assert isinstance(store, Totals)
        value = await store.ended(key.queue)
    else:
        value = await store.counts(key.queue)
    now = clock.monotonic()
    took = now - began
    fresh_until = now + min(LONGEST, took * TIMES) if took > CHEAP else now
    return _Kept(value, now, fresh_until, fresh_until + LONGEST)
