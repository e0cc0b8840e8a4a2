"""Counts of jobs that cost the store something, kept for a moment.

To count exactly takes some stores as long as there are jobs: a database looks at a million rows, and many
pages ask, again and again. So a count is kept for a hundred times as long as it took: at most a hundredth of
the time is spent counting a queue, and where it takes no time, nothing is kept. Nor does a page wait for the
next count while somebody looks at the queue: it shows the last one, and a task of its own makes the next.
Many who ask at the same time share a count, unless somebody has changed the queue from here since it began.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.runtime.bounded import within
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
RENEWED = 4
"""Counts under way from which on none is renewed before somebody has to wait for it."""
PATIENCE = 30.0
"""Seconds that a count may take. It outlives the page that has begun it: the next one shows it."""


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
        self._made: dict[_Key, asyncio.Task[_Kept]] = {}
        """The counts under way, whoever wants them: each is made once at a time."""
        self._tasks: set[asyncio.Task[_Kept]] = set()
        """Those, and the ones that are no longer wanted."""

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
            return await self._count(store, key)
        # Not too many at once: the pages need the store as well. Who looks next makes the others.
        if now >= kept.fresh_until and key not in self._made and len(self._made) < RENEWED:
            self._begin(store, key)
        return kept

    async def _count(self, store: Storage, key: _Key) -> _Kept:
        making = self._made.get(key) or self._begin(store, key)
        await asyncio.wait([making])  # which a request that is given up does not end: others wait for it
        if making.cancelled():
            raise StorageError("the dashboard has closed its store")
        return making.result()

    def _begin(self, store: Storage, key: _Key) -> asyncio.Task[_Kept]:
        making = self._made[key] = apart(_count(store, key), "web-count")
        self._tasks.add(making)
        making.add_done_callback(lambda made: self._over(key, made))
        return making

    def _over(self, key: _Key, made: asyncio.Task[_Kept]) -> None:
        self._tasks.discard(made)
        error = None if made.cancelled() else made.exception()
        if error is not None and not isinstance(error, JobQueueError | TimeoutError):
            log.error("counting the jobs of a queue for the dashboard failed", exc_info=error)
        if self._made.get(key) is not made:
            return  # somebody has acted meanwhile: it may be from before that
        del self._made[key]
        self._kept.pop(key, None)  # of one that failed too: whoever asks next is told
        if error is None and not made.cancelled() and (kept := made.result()).fresh_until > kept.at:
            self._kept[key] = kept
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def forget(self, queue: str | None = None) -> None:
        """Count a queue, or all, anew: somebody has just changed it."""
        if queue is None:
            self._kept.clear()
            self._made.clear()
        else:
            for ended in (False, True):
                self._kept.pop(_Key(queue, ended), None)
                self._made.pop(_Key(queue, ended), None)

    async def close(self) -> None:
        """End what is being counted, and keep nothing."""
        made = list(self._tasks)
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
        value = await within(clock, store.ended(key.queue), PATIENCE)
    else:
        value = await within(clock, store.counts(key.queue), PATIENCE)
    now = clock.monotonic()
    took = now - began
    fresh_until = now + min(LONGEST, took * TIMES) if took > CHEAP else now
    return _Kept(value, now, fresh_until, fresh_until + LONGEST)
