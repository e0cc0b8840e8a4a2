"""Enqueues of ids that open transactions of others hold: asked for again, apart from all others.

Single enqueues share batches. One whose id is held leaves its batch, which goes on, and joins those that wait
here; they are sent together, a few times a second, until their time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from jobqueue.errors import InvalidArgumentError
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.held_ids import held_error, pauses
from jobqueue.storage.values import Inserted, NewJob

__all__ = ["HeldIds"]

InsertFree = Callable[[Sequence[NewJob]], Awaitable[list[Inserted | None]]]


class _Waiting(NamedTuple):
    """An enqueue whose id is held."""

    job: NewJob
    future: asyncio.Future[Inserted]
    give_up_at: float


class HeldIds:
    """The enqueues of a queue that wait for transactions of others. ``insert_free`` is that of the store."""

    def __init__(self, insert_free: InsertFree, patience: float) -> None:
        self._insert_free = insert_free
        self._patience = patience
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def send(self, jobs: Sequence[NewJob]) -> list[Inserted | None]:
        """Insert a batch of several callers; ``None`` for those who must wait.

        An id that is known to be held is not tried: only the first who wants it holds up the others.
        """
        if not self._waiting:
            return await self._insert_free(jobs)
        known = {one.job.id for one in self._waiting}
        free = [job for job in jobs if job.id not in known]
        answers = iter(await self._insert_free(free))
        return [None if job.id in known else next(answers) for job in jobs]

    def add(self, job: NewJob, future: asyncio.Future[Inserted]) -> None:
        """Answer a caller when the id is free, or when its time is over."""
        self._waiting.append(_Waiting(job, future, SYSTEM_CLOCK.monotonic() + self._patience))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jobqueue-held-ids")

    async def _run(self) -> None:
        try:
            for pause in pauses():
                await SYSTEM_CLOCK.sleep(pause)
                self._waiting = [one for one in self._waiting if not one.future.done()]  # cancelled callers
                some = self._waiting[:MOST_ITEMS]
                await self._ask(some)
                rest = [*self._waiting[len(some) :], *some]
                self._waiting = [one for one in rest if not one.future.done()]
                if not self._waiting:
                    return
        finally:
            self._task = None

    async def _ask(self, some: Sequence[_Waiting]) -> None:
        error: Exception | None = None
        answers: Sequence[Inserted | None] = [None] * len(some)
        try:
            answers = await self._insert_free([one.job for one in some])
        except InvalidArgumentError as failure:
            if len(some) > 1:
                for one in some:
                    await self._ask([one])
                return
            error = failure
        except Exception as failure:  # noqa: BLE001 - it is the callers'
            error = failure
        now = SYSTEM_CLOCK.monotonic()
        for one, answer in zip(some, answers, strict=True):
            if one.future.done():
                continue
            if answer is not None:
                one.future.set_result(answer)
            elif error is not None:
                one.future.set_exception(error)
            elif now >= one.give_up_at:
                one.future.set_exception(held_error([one.job.id]))

    async def drain(self) -> None:
        """Wait until all callers so far are answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Answer the open calls with an error."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.future.done():
                one.future.set_exception(held_error([one.job.id]))
