"""The calls of a queue about jobs that were enqueued, by whomever: wait, cancel, read, keep."""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar, cast, overload

from jobqueue.client.explain import nothing_known
from jobqueue.client.new_jobs import JobBuilder
from jobqueue.client.results import EnqueueResult, EnqueueStatus, JobStatus, ended_error, job_status
from jobqueue.client.session import QueueSession
from jobqueue.emitter import Emitter
from jobqueue.errors import NotStartedError, QueueFullError, SerializationError
from jobqueue.events import JobCancelled, JobEnqueued
from jobqueue.model.checks import check_bool, check_id, check_seconds, millis
from jobqueue.model.fast import make_tuple
from jobqueue.model.generics import R
from jobqueue.model.serde import Serde, load
from jobqueue.model.states import JobState
from jobqueue.runtime.lifecycle import Service
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import (
    CancelStatus,
    Inserted,
    InsertStatus,
    NewJob,
    Record,
    Reply,
    UpdateTtlStatus,
)

__all__ = ["Asking"]

D = TypeVar("D")

# Looked up once: on Python 3.11 the member of an enum costs 0.1 µs, from 3.12 on nothing.
_CREATED, _COMPLETED, _QUEUED = InsertStatus.CREATED, JobState.COMPLETED, EnqueueStatus.QUEUED


class Asking(Service[QueueSession], Generic[R]):
    """A part of `Queue`, which sets what is declared here."""

    name: str
    _storage: Storage
    _max_length: int | None
    _builder: JobBuilder
    _emitter: Emitter
    _result_serde: Serde[Any]
    _answer: type[EnqueueResult[Any]]
    """The class of this queue's answers."""

    @property
    def storage(self) -> Storage:
        """The store of this queue."""
        return self._storage

    async def wait(self, id: str, *, timeout: float = 30.0) -> R:
        """Wait for a job's result. ``timeout`` in seconds counts from the call.

        Raises `JobNotFoundError`, `WaitTimeoutError`, `JobFailedError`, `JobCancelledError`,
        `ResultExpiredError`.
        """
        return await self._wait(id, timeout)

    async def cancel(self, id: str, *, running: bool = False) -> CancelStatus:
        """Cancel a waiting job; with ``running``, also ask the worker of a running one to end it.

        Calls that wait for the job raise `JobCancelledError`. A cancelled id is free at once.
        """
        session = self._started()
        check_id(id)
        check_bool("running", running)
        status = await session.cancel(id, running=running)
        if status is CancelStatus.CANCELLED:
            self._was_cancelled(id)
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
        return self._result(record.result, f"the result of job {id!r}", record.task)

    async def get_status(self, id: str) -> JobStatus[R] | None:
        """Return a job's state, counters and outcome, ``None`` if the store has no such job."""
        record = await self._read(id)
        return None if record is None else self._status(record)

    async def update_result_ttl(self, id: str, ttl: float) -> UpdateTtlStatus:
        """Keep the outcome of an ended job for ``ttl`` seconds from now."""
        self._started()
        check_id(id)
        (status,) = await self._storage.set_ttl(self.name, [(id, millis(check_seconds("ttl", ttl)))])
        return status

    # -- for the other parts of the queue -------------------------------------------------------------

    def _started(self) -> QueueSession:
        session = self._session
        if session is not None and session.defect is None and session.is_here():
            return session
        self._check_loop()
        if self._session is not None:
            self._check_sound(self._session)
        raise NotStartedError(f"queue {self.name!r} is not started: use `async with queue:` or start()")

    async def _read(self, id: str) -> Record | None:
        session = self._started()
        return await session.read(check_id(id))

    def _enqueued(self, new: NewJob, inserted: Inserted) -> EnqueueResult[R]:
        status, seq, state, _, _ = inserted
        if status is not _CREATED:
            self._tell_of(new, inserted)
            return self._found(new, inserted)
        if JobEnqueued in self._emitter.heard:
            self._tell_of(new, inserted)
        return make_tuple(self._answer, (new[0], _QUEUED, state, None, seq))

    def _found(self, new: NewJob, inserted: Inserted) -> EnqueueResult[R]:
        if inserted.status is InsertStatus.REPLACED:
            return self._answer(new.id, EnqueueStatus.REPLACED, inserted.state, None, inserted.seq)
        status, result = EnqueueStatus.DUPLICATE, None
        if inserted.state is _COMPLETED:
            status = EnqueueStatus.COMPLETED
            result = self._result(inserted.data or b"", f"the result of job {new.id!r}", new.task)
        return self._answer(new.id, status, inserted.state, result, inserted.seq)

    def _tell_of(self, new: NewJob, inserted: Inserted) -> None:
        """Emit the event of a job that was created. Raises `QueueFullError`."""
        if inserted.status is _CREATED:
            if JobEnqueued in self._emitter.heard:
                self._emitter.emit(JobEnqueued(new.id, self.name, new.task, new.priority))
        elif inserted.status is InsertStatus.FULL:
            raise QueueFullError(
                f"queue {self.name!r} holds its max_length of {self._max_length} waiting jobs: "
                "try again later, or add workers"
            )

    async def _wait(self, id: str, timeout: float, seq: int | None = None) -> R:
        """Wait for a job's result; with ``seq``, for that of this very job and no later one of its id."""
        session = self._started()
        check_id(id)
        check_seconds("timeout", timeout)
        waiters = session.waiters
        with waiters.waiting(id, timeout, partial(nothing_known, id)) as waiter:
            if not waiters.subscribed:
                await waiters.subscribe()
            (record,) = await self._storage.get(self.name, [id], reply_to=waiters.address)
            if seq is not None and record is not None and record.seq != seq:
                record = None
            waiter.read(self.name, record)
            task = ""
            if record is not None:
                task = record.task
                waiters.bind(waiter, record.seq)
            return self._outcome(id, await waiters.reply(waiter), task)

    async def _wait_for(self, answer: EnqueueResult[Any], timeout: float) -> R:
        """Wait for the result of the job that an enqueue was answered with."""
        if answer.status is EnqueueStatus.COMPLETED:
            return cast("R", answer.result)
        return await self._wait(answer.id, timeout, answer.seq)

    def _was_cancelled(self, id: str) -> None:
        if JobCancelled in self._emitter.heard:
            self._emitter.emit(JobCancelled(id, self.name))

    def _view(self, record: Record) -> JobStatus[Any]:
        """Make the view of an operator: a value that cannot be read is ``None``, and hides nothing else."""
        return self._status(record, forgiving=True)

    def _status(self, record: Record, *, forgiving: bool = False) -> JobStatus[Any]:
        """Make the public view of a record. Raises `SerializationError` unless ``forgiving``."""
        values: list[Any] = []
        for name, data, read in (
            ("result", record.result, partial(self._result, task=record.task)),
            ("progress", record.progress, partial(load, self._result_serde)),
            ("payload", record.payload, partial(load, self._builder.serde)),
        ):
            value: Any = None
            if data is not None:
                try:
                    value = read(data, what=f"the {name} of job {record.id!r}")
                except SerializationError:
                    if not forgiving:
                        raise
            values.append(value)
        return job_status(record, *values)

    def _outcome(self, id: str, ended: Reply | Inserted, task: str = "") -> R:
        data = ended.data
        if ended.state is _COMPLETED and data is not None:
            result: R = load(self._result_serde, data, "the result")
            return self._typed(task, result) if task else result
        raise ended_error(id, ended.state, data, ended.attempts)

    def _result(self, data: bytes, what: str, task: str) -> Any:
        value = load(self._result_serde, data, what)
        return self._typed(task, value) if task else value

    def _typed(self, task: str, value: Any) -> Any:
        """Return the result of a task as its annotation says; of one that is not known here, as it is."""
        del task
        return value
