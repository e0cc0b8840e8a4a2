"""The calls of a queue for processes that live for one request: claim, run, return; and a reaper's steps.

See docs/guides/serverless.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from jobqueue.client.registration import Registration
from jobqueue.client.session import QueueSession
from jobqueue.errors import JobQueueError
from jobqueue.model.checks import check_count, check_seconds, millis
from jobqueue.model.generics import P, R
from jobqueue.upkeep import cleanup, reclaim
from jobqueue.worker.once import Processed
from jobqueue.worker.options import MAX_CONCURRENCY

__all__ = ["Serverless"]


class Serverless(Registration[P, R]):
    """A part of `Queue`."""

    _lent = 0
    """How many calls use a start that they made for themselves."""

    @abstractmethod
    async def _start_producing(self) -> None:
        """Start it for producing only."""

    async def process_once(
        self, limit: int = 10, concurrency: int = 3, timeout: float | None = None
    ) -> Processed:
        """Claim and run up to ``limit`` jobs, ``concurrency`` at once, and return when nothing is left to do.

        After ``timeout`` seconds it claims no more, and gives back what still runs without using up an
        attempt; that takes another second at most, unless the store does not answer. An unstarted queue is
        opened for the call, and may be used by its handlers.

        Raises `JobQueueError` if the queue works already, or has nothing to run, and `StorageError`.
        """
        check_count("limit", limit)
        check_count("concurrency", concurrency, high=MAX_CONCURRENCY)
        if timeout is not None:
            check_seconds("timeout", timeout)
        if self._handler is None and not self._tasks:
            raise JobQueueError(f"queue {self.name!r} has neither a handler nor a task to process jobs with")
        async with self._opened() as session:
            if session.works:
                raise JobQueueError(
                    f"queue {self.name!r} works already: process_once is for one that does not"
                )
            options = replace(self._options, concurrency=concurrency)
            return await session.process(self._execution(session), options, limit, timeout)

    async def reclaim(self) -> int:
        """Recover the jobs of this queue whose workers are dead, as a reaper does; return how many.

        An unstarted queue is opened for the call. Raises `StorageError`.
        """
        async with self._opened():
            return await reclaim(self._storage, self.name, self._emitter.emit)

    async def cleanup(self, *, older_than: float | None = None) -> int:
        """Delete expired records, and forget jobs that ended ``older_than`` seconds ago; return how many.

        With ``older_than`` the expired ones, which nobody sees any more, do not count. An unstarted queue is
        opened for the call. Raises `StorageError`.
        """
        age = None if older_than is None else millis(check_seconds("older_than", older_than, zero=True))
        async with self._opened():
            return await cleanup(self._storage, self.name, age)

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[QueueSession]:
        """Be started within the context: for producing, unless it is already."""
        if self._session is not None and not self._lent:
            yield self._started()
            return
        self._lent += 1
        try:
            await self._start_producing()
            yield self._started()
        finally:
            self._lent -= 1
            if not self._lent:
                await self.stop()
