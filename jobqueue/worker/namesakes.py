"""Notices another living worker of the same name: a name that was given by hand may be given twice.

Workers of one name show as one in statistics, and each receives the cancel requests of the other. A lock
distinguishes them: it belongs to one start, not to a name, and a living worker renews it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from jobqueue.errors import JobQueueError
from jobqueue.model.checks import fitting_lock_name
from jobqueue.runtime.ids import process_name
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import LockInfo

__all__ = ["NameWatch"]

TTL = 60_000
"""Milliseconds that the lock outlives its owner."""
INTERVAL = 20.0
"""Seconds between two renewals of the lock."""


class NameWatch:
    """Holds the lock of a worker's name; ``report(error)`` is called once if another living worker has it."""

    def __init__(
        self, storage: Storage, queue: str, worker: str, report: Callable[[BaseException], None]
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._worker = worker
        self._report = report
        self._lock = fitting_lock_name("worker", f"{queue}:{worker}")
        self._owner = process_name()
        self._seen: LockInfo | None = None
        self._reported = False

    async def keep(self) -> None:
        """Hold or watch the lock, until cancelled."""
        while True:
            with suppress(JobQueueError):  # the worker itself reports a store that does not answer
                await self._look()
            await self._storage.clock.sleep(INTERVAL)

    async def leave(self) -> None:
        """Release the lock, for the next one of this name. Raises `StorageError`."""
        await self._storage.lock_release(self._lock, self._owner)

    async def _look(self) -> None:
        if await self._storage.lock_acquire(self._lock, self._owner, TTL) is not None:
            self._seen = None
            return
        holder, seen = await self._storage.lock_holder(self._lock), self._seen
        self._seen = holder
        # One that has died holds the lock for a while; only who lives renews it.
        if holder is None or seen is None or holder.owner != seen.owner or self._reported:
            return
        if holder.expires_at > seen.expires_at:
            self._reported = True
            self._report(self._problem(holder.owner))

    def _problem(self, other: str) -> JobQueueError:
        return JobQueueError(
            f"another living worker of queue {self._queue!r} is named {self._worker!r}, too: it is {other}. "
            "Give each its own worker_id, or leave it out"
        )
