"""The resources of a started queue: tasks, timers, batches, waiters, worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from jobqueue.client.held_ids import HeldIds
from jobqueue.client.room import OnFull, PatientInsert
from jobqueue.client.waiters import Waiters
from jobqueue.emitter import Emitter
from jobqueue.errors import (
    InvalidArgumentError,
    JobQueueError,
    LeaseLostError,
    StoppedError,
    StorageUnavailableError,
)
from jobqueue.events import ErrorOccurred
from jobqueue.model.fast import field_of
from jobqueue.model.outcomes import AbortedReason
from jobqueue.runtime.batching import MOST_ITEMS, Batcher, fitting
from jobqueue.runtime.bounded import end_within
from jobqueue.runtime.held import HeldOpen
from jobqueue.runtime.lifecycle import Service, Session
from jobqueue.runtime.loops import Home
from jobqueue.runtime.supervisor import Supervisor
from jobqueue.runtime.timers import Timers
from jobqueue.storage.capabilities import HoldsIds, Transactional, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.transactions import OpenTransaction
from jobqueue.storage.values import CancelStatus, Inserted, NewJob, Record
from jobqueue.worker.execution import Execution
from jobqueue.worker.job import Job
from jobqueue.worker.namesakes import NameWatch
from jobqueue.worker.once import OneShot, Processed
from jobqueue.worker.options import WorkerOptions
from jobqueue.worker.worker import Worker

__all__ = ["Insert", "QueueSession", "worker_of"]

Insert = Callable[[Sequence[NewJob]], Awaitable[list[Inserted]]]
LAST_ANSWER = 5.0
"""Seconds that a stopping queue waits for the store's answer to a call."""


class QueueSession(Session):
    """A queue from one start to the next stop, on an open store, which it closes."""

    def __init__(
        self,
        storage: Storage,
        home: Home,
        queue: str,
        worker_id: str,
        max_length: int | None,
        emitter: Emitter,
        *,
        named: bool,
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__(f"queue {queue!r}", "Queue", home)
        self._storage = storage
        self._queue = queue
        self._worker_id = worker_id
        self._emitter = emitter
        self.timers = Timers(storage.clock)
        self.supervisor = Supervisor(self._break)
        self.waiters = Waiters(storage, queue, worker_id, self.timers, self._cancel_run, self._report_poll)
        self.worker: Worker | None = None
        self._names = NameWatch(storage, queue, worker_id, self._report_name) if named else None
        self._execution: Execution | None = None
        self._lifespan = None if lifespan is None else HeldOpen(lifespan, self._break)
        self._hurried = False
        self._stopping = False
        self._max_length = max_length
        self._held: HeldIds | None = None
        self._inserts: Batcher[NewJob, Inserted]
        if isinstance(storage, HoldsIds):
            insert_free = partial(
                storage.insert_free, queue, reply_to=self.waiters.address, max_length=max_length
            )
            self._held = HeldIds(insert_free, storage.held_for)
            self._inserts = Batcher(self._held.send, sizes=_sizes, later=self._held.add)
        else:
            self._inserts = Batcher(self.insert_now, sizes=_sizes)
        self.insert_merged = self._inserts.call
        """Insert a job, batched with concurrent inserts."""
        self.merges = storage.batched
        """Whether `insert_merged` pays; else `insert_now` does."""
        self._reads: Batcher[str, Record | None] = Batcher(self._get)
        self._cancels: dict[bool, Batcher[str, CancelStatus]] = {
            running: Batcher(partial(storage.cancel, queue, running=running)) for running in (False, True)
        }
        held = () if self._held is None else (self._held,)
        self._batchers: tuple[Batcher[Any, Any] | HeldIds, ...] = (
            *(self._inserts, *held, self._reads),
            *self._cancels.values(),
        )

    @property
    def ready(self) -> bool:
        """Whether calls are accepted and, with a worker, jobs are claimed."""
        return self.defect is None and (self.worker is None or self.worker.ready)

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun, or a defect has ended the session."""
        return self._stopping or self.defect is not None

    async def start(self) -> None:
        """Run the background tasks."""
        await self.supervisor.start()
        self.supervisor.spawn(self.waiters.poll(), "waiters")

    @property
    def works(self) -> bool:
        """Whether a worker has been asked for."""
        return self._execution is not None

    def reserve(self, execution: Execution) -> None:
        """Note that a worker is asked for, before the first step of starting it: nobody starts a second."""
        self._execution = execution

    def handle(self, handler: Callable[[Job[Any]], Any], *, threaded: bool) -> None:
        """Give a worker that serves tasks a handler as well."""
        if self._execution is not None:
            self._execution.handle(handler, threaded=threaded)

    async def work(self, execution: Execution, options: WorkerOptions) -> None:
        """Start claiming and running jobs.

        Raises `StorageError` if the store refuses the subscription, and what the lifespan raises.
        """
        self.reserve(execution)
        await self.waiters.subscribe()
        if self._lifespan is not None and not self._stopping:
            execution.resources = await self._lifespan.enter()
        if self._stopping:  # since this began: nobody would end what the worker begins
            return
        self.worker = Worker(self._storage, execution, options, self._emitter, self.timers, self.supervisor)
        self.worker.start()
        if self._names is not None:
            self.supervisor.spawn(self._names.keep(), "name")

    async def process(
        self, execution: Execution, options: WorkerOptions, limit: int, timeout: float | None
    ) -> Processed:
        """Claim and run up to ``limit`` jobs, and be as before.

        Raises `StorageError`, and what the lifespan raises on entering.
        """
        self.reserve(execution)
        try:
            await self.waiters.subscribe()
            if self._lifespan is not None:
                execution.resources = await self._lifespan.enter()
            self.worker = worker = OneShot(
                self._storage, execution, options, self._emitter, self.timers, self.supervisor, limit
            )
            try:
                return await worker.process(timeout)
            finally:
                await self._in_time(self._leave(), "leaving the list of workers")
        finally:
            self.worker = self._execution = None
            await self._leave_lifespan(LAST_ANSWER)

    async def work_soon(self, execution: Execution, options: WorkerOptions) -> None:
        """Like `work`, but retries every second, because no caller is left to raise to."""
        while True:
            try:
                return await self.work(execution, options)
            except JobQueueError as error:
                self.report(error, "subscribing to cancel requests")
            except Exception as error:  # noqa: BLE001 - the user's code
                self.report(error, "entering the lifespan")
            await self._storage.clock.sleep(1.0)

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a task is the run of a job here."""
        return self.worker is not None and self.worker.runs(task)

    async def drain(self, timeout: float | None) -> None:
        """Stop the worker and its runs, in order."""
        self._stopping = True
        try:
            if self.worker is not None:
                await self.worker.stop(0.0 if self._hurried or self.defect else timeout)
        finally:
            await self._leave_lifespan(0.0 if self._hurried or self.defect else timeout)

    async def _leave_lifespan(self, timeout: float | None) -> None:
        """Leave it; where the stop has a bound, within `LAST_ANSWER` seconds or that."""
        if self._lifespan is None:
            return
        bound = None if timeout is None else max(timeout, LAST_ANSWER)
        try:
            await self._lifespan.leave(self._storage.clock, bound)
        except Exception as error:  # noqa: BLE001 - the user's code, and the rest is still to be closed
            self.report(error, "leaving the lifespan")

    def hurry(self) -> None:
        """Give the running jobs back now, in a running or later stop."""
        self._hurried = True
        if self.worker is not None:
            self.worker.hurry()
        if self._lifespan is not None and self._stopping:  # it may be on its way out already
            self._storage.clock.call_later(LAST_ANSWER, self._lifespan.cut)

    async def close(self) -> None:
        """Answer the calls in flight, end all tasks, close the store."""
        gone = StoppedError(f"queue {self._queue!r} was stopped during this call; its job goes on elsewhere")
        try:
            try:
                for batcher in self._batchers:
                    await self._in_time(batcher.drain(), "answering the last calls")
                    await batcher.close()
            finally:  # even if this is cancelled: nobody else ends the tasks
                self.waiters.fail_all(self.defect or gone)
                await self.supervisor.stop()
                self.timers.close()
            await asyncio.gather(
                self._in_time(self.waiters.unsubscribe(), "unsubscribing"),
                self._in_time(self._leave(), "leaving the list of workers"),
            )
        finally:
            await self._leave_lifespan(LAST_ANSWER)  # if it was entered, and the start failed after that
            await self._storage.close()

    async def _leave(self) -> None:
        if self.worker is None:
            return
        await self._storage.extend(self._queue, self._worker_id, (), 0)
        await self.worker.self_report.leave()
        if self._names is not None:
            await self._names.leave()

    async def _in_time(self, call: Coroutine[Any, Any, None], doing: str) -> None:
        """Await a call during shutdown for at most `LAST_ANSWER` seconds; report its failure instead."""
        task = asyncio.ensure_future(call)
        await end_within(self._storage.clock, task, LAST_ANSWER)
        if task.cancelled():
            self.report(StorageUnavailableError(f"no answer within {LAST_ANSWER:g} s"), doing)
        elif error := task.exception():
            self.report(error, doing)

    # -- calls of the store, merged where merging pays --------------------------------------------------

    def insert_now(self, jobs: Sequence[NewJob]) -> Coroutine[Any, Any, list[Inserted]]:
        """Insert jobs in one call of the store."""
        # A plain method: one coroutine less than awaiting here, and a fifth of what a partial takes.
        return self._storage.insert(
            self._queue, jobs, reply_to=self.waiters.address, max_length=self._max_length
        )

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Insert many jobs; a single one is batched with concurrent inserts."""
        if len(jobs) == 1 and self.merges:
            return [await self.insert_merged(jobs[0])]
        return await _in_batches(jobs, self.insert_now)

    def now(self) -> float:
        """Return the monotonic time of the store's clock."""
        return self._storage.clock.monotonic()

    def inserting(
        self, connection: object | None, on_full: Sequence[OnFull | str], until: float | None = None
    ) -> Insert:
        """Return what inserts jobs, in the transaction of a connection if there is one.

        ``on_full`` says for each job whether it waits for room; ``until`` bounds that, as `now` counts.
        """
        patient = [one != OnFull.RAISE for one in on_full]
        if connection is not None:
            if True in patient:
                raise InvalidArgumentError("on_full", "must be 'raise' inside of a transaction")
            return self.inserting_in(connection)
        if True not in patient:
            return self.insert
        return PatientInsert(
            self.insert, patient, self._storage.clock, stopping=lambda: self.stopping, until=until
        )

    def inserting_in(self, connection: object) -> Insert:
        """Return what inserts jobs in the open transaction of a connection of the caller."""
        store = require(self._storage, Transactional, "enqueueing in a transaction (connection=)")
        insert = partial(store.inside(connection).insert, self._queue, max_length=self._max_length)
        return partial(_in_batches, insert=insert)

    async def begin(self) -> OpenTransaction:
        """Open a transaction of the store's database, for a run."""
        return await require(self._storage, Transactional, "job.transaction()").begin()

    async def read(self, id: str) -> Record | None:
        """Read one record."""
        return await self._reads.call(id) if self._storage.batched else (await self._get((id,)))[0]

    async def cancel(self, id: str, *, running: bool) -> CancelStatus:
        """Cancel one job."""
        return await self._cancels[running].call(id)

    async def _get(self, ids: Sequence[str]) -> list[Record | None]:
        return await self._storage.get(self._queue, ids)

    async def report_progress(self, job: Job[Any], value: Any) -> None:
        """Store the progress that a handler reports."""
        await self._worker_of(job).reports.progress(job, value)

    async def save(self, job: Job[Any], data: bytes) -> None:
        """Store what a handler saves for the next attempt."""
        await self._worker_of(job).reports.save(job, data)

    def _worker_of(self, job: Job[Any]) -> Worker:
        if self.worker is None:
            raise LeaseLostError(f"job {job.id!r} is no longer run here: its queue has stopped")
        return self.worker

    # -- what comes from below ------------------------------------------------------------------------

    def _cancel_run(self, fence: int) -> None:
        if self.worker is not None:
            self.worker.abort(fence, AbortedReason.CANCELLED)

    def _report_poll(self, error: BaseException) -> None:
        self.report(error, "reading the outcome of awaited jobs")

    def _report_name(self, error: BaseException) -> None:
        self.report(error, "working under a name that was given")

    def report(self, error: BaseException, doing: str) -> None:
        """Emit an error that happened outside of a handler."""
        self._emitter.emit(ErrorOccurred(error, doing, self._queue))

    def _break(self, defect: BaseException) -> None:
        error = self.broke(defect)
        self.report(defect, "running the queue's background tasks")
        self.waiters.fail_all(error)
        if self.worker is not None:
            self.worker.break_off()


def worker_of(service: Service[QueueSession]) -> Worker | None:
    """Return the worker of a queue, ``None`` if it is not started or only produces."""
    # Part of the same life, and no business of users.
    session = service._session  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return None if session is None else session.worker


async def _in_batches(jobs: Sequence[NewJob], insert: Insert) -> list[Inserted]:
    answers: list[Inserted] = []
    while batch := jobs[len(answers) : len(answers) + MOST_ITEMS]:
        answers += await insert(batch[: fitting(_sizes(batch))])
    return answers


_payload = field_of(NewJob, "payload")


def _sizes(jobs: Iterable[NewJob]) -> Iterable[int]:
    return map(len, map(_payload, jobs))  # no call of Python's for each job
