"""`Queue`: enqueue, join or replay a job, wait for it, and run handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, Self, TypeVar, get_args, overload

from jobqueue.backoff import Backoff
from jobqueue.errors import (
    InvalidArgumentError,
    JobQueueError,
    QueueFullError,
    own_copy,
)
from jobqueue.eventlog import EventLog
from jobqueue.events import (
    Emitter,
    JobCancelled,
    JobEnqueued,
    Listener,
    QueueEvent,
    QueueEventName,
    QueueStarted,
    QueueStopped,
)
from jobqueue.execution import Execution, Handler, Hook, is_async
from jobqueue.generics import P, R
from jobqueue.identity import Identity
from jobqueue.job import ENDED, JobState
from jobqueue.loops import Home, open_apart
from jobqueue.options import (
    MAX_SECONDS,
    check_bool,
    check_callable,
    check_count,
    check_id,
    check_queue_name,
    check_seconds,
    millis,
)
from jobqueue.records import (
    EnqueueRequest,
    EnqueueResult,
    EnqueueStatus,
    JobStatus,
    ended_error,
    job_status,
)
from jobqueue.requests import Requests
from jobqueue.run import Job
from jobqueue.runtime import make_tuple
from jobqueue.serde import JsonSerde, Serde, load
from jobqueue.session import Session
from jobqueue.signals import serve_until_signal
from jobqueue.storage.base import (
    CancelStatus,
    Inserted,
    InsertStatus,
    Record,
    Reply,
    Reuse,
    Storage,
    UpdateTtlStatus,
)
from jobqueue.storage.urls import as_storage
from jobqueue.waiters import TimeIsUpError
from jobqueue.worker import WorkerOptions

__all__ = ["Queue"]

H = TypeVar("H", bound=Callable[..., Any])
D = TypeVar("D")
E = TypeVar("E", bound=QueueEvent)
Answer = TypeVar("Answer", bound=Awaitable[None] | None)

MAX_CONCURRENCY = 100_000

_EVENTS = get_args(QueueEvent)


_CREATED, _COMPLETED = InsertStatus.CREATED, JobState.COMPLETED
_QUEUED = EnqueueStatus.QUEUED
_RESULT: type[EnqueueResult[Any]] = EnqueueResult


class Queue(Generic[P, R]):
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
    ) -> None:
        self.name = check_queue_name(name)
        self._identity = Identity(None if worker_id is None else check_id(worker_id, "worker_id"))
        self._options = WorkerOptions(
            concurrency=check_count("concurrency", concurrency, high=MAX_CONCURRENCY),
            visibility_timeout=check_seconds("visibility_timeout", visibility_timeout),
            job_timeout=None if job_timeout is None else check_seconds("job_timeout", job_timeout),
            block_timeout=check_seconds("block_timeout", block_timeout),
        )
        self._max_length = None if max_length is None else check_count("max_length", max_length)
        self._requests = Requests(
            check_count("max_attempts", max_attempts),
            check_count("max_stalls", max_stalls, low=0),
            millis(check_seconds("result_ttl", result_ttl)),
            _check_serde("payload_serde", payload_serde),
            check_count("max_payload_bytes", max_payload_bytes, high=512 * 1024 * 1024),
        )
        self._result_serde: Serde[Any] = _check_serde("result_serde", result_serde)
        self._backoff = Backoff.exponential(1.0) if backoff is None else backoff
        if not isinstance(self._backoff, Backoff):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError("backoff", "must be a Backoff, for example Backoff.fixed(1.0)")
        if after_execution is not None:
            check_callable("after_execution", after_execution)
        self._hook = after_execution
        self._tracebacks = check_bool("tracebacks", tracebacks)
        self._storage = as_storage(storage)
        self._emitter = Emitter(*_EVENTS)
        self._log = EventLog(self._emitter)
        self._handler: Handler[P, R] | None = None
        self._threaded = False
        self._session: Session | None = None
        self._home: Home | None = None
        """The event loop of the current or last start."""
        self._changing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} on {self._storage!r}, {'started' if self._session else 'stopped'}>"

    @property
    def worker_id(self) -> str:
        """The name of this object in records and statistics; a drawn one differs in a forked child."""
        return self._identity.name

    @property
    def storage(self) -> Storage:
        """The store of this queue."""
        return self._storage

    @property
    def handler(self) -> Handler[P, R] | None:
        """The registered handler, ``None`` if this object only produces."""
        return self._handler

    @property
    def ready(self) -> bool:
        """Whether the queue is started, not stopping, and its last claim reached the store."""
        return self._session is not None and self._session.ready

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
    ) -> None:
        """Replace arguments of the constructor, as a command line does; only before `start`.

        Raises `InvalidArgumentError`, and `JobQueueError` if the queue is started.
        """
        if self._session is not None or self._changing.locked():
            raise JobQueueError(f"queue {self.name!r} is started: configure it before start()")
        if concurrency is not None:
            limit = check_count("concurrency", concurrency, high=MAX_CONCURRENCY)
            self._options = replace(self._options, concurrency=limit)
        if worker_id is not None:
            self._identity = Identity(check_id(worker_id, "worker_id"))
        if storage is not None:
            self._storage = as_storage(storage)

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and, with a handler, run jobs. Does nothing if started.

        Raises `StorageUnavailableError` or `StorageError` if the store cannot be used.
        """
        self._check_loop()
        async with self._changing:
            if self._session is not None:
                if self._session.in_child:
                    self._started()  # raises
                return
            self._log.log_jobs()
            self._home = Home()
            await open_apart(self._storage)
            session = Session(
                self._storage, self._home, self.name, self._identity.name, self._max_length, self._emitter,
                named=self._identity.given,
            )  # fmt: skip
            try:
                await session.start()
                if self._handler is not None:
                    await session.work(self._execution(session), self._options)
            except BaseException:
                await session.close()
                await self._storage.close()
                raise
            self._session = session
        self._emitter.emit(QueueStarted(self.name, self.worker_id))

    async def stop(self, timeout: float | None = None) -> None:
        """Stop claiming, let the running jobs end, close. Does nothing if not started.

        Running jobs get up to ``timeout`` seconds (``None``: as long as they take). Those left then are
        aborted and given back, without using up an attempt. Calls that still wait for a result raise
        `JobQueueError`; their jobs go on elsewhere. Asynchronous listeners get five seconds to end, and
        are cancelled then. The queue can start again.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True)
        if self._session is not None and self._session.runs(asyncio.current_task()):
            raise JobQueueError("a handler cannot stop its own queue: stop() would wait for itself")
        self._check_loop()
        async with self._changing:
            session = self._session
            if session is None:
                return
            if session.in_child:  # what is there to stop is the parent's
                self._session = None
                return
            try:
                await session.stop_worker(timeout)
            finally:
                self._session = None
                try:
                    await session.close()
                finally:
                    try:
                        await self._storage.close()
                    finally:
                        session.over.set()
        self._emitter.emit(QueueStopped(self.name, self.worker_id))
        await self._emitter.drain(self._storage.clock)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, let running jobs end, stop.

        A second signal gives the running jobs back at once. Also returns when another task calls `stop`.
        Raises the error of a background task that only a restart can fix, as `until_broken` does.
        """
        await serve_until_signal(self.start, self.stop, self.hurry, self.until_broken)
        await self._emitter.drain(self._storage.clock)  # of a stop by another task, which may be at it still

    def hurry(self) -> None:
        """Make a running or later `stop` give the running jobs back at once."""
        if self._session is not None:
            self._session.hurry()

    async def until_broken(self) -> None:
        """Wait until a background task fails in a way only a restart can fix, and raise that error.

        Returns when the queue is stopped.
        """
        session = self._session
        if session is None:
            return
        self._check_loop()
        if session.defect is None:
            await session.over.wait()
        if session.defect is not None:
            raise own_copy(session.defect)

    # -- handlers and events ----------------------------------------------------------------------

    @overload
    def execute(
        self, handler: Callable[[Job[P]], Coroutine[Any, Any, R]]
    ) -> Callable[[Job[P]], Coroutine[Any, Any, R]]: ...
    @overload
    def execute(self, handler: Callable[[Job[P]], Awaitable[R]]) -> Callable[[Job[P]], Awaitable[R]]: ...
    @overload
    def execute(self, handler: Callable[[Job[P]], R]) -> Callable[[Job[P]], R]: ...
    def execute(self, handler: Any) -> Any:
        """Register the handler of this queue, before or after `start`; also a decorator.

        An ``async def`` runs in the event loop; a plain function runs in a thread for each job. After
        `start` the worker begins in the background: while the store refuses, it tries again every second.
        Raises `JobQueueError` if there is one already.
        """
        threaded = not is_async(handler)
        if self._handler is not None:
            raise JobQueueError(
                f"queue {self.name!r} has a handler already: use another queue for another job"
            )
        self._check_loop()
        session = None if self._session is None else self._started()
        self._handler = handler
        self._threaded = threaded
        if session is not None:
            work = session.work_soon(self._execution(session), self._options)
            session.supervisor.spawn(work, "start-worker")
        return handler

    @overload
    def on(self, name: type[E], listener: Listener[E]) -> Callable[[], None]: ...
    @overload
    def on(self, name: type[E]) -> Callable[[Callable[[E], Answer]], Callable[[E], Answer]]: ...
    @overload
    def on(self, name: QueueEventName, listener: Listener[Any]) -> Callable[[], None]: ...
    @overload
    def on(self, name: QueueEventName) -> Callable[[H], H]: ...
    def on(self, name: Any, listener: Listener[Any] | None = None) -> Callable[..., Any]:
        """Call ``listener(event)``, sync or async, at every event of that name or class.

        Returns a function that removes the listener; without a listener, a decorator. The class, as in
        ``on(JobCompleted, listener)``, lets a type checker see what the listener gets. A listener that
        raises is logged and harms nobody. Raises `InvalidArgumentError` for an unknown event.
        """
        if listener is not None:
            return self._emitter.on(name, listener)

        def register(function: H) -> H:
            self._emitter.on(name, function)
            return function

        return register

    # -- producing --------------------------------------------------------------------------------

    async def enqueue(
        self,
        id: str | None,
        payload: P,
        *,
        max_attempts: int | None = None,
        result_ttl: float | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        reuse: Reuse | str = Reuse.RETURN,
    ) -> EnqueueResult[R]:
        """Create a job, or find the one that has this id.

        Args:
            id: 1 to 256 bytes of UTF-8 without control characters; ``None`` makes a unique one.
            payload: the handler gets it as ``job.payload``.
            max_attempts, result_ttl: override the queue's.
            delay: seconds until the job is due, by the store's clock.
            run_at: instant at which it is due, as an aware datetime; not together with ``delay``.
            priority: -1000 to 1000; higher starts first.
            reuse: how to treat an id whose job has *ended*: ``"return"`` finds that job, ``"rerun_failed"``
                replaces it if it failed, ``"rerun"`` always. A live job is always joined.

        Raises `InvalidArgumentError`, `SerializationError`, `QueueFullError`, `StorageError`.
        """
        session = self._started()
        new = self._requests.one(id, payload, max_attempts, result_ttl, delay, run_at, priority, reuse)
        if session.merges:
            inserted = await session.insert_merged(new)
        else:
            (inserted,) = await session.insert_now((new,))
        return self._enqueued(new.id, inserted)

    async def enqueue_many(
        self, requests: Iterable[tuple[str | None, P] | EnqueueRequest]
    ) -> list[EnqueueResult[R]]:
        """Create many jobs with few round trips; return the answers in the order of the requests.

        All are checked before the first is stored. Raises as `enqueue` does; `QueueFullError` if any
        was refused, and those before it may be stored: calling again with the same ids is safe.
        """
        session = self._started()
        if not isinstance(requests, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError("requests", f"must be an iterable, not {type(requests).__name__}")
        jobs = [self._requests.several(request, place) for place, request in enumerate(requests)]
        inserted = await session.insert(jobs)
        return [self._enqueued(job.id, answer) for job, answer in zip(jobs, inserted, strict=True)]

    async def enqueue_and_wait(
        self,
        id: str | None,
        payload: P,
        *,
        timeout: float = 30.0,
        max_attempts: int | None = None,
        result_ttl: float | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        reuse: Reuse | str = Reuse.RETURN,
    ) -> R:
        """Create the job, join the live one, or replay the ended one; return the result.

        ``timeout`` in seconds counts from the call, and includes the storing. Other arguments as for
        `enqueue`.

        Raises `WaitTimeoutError` (the job goes on; the message says what is known of it),
        `JobFailedError` or its `MaxRetriesError`, `JobCancelledError`, `JobNotFoundError` (the job is gone,
        or another has its id now, and its outcome was not heard of), `ResultExpiredError`, and what
        `enqueue` raises.
        """
        session = self._started()
        if timeout.__class__ is not float or not 0.0 < timeout < MAX_SECONDS:  # else: checked in full
            check_seconds("timeout", timeout)
        new = self._requests.one(
            id, payload, max_attempts, result_ttl, delay, run_at, priority, reuse, wait=True
        )
        waiters = session.waiters
        # It stands before the job does: the reply may come before the answer of the insert.
        waiter = waiters.add(new.id, timeout)
        try:
            if not waiters.subscribed:
                await waiters.subscribe()
            if session.merges:
                inserted = await session.insert_merged(new)
            else:
                (inserted,) = await session.insert_now((new,))
            status, seq, state, _, _ = inserted
            if status is not _CREATED:
                self._refuse_full(inserted)
            elif JobEnqueued in self._emitter.heard:
                self._emitter.emit(JobEnqueued(new.id, self.name))
            if state in ENDED:  # found; or created by a call whose answer was lost, and ended since
                return self._outcome(new.id, inserted)
            if waiter.bind(seq):
                waiters.fetch(waiter)
            try:
                reply = await waiter.future
            except TimeIsUpError:
                reply = await waiters.last_look(waiter)
            return self._outcome(new.id, reply)
        except asyncio.CancelledError:
            waiter.check_late(f"job {new.id!r} may be stored or not; call again with this id")
            raise
        finally:
            waiters.remove(waiter)

    # -- asking -----------------------------------------------------------------------------------

    async def wait(self, id: str, *, timeout: float = 30.0) -> R:
        """Wait for a job's result. ``timeout`` in seconds counts from the call.

        Raises `JobNotFoundError`, `WaitTimeoutError`, `JobFailedError`, `JobCancelledError`,
        `ResultExpiredError`.
        """
        session = self._started()
        check_id(id)
        check_seconds("timeout", timeout)
        waiters = session.waiters
        waiter = waiters.add(id, timeout)
        try:
            if not waiters.subscribed:
                await waiters.subscribe()
            (record,) = await self._storage.get(self.name, [id], reply_to=waiters.address)
            waiter.read(self.name, record)
            if record is not None and waiter.bind(record.seq):
                waiters.fetch(waiter)
            try:
                reply = await waiter.future
            except TimeIsUpError:
                reply = await waiters.last_look(waiter)
            return self._outcome(id, reply)
        except asyncio.CancelledError:
            waiter.check_late(f"nothing is known of job {id!r}; wait again")
            raise
        finally:
            waiters.remove(waiter)

    async def cancel(self, id: str, *, running: bool = False) -> CancelStatus:
        """Cancel a waiting job; with ``running``, also ask the worker of a running one to end it.

        Calls that wait for the job raise `JobCancelledError`. A cancelled id is free at once.
        """
        session = self._started()
        check_id(id)
        check_bool("running", running)
        status = await session.cancel(id, running=running)
        if status is CancelStatus.CANCELLED and JobCancelled in self._emitter.heard:
            self._emitter.emit(JobCancelled(id, self.name))
        return status

    @overload
    async def get_result(self, id: str) -> R | None: ...
    @overload
    async def get_result(self, id: str, default: D) -> R | D: ...
    async def get_result(self, id: str, default: Any = None) -> Any:
        """Return the result of a completed job, ``default`` in any other case."""
        record = await self._read(id)
        if record is None or record.result is None:
            return default
        return load(self._result_serde, record.result, f"the result of job {id!r}")

    async def get_status(self, id: str) -> JobStatus[R] | None:
        """Return a job's state, counters and outcome, ``None`` if the store has no such job."""
        record = await self._read(id)
        if record is None:
            return None
        result = progress = None
        if record.result is not None:
            result = load(self._result_serde, record.result, f"the result of job {id!r}")
        if record.progress is not None:
            progress = load(self._result_serde, record.progress, f"the progress of job {id!r}")
        return job_status(record, result, progress)

    async def update_result_ttl(self, id: str, ttl: float) -> UpdateTtlStatus:
        """Keep the outcome of an ended job for ``ttl`` seconds from now."""
        self._started()
        check_id(id)
        (status,) = await self._storage.keep(self.name, [(id, millis(check_seconds("ttl", ttl)))])
        return status

    # -- inside -----------------------------------------------------------------------------------

    def _started(self) -> Session:
        session = self._session
        if session is not None and session.defect is None and session.is_here():
            return session
        self._check_loop()
        session = self._session
        if session is not None and session.defect is not None:
            raise own_copy(session.defect)
        raise JobQueueError(f"queue {self.name!r} is not started: use `async with queue:` or start()")

    def _check_loop(self) -> None:
        """Raise `JobQueueError` in another event loop than that of the start; forget one that has ended."""
        home, session = self._home, self._session
        if home is None or home.is_here() or (session is not None and session.in_child):
            return
        if home.is_gone:
            self._home, self._session, self._changing = None, None, asyncio.Lock()
        elif session is not None or self._changing.locked():
            raise JobQueueError(
                f"queue {self.name!r} was started in another event loop: use it there, "
                "or make another Queue, on a store of its own, in this one"
            )

    def _enqueued(self, id: str, inserted: Inserted) -> EnqueueResult[R]:
        if inserted.status is _CREATED:
            if JobEnqueued in self._emitter.heard:
                self._emitter.emit(JobEnqueued(id, self.name))
            return make_tuple(_RESULT, (id, _QUEUED, inserted.state, None))
        self._refuse_full(inserted)
        if inserted.state is not JobState.COMPLETED:
            return EnqueueResult(id, EnqueueStatus.DUPLICATE, inserted.state)
        result = load(self._result_serde, inserted.data or b"", f"the result of job {id!r}")
        return EnqueueResult(id, EnqueueStatus.COMPLETED, inserted.state, result)

    def _refuse_full(self, inserted: Inserted) -> None:
        if inserted.status is InsertStatus.FULL:
            raise QueueFullError(
                f"queue {self.name!r} holds its max_length of {self._max_length} waiting jobs: "
                "try again later, or add workers"
            )

    def _outcome(self, id: str, ended: Reply | Inserted) -> R:
        if ended.state is _COMPLETED and ended.data is not None:
            result: R = load(self._result_serde, ended.data, "the result")
            return result
        raise ended_error(id, ended.state, ended.data, ended.attempts)

    async def _read(self, id: str) -> Record | None:
        session = self._started()
        return await session.read(check_id(id))

    def _execution(self, session: Session) -> Execution:
        assert self._handler is not None
        return Execution(
            queue=self.name,
            worker_id=self.worker_id,
            handler=self._handler,
            payload_serde=self._requests.serde,
            result_serde=self._result_serde,
            max_bytes=self._requests.max_bytes,
            backoff=self._backoff,
            uniform=self._storage.clock.uniform,
            hook=self._hook,
            tracebacks=self._tracebacks,
            report=session.report_progress,
            on_error=session.report,
            threaded=self._threaded,
        )


def _check_serde(argument: str, serde: Serde[Any] | None) -> Serde[Any]:
    if serde is None:
        return JsonSerde()
    for method in ("dumps", "loads"):
        if isinstance(serde, type) or not callable(getattr(serde, method, None)):
            raise InvalidArgumentError(argument, f"must be an object with a method {method}")
    return serde
