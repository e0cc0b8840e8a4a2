"""`Queue`: enqueue, join or replay a job, wait for it, and run handlers.

The class is written in layers, each the base of the next: `Service` starts and stops, `Asking` has the calls
about jobs that exist, `Registration` takes handler, middleware and listeners. On that stand `Producing`, the
calls that make jobs, `Operations`, those about the whole queue, and `Serverless`, those for processes that
live for one request. Here are options and life. It is long because of the options, each with its sentence.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self, get_args

from jobqueue.client.group_weight import GroupWeight, check_group_weight
from jobqueue.client.new_jobs import JobBuilder
from jobqueue.client.producing import Producing
from jobqueue.client.results import answers_of
from jobqueue.client.session import QueueSession
from jobqueue.control import Operations
from jobqueue.emitter import Emitter
from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.events import QueueEvent, QueueStarted, QueueStopped
from jobqueue.jobs import QueueJobs, QueueView
from jobqueue.limits import QueueLimits, check_limits
from jobqueue.model.backoff import Backoff
from jobqueue.model.checks import (
    check_bool,
    check_callable,
    check_count,
    check_id,
    check_queue_name,
    check_seconds,
    millis,
)
from jobqueue.model.generics import P, R
from jobqueue.model.limits import Limits
from jobqueue.model.serde import Serde, check_serde
from jobqueue.observe.logs import EventLog
from jobqueue.runtime.identity import Identity
from jobqueue.runtime.lifecycle import is_started
from jobqueue.runtime.loops import Home, open_apart
from jobqueue.schedules.made import ScheduleHost
from jobqueue.schedules.schedules import QueueSchedules
from jobqueue.serverless import Serverless
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import as_storage
from jobqueue.storage.values import DEAD_LETTER_TTL
from jobqueue.sync import Producer, SyncQueue
from jobqueue.tasks.options import TaskHost
from jobqueue.tasks.registry import Tasks
from jobqueue.worker.after_execution import Hook
from jobqueue.worker.options import MAX_CONCURRENCY, WorkerOptions

__all__ = ["Queue"]

_EVENTS = get_args(QueueEvent)


class Queue(Producing[P, R], Operations[P, R], Serverless[P, R]):
    """A named queue on a store: the producer's side, and the worker's once it has a handler.

    Use it as a context manager, or call `start` and `stop`. One object belongs to one event loop.

    Args:
        storage: a store, or a URL for `open_storage`; ``None``: the URL in ``JOBQUEUE_STORAGE``.
        name: 1 to 64 of ``A-Z a-z 0-9 . _ -``. Queues of one name on one store share their jobs.
        worker_id: name of this object in records and statistics, not shared by two living workers;
            default: host, process id and a few random characters.
        concurrency: number of jobs that run here at once.
        max_attempts: how often a failing job is tried, first attempt included. Travels with the job:
            the queue that *enqueues* decides.
        visibility_timeout: seconds of a job's lease; renewed while the worker lives.
        job_timeout: seconds that one attempt may take; ``None``: no limit.
        result_ttl: seconds from the end of a job until its outcome and dedup mark expire. Travels with
            the job.
        block_timeout: seconds that an idle worker waits before it asks the store again.
        backoff: the pause before the next attempt.
        max_stalls: leases that a job may lose before it fails as ``stalled``. Travels with the job.
        max_length: number of jobs that may wait; more raise `QueueFullError`. ``None``: no limit.
        max_payload_bytes: size limit of a serialized payload or result.
        payload_serde, result_serde: turn values into bytes and back; default: JSON.
        after_execution: called with an `AfterExecution` before a final outcome is stored.
        tracebacks: keep the traceback of a failed attempt in its `ErrorInfo`.
        lifespan: called with the queue, gives an async context manager, which a worker enters before its
            first claim and leaves after its last job; what it yields is ``job.resources``.
        dead_letter_ttl: seconds from the end of a failed job for which it can be listed, read and run again,
            by ``queue.jobs``; its id is free after ``result_ttl``. 0: none. Travels with the job.
        handler_patience: seconds for which a job may meet workers without the handler of its task before it
            fails as ``no_handler``.
        limits: how many jobs may run and start, on all workers together; kept in the store when the queue
        starts,
            unless an operator has set others there: see `QueueLimits`. ``None``: what is there stays.
        group_weight: how many jobs a group may start in its turn, 1 to 100: a function of the group's name,
        or a
            mapping, in which groups that are missing have 1. Travels with the job.

    Raises `InvalidArgumentError` for a value out of range.
    """

    def __init__(
        self,
        storage: Storage | str | None = None,
        name: str = "default",
        *,
        worker_id: str | None = None,
        concurrency: int = 1,
        max_attempts: int = 3,
        visibility_timeout: float = 30.0,
        job_timeout: float | None = None,
        result_ttl: float = 3600.0,
        block_timeout: float = 5.0,
        backoff: Backoff | None = None,
        max_stalls: int = 2,
        max_length: int | None = None,
        max_payload_bytes: int = 1_048_576,
        payload_serde: Serde[P] | None = None,
        result_serde: Serde[R] | None = None,
        after_execution: Hook | None = None,
        tracebacks: bool = False,
        lifespan: Callable[[Queue[Any, Any]], AbstractAsyncContextManager[Any]] | None = None,
        handler_patience: float = 60.0,
        dead_letter_ttl: float = 604_800.0,
        limits: Limits | None = None,
        group_weight: GroupWeight | None = None,
    ) -> None:
        self.name = check_queue_name(name)
        super().__init__(f"queue {name!r}", "Queue")
        self._identity = Identity(None if worker_id is None else check_id(worker_id, "worker_id"))
        if backoff is not None and not isinstance(backoff, Backoff):
            raise InvalidArgumentError("backoff", "must be a Backoff, for example Backoff.fixed(1.0)")
        if after_execution is not None:
            check_callable("after_execution", after_execution)
        self._options = WorkerOptions(
            concurrency=check_count("concurrency", concurrency, high=MAX_CONCURRENCY),
            visibility_timeout=check_seconds("visibility_timeout", visibility_timeout),
            job_timeout=None if job_timeout is None else check_seconds("job_timeout", job_timeout),
            block_timeout=check_seconds("block_timeout", block_timeout),
            backoff=Backoff.exponential(1.0) if backoff is None else backoff,
            hook=after_execution,
            tracebacks=check_bool("tracebacks", tracebacks),
            handler_patience=check_seconds("handler_patience", handler_patience, zero=True),
        )
        self._max_length = None if max_length is None else check_count("max_length", max_length)
        self._builder = JobBuilder(
            check_count("max_attempts", max_attempts),
            check_count("max_stalls", max_stalls, low=0),
            millis(check_seconds("result_ttl", result_ttl)),
            check_serde("payload_serde", payload_serde),
            check_count("max_payload_bytes", max_payload_bytes, high=512 * 1024 * 1024),
            _dead_letter_ttl(dead_letter_ttl),
            check_group_weight(group_weight),
        )
        self._result_serde: Serde[Any] = check_serde("result_serde", result_serde)
        if lifespan is not None:
            check_callable("lifespan", lifespan)
        self._lifespan = lifespan
        self._storage = as_storage(storage)
        self._around_enqueue = None  # here, as to read a default of the class takes three times as long
        self._emitter = Emitter(*_EVENTS)
        self.log = EventLog(self._emitter)
        self.sync: SyncQueue[P, R] = SyncQueue(self._label, lambda: self._storage, self._apart)
        """The calls of this queue for code that is not asyncio: see `SyncQueue`."""
        self.task = self._tasks = Tasks(
            TaskHost(self._send, self._send_and_wait, self.sync.send, self.sync.send_and_wait),
            self._task_added,
        )
        """The tasks of this queue, and the decorator that adds one: see `Tasks`."""
        self.schedules = QueueSchedules(
            ScheduleHost(
                self.name, self._open_store, self._builder, self._tasks, self._insert, self._check_unstarted
            )
        )
        """The schedules of this queue: see `QueueSchedules`."""
        self.limits = QueueLimits(self.name, self._open_store, check_limits(limits))
        """The limits of this queue: see `QueueLimits`."""
        self.schedule = self.schedules.of_task
        """Declares a schedule of a task: a decorator, see `QueueSchedules.of_task`."""
        self._set_parts()

    def _set_parts(self) -> None:
        """Make the parts that call this very object."""
        self._answer = answers_of(self._wait_for)
        self.jobs = QueueJobs(
            QueueView(
                name=self.name,
                payload_serde=self._builder.serde,
                result_serde=self._result_serde,
                max_bytes=self._builder.max_bytes,
                store=self._open_store,
                status=self._view,
                cancelled=self._was_cancelled,
            )
        )
        """The jobs of this queue, for those who operate it: see `QueueJobs`."""

    def _apart(self, storage: Storage) -> Producer:
        """Return a queue like this one that is to produce in another event loop, on a handle of its own.

        Configuration, tasks and listeners are shared.
        """
        return copy.copy(self)._as_producer(storage)  # noqa: SLF001 - of the same class

    def _as_producer(self, storage: Storage) -> Producer:
        self._forget_start()
        self._lent = 0
        self._storage, self._identity, self._emitter = storage, Identity(), self._emitter.apart()
        self._set_parts()
        if self._around_enqueue is not None:
            self._around_enqueue = replace(self._around_enqueue, answer=self._enqueued, outcome=self._outcome)
        return Producer(self, partial(is_started, self), self._send, self._send_and_wait, self._wait_for)

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} on {self._storage!r}, {'started' if self._session else 'stopped'}>"

    @property
    def worker_id(self) -> str:
        """The name of this object in records and statistics; a drawn one differs in a forked child."""
        return self._identity.name

    @property
    def concurrency(self) -> int:
        """The number of jobs that run here at once."""
        return self._options.concurrency

    def configure(
        self,
        *,
        storage: Storage | str | None = None,
        concurrency: int | None = None,
        worker_id: str | None = None,
        tasks: Iterable[str] | None = None,
    ) -> None:
        """Replace arguments of the constructor, as a command line does; only before `start`.

        ``tasks`` are names of tasks of this queue: a worker then serves only these. It puts all other jobs
        back for other workers, due again in 1 to 5 seconds, and their attempts are not counted.

        Raises `InvalidArgumentError`, and `JobQueueError` if the queue is started.
        """
        self._check_unstarted()
        if concurrency is not None:
            limit = check_count("concurrency", concurrency, high=MAX_CONCURRENCY)
            self._options = replace(self._options, concurrency=limit)
        if worker_id is not None:
            self._identity = Identity(check_id(worker_id, "worker_id"))
        if tasks is not None:
            self._only = self._check_tasks(tasks)
        if storage is not None:
            self._storage = as_storage(storage)

    def _check_sync_unused(self) -> None:
        if self.sync.is_open:
            raise JobQueueError(
                f"{self._label} is used through queue.sync: do this before, or after its close()"
            )

    # -- life -------------------------------------------------------------------------------------

    async def start(self, *, work: bool = True) -> None:
        """Open the store, and begin to work if there is a handler or a task. Does nothing if started.

        With ``work=False`` it only produces: for a process that imports the tasks to enqueue them. So does
        ``async with queue.producer():``.

        Raises `StorageUnavailableError` or `StorageError` if the store cannot be used, and what the
        ``lifespan`` raises.
        """
        check_bool("work", work)
        if self._session is None and not self._changing.locked():  # else the start that is under way decides
            self._produces_only = not work
        await super().start()

    async def _start_producing(self) -> None:
        await self.start(work=False)

    @asynccontextmanager
    async def producer(self) -> AsyncGenerator[Self]:
        """Start the queue for producing only, and stop it; an async context manager."""
        await self.start(work=False)
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self, timeout: float | None = None) -> None:
        """Stop claiming, let the running jobs end, close. Does nothing if not started.

        Running jobs get up to ``timeout`` seconds (``None``: as long as they take). Those left then are
        aborted and given back, without using up an attempt. Calls that still wait for a result raise
        `StoppedError`; their jobs go on elsewhere. Asynchronous listeners get five seconds to end, and
        are cancelled then. The queue can start again.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True)
        await self._stop(timeout)

    async def _begin(self, home: Home) -> QueueSession:
        self.log.log_jobs()
        await open_apart(self._storage)
        session = QueueSession(
            self._storage, home, self.name, self._identity.name, self._max_length, self._emitter,
            named=self._identity.given,
            lifespan=None if self._lifespan is None else partial(self._lifespan, self),
        )  # fmt: skip
        try:
            await session.start()
            await self.limits.declare(self._storage)
            await self.schedules.declare(self._storage)
            if self._works:
                await session.work(self._execution(session), self._options)
        except BaseException:
            await session.close()
            raise
        return session

    def _has_started(self) -> None:
        session = self._session
        if session is not None:  # what was registered while the start went on
            if self._handler is not None:
                session.handle(self._handler, threaded=self._threaded)
            self._work_soon(session)
        self._emitter.emit(QueueStarted(self.name, self.worker_id))

    async def _has_stopped(self) -> None:
        self._emitter.emit(QueueStopped(self.name, self.worker_id))
        await self._until_told()

    async def _until_told(self) -> None:
        await self._emitter.drain(self._storage.clock)

    # -- tasks ------------------------------------------------------------------------------------

    def _task_added(self) -> None:
        if self._session is not None:
            self._work_soon(self._started())

    def _open_store(self) -> Storage:
        self._started()
        return self._storage

    def _typed(self, task: str, value: Any) -> Any:
        known = self.task.get(task)
        return value if known is None else known.read_result(value)


def _dead_letter_ttl(seconds: float) -> int | None:
    """Return what a job is to say: nothing if it is what stores do by themselves."""
    ttl = millis(check_seconds("dead_letter_ttl", seconds, zero=True))
    return None if ttl == DEAD_LETTER_TTL else ttl
