"""The resources of a started queue: tasks, timers, batches, waiters, worker."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from jobqueue.batching import MOST_ITEMS, Batcher, fitting
from jobqueue.errors import JobQueueError, LeaseLostError, StorageUnavailableError
from jobqueue.events import Emitter, ErrorOccurred
from jobqueue.execution import Execution
from jobqueue.forks import tell_in_child
from jobqueue.job import AbortedReason
from jobqueue.loops import Home
from jobqueue.namesakes import NameWatch
from jobqueue.run import Job
from jobqueue.storage.base import CancelStatus, Inserted, NewJob, Record, Storage
from jobqueue.supervisor import Supervisor
from jobqueue.timers import Timers
from jobqueue.waiters import Waiters
from jobqueue.worker import Worker, WorkerOptions

__all__ = ["Session"]

LAST_CALL = 5.0
"""Seconds that a stopping queue waits for the store's answer to a call."""


class Session:
    """A queue from one start to the next stop, on an open store."""

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
    ) -> None:
        self._storage = storage
        self.is_here = home.is_here
        """Return whether the caller runs in the event loop of this session."""
        self._queue = queue
        self._worker_id = worker_id
        self._emitter = emitter
        self.timers = Timers(storage.clock)
        self.supervisor = Supervisor(self._break)
        self.waiters = Waiters(storage, queue, worker_id, self.timers, self._cancel_run, self._report_poll)
        self.worker: Worker | None = None
        self._names = NameWatch(storage, queue, worker_id, self._report_name) if named else None
        self.over = asyncio.Event()
        """Set when a background task has failed, and when the queue has stopped."""
        self.defect: BaseException | None = None
        self.in_child = False
        """True for a copy in a forked child, which can neither be used nor stopped."""
        self._hurried = False
        self._stopping = False
        self._max_length = max_length
        self._inserts: Batcher[NewJob, Inserted] = Batcher(self.insert_now, size=_size)
        self.insert_merged = self._inserts.call
        """Insert a job, together with those that others insert at this moment."""
        self.merges = storage.batched
        """Whether `insert_merged` pays; else `insert_now` does."""
        self._reads: Batcher[str, Record | None] = Batcher(self._get)
        self._cancels: dict[bool, Batcher[str, CancelStatus]] = {
            running: Batcher(partial(storage.cancel, queue, running=running)) for running in (False, True)
        }
        self._batchers: tuple[Batcher[Any, Any], ...] = (self._inserts, self._reads, *self._cancels.values())

    @property
    def ready(self) -> bool:
        """Whether calls are taken and, with a worker, jobs are claimed."""
        return self.defect is None and (self.worker is None or self.worker.ready)

    async def start(self) -> None:
        """Run the background tasks."""
        tell_in_child(self)
        await self.supervisor.start()
        self.supervisor.spawn(self.waiters.poll(), "waiters")

    async def work(self, execution: Execution, options: WorkerOptions) -> None:
        """Start claiming and running jobs. Raises `StorageError` if the store refuses the subscription."""
        await self.waiters.subscribe()
        if self._stopping:  # since this began: nobody would end what the worker begins
            return
        self.worker = Worker(self._storage, execution, options, self._emitter, self.timers, self.supervisor)
        self.worker.start()
        if self._names is not None:
            self.supervisor.spawn(self._names.keep(), "name")

    async def work_soon(self, execution: Execution, options: WorkerOptions) -> None:
        """Like `work`, but retries every second, because no caller is left to raise to."""
        while True:
            try:
                return await self.work(execution, options)
            except JobQueueError as error:
                self.report(error, "subscribing to cancel requests")
                await self._storage.clock.sleep(1.0)

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a task is the run of a job here."""
        return self.worker is not None and self.worker.runs(task)

    async def stop_worker(self, timeout: float | None) -> None:
        """Stop the worker and its runs, in order."""
        self._stopping = True
        if self.worker is not None:
            await self.worker.stop(0.0 if self._hurried or self.defect else timeout)

    def hurry(self) -> None:
        """Give the running jobs back now, in a running or later stop."""
        self._hurried = True
        if self.worker is not None:
            self.worker.hurry()

    async def close(self) -> None:
        """Answer the calls in flight and end all tasks. Call it after `stop_worker`."""
        gone = JobQueueError(f"queue {self._queue!r} was stopped during this call; its job goes on elsewhere")
        try:
            for batcher in self._batchers:
                await self._in_time(batcher.drain(), "answering the last calls")
                await batcher.close()
        finally:  # even if this is cancelled: nobody else ends the tasks
            self.waiters.fail_all(self.defect or gone)
            await self.supervisor.stop()
        await asyncio.gather(
            self._in_time(self.waiters.unsubscribe(), "unsubscribing"),
            self._in_time(self._leave(), "leaving the list of workers"),
        )
        self.timers.close()

    async def _leave(self) -> None:
        if self.worker is None:
            return
        await self._storage.extend(self._queue, self._worker_id, (), 0)
        if self._names is not None:
            await self._names.leave()

    async def _in_time(self, call: Coroutine[Any, Any, None], doing: str) -> None:
        """Await a call during shutdown, at most `LAST_CALL` seconds; report its failure, do not raise it."""
        task = asyncio.ensure_future(call)

        def give_up() -> None:
            task.cancel()

        timer = self._storage.clock.call_later(LAST_CALL, give_up)
        try:
            await asyncio.wait([task])
        finally:
            timer.cancel()
            give_up()
        if task.cancelled():
            self.report(StorageUnavailableError(f"no answer within {LAST_CALL:g} s"), doing)
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
        """Insert many jobs."""
        answers: list[Inserted] = []
        while batch := jobs[len(answers) : len(answers) + MOST_ITEMS]:
            answers += await self.insert_now(batch[: fitting(map(_size, batch))])
        return answers

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
        if self.worker is None:
            raise LeaseLostError(f"job {job.id!r} is no longer run here: its queue has stopped")
        await self.worker.report_progress(job, value)

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

    def forked(self) -> None:
        """Refuse use in a forked child: tasks, sockets and event loop belong to the parent."""
        self.in_child = True
        self.defect = JobQueueError(
            f"queue {self._queue!r} was started before a fork: make a new Queue, on a new store, in the child"
        )

    def _break(self, defect: BaseException) -> None:
        self.defect = JobQueueError(f"queue {self._queue!r} broke and must be restarted: {defect!r}")
        self.defect.__cause__ = defect
        self.report(defect, "running the queue's background tasks")
        self.waiters.fail_all(self.defect)
        if self.worker is not None:
            self.worker.break_off()
        self.over.set()


def _size(job: NewJob) -> int:
    return len(job.payload)
