"""Counts of jobs that cost the store something, kept for a moment.

To count exactly takes some stores as long as there are jobs: a database looks at a million rows, and many
pages ask, again and again. So a count is kept for a hundred times as long as it took: at most a hundredth of
the time is spent counting a queue, and where it takes no time, nothing is kept.
"""

from __future__ import annotations

from collections import OrderedDict

from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Counts

__all__ = ["Counting"]

TIMES = 100
"""A count is kept for so many times as long as it took."""
LONGEST = 10.0
"""Seconds for which one is kept at the most."""
CHEAP = 0.005
"""Seconds that a count may take and is not kept."""
MOST = 1_000
"""Queues whose counts are kept."""


class Counting:
    """Counts by queue."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Counts]] = OrderedDict()

    async def of(self, store: Storage, queue: str) -> Counts:
        """Return the number of jobs in each state. Raises `StorageError`."""
        clock = store.clock
        began = clock.monotonic()
        kept = self._kept.get(queue)
        if kept is not None and began < kept[0]:
            return kept[1]
        counts = await store.counts(queue)
        took = clock.monotonic() - began
        self._kept.pop(queue, None)
        if took > CHEAP:
            self._kept[queue] = began + took + min(LONGEST, took * TIMES), counts
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return counts

    def forget(self, queue: str | None = None) -> None:
        """Count a queue, or all, anew: somebody has just changed it from here."""
        if queue is None:
            self._kept.clear()
        else:
            self._kept.pop(queue, None)
