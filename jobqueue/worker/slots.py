"""Notices a worker that is too narrow: jobs wait for a slot, and its handlers may do nothing but wait."""

from __future__ import annotations

import logging
from contextlib import suppress

from jobqueue.errors import JobQueueError
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Storage

__all__ = ["SlotWatch"]

log = get_logger("jobqueue")

FULL_BEFORE_LOOK = 5.0
"""Seconds without a free slot after which it looks whether jobs wait."""
LONGEST_PAUSE = 60.0
"""Longest time in seconds between two looks."""


class SlotWatch:
    """Logs once that all slots have been full while jobs waited, and names the option to set."""

    def __init__(self, storage: Storage, queue: str, concurrency: int) -> None:
        self._storage = storage
        self._clock = storage.clock
        self._queue = queue
        self._concurrency = concurrency
        self._full_since: float | None = None

    def note(self, *, full: bool) -> None:
        """Note whether the worker has a free slot once it is idle."""
        if not full:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = self._clock.monotonic()

    async def watch(self) -> None:
        """Look now and then, until the warning has been logged."""
        pause = FULL_BEFORE_LOOK
        while not await self._has_told():
            await self._clock.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause) if self._full_since is not None else FULL_BEFORE_LOOK

    async def _has_told(self) -> bool:
        since, now = self._full_since, self._clock.monotonic()
        if since is None or now - since < FULL_BEFORE_LOOK:
            return False
        with suppress(JobQueueError):  # the worker itself reports a store that does not answer
            waiting = (await self._storage.counts(self._queue)).queued
            if waiting:
                self._tell(now - since, waiting)
                return True
        return False

    def _tell(self, seconds: float, waiting: int) -> None:
        # The default of one slot surprises; more were chosen.
        level = logging.WARNING if self._concurrency == 1 else logging.INFO
        log.log(
            level,
            "queue %s: all slots of this worker (concurrency=%d) have been full for %.0f s, and %d jobs "
            "wait. If its handler spends its time waiting, let more run at once, for example: "
            "Queue(..., concurrency=%d), or jobqueue worker --concurrency %d",
            self._queue, self._concurrency, seconds, waiting, 10 * self._concurrency, 10 * self._concurrency,
        )  # fmt: skip
