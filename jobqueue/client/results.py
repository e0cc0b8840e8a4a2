"""The values that users of a queue pass and get: requests, answers and the status of a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, NamedTuple

from jobqueue.client.room import OnFull
from jobqueue.errors import (
    ErrorInfo,
    JobCancelledError,
    JobFailedError,
    JobQueueError,
    MaxRetriesError,
    ResultExpiredError,
)
from jobqueue.model.checks import instant
from jobqueue.model.generics import R
from jobqueue.model.missing_handler import uncounted
from jobqueue.model.outcomes import FailureReason, decode_error
from jobqueue.model.states import JobState
from jobqueue.storage.values import AttemptRecord, Conflict, Record, Reuse

__all__ = [
    "Attempt",
    "EnqueueRequest",
    "EnqueueResult",
    "EnqueueStatus",
    "JobStatus",
    "SyncEnqueueResult",
    "answers_of",
    "ended_error",
    "job_status",
    "sync_answers_of",
]


_EXPIRED = ErrorInfo("unknown", "the error expired before it was read: raise result_ttl")


class EnqueueStatus(StrEnum):
    """How an enqueue was answered."""

    QUEUED = "queued"
    """A job was created."""
    DUPLICATE = "duplicate"
    """The id was taken: by a live job, or by one that failed."""
    COMPLETED = "completed"
    """The id was taken by a job that has completed; the answer has its result."""
    REPLACED = "replaced"
    """The id was taken by a job that waited, and that job is the new one now: see `Conflict`."""


class EnqueueResult(NamedTuple, Generic[R]):
    """The answer to an enqueue."""

    id: str
    status: EnqueueStatus
    state: JobState
    """The job's state after the call."""
    result: R | None = None
    """Only if ``status`` is ``completed`` (and even then it may be ``None``: that is a result)."""
    seq: int = 0
    """Number of the job in its store: a later job of the same id has a larger one."""

    async def wait(self, timeout: float = 30.0) -> R:
        """Wait for the result of this very job, not of a later one of its id; ``timeout`` in seconds.

        Raises as `Queue.wait` does, and `JobQueueError` for an answer that no queue has made.
        """
        del timeout
        raise JobQueueError(f"no queue made this answer: wait for job {self.id!r} with queue.wait()")


def answers_of(wait: Callable[[EnqueueResult[Any], float], Awaitable[Any]]) -> type[EnqueueResult[Any]]:
    """Return the class of one queue's answers, which can wait.

    A class and not a field: an answer stays the tuple that it is, which users return from endpoints.
    """

    class Answer(EnqueueResult[Any]):
        __slots__ = ()

        async def wait(self, timeout: float = 30.0) -> Any:
            return await wait(self, timeout)

        def __reduce__(self) -> tuple[type[EnqueueResult[Any]], tuple[Any, ...]]:
            return EnqueueResult, tuple(self)

    Answer.__name__ = Answer.__qualname__ = EnqueueResult.__name__
    return Answer


class SyncEnqueueResult(NamedTuple, Generic[R]):
    """The answer to an enqueue by ``queue.sync`` or ``task.sync``: as `EnqueueResult`, but `wait` blocks."""

    id: str
    status: EnqueueStatus
    state: JobState
    """The job's state after the call."""
    result: R | None = None
    """Only if ``status`` is ``completed`` (and even then it may be ``None``: that is a result)."""
    seq: int = 0
    """Number of the job in its store: a later job of the same id has a larger one."""

    def wait(self, timeout: float = 30.0) -> R:
        """Wait for the result of this very job, not of a later one of its id; ``timeout`` in seconds.

        Raises as `Queue.wait` does, and `JobQueueError` for an answer that no queue has made.
        """
        del timeout
        raise JobQueueError(f"no queue made this answer: wait for job {self.id!r} with queue.sync.wait()")


def sync_answers_of(wait: Callable[[EnqueueResult[Any], float], Any]) -> type[SyncEnqueueResult[Any]]:
    """Return the class of one synchronous client's answers; see `answers_of`."""

    class Answer(SyncEnqueueResult[Any]):
        __slots__ = ()

        def wait(self, timeout: float = 30.0) -> Any:
            return wait(EnqueueResult(*self), timeout)

        def __reduce__(self) -> tuple[type[SyncEnqueueResult[Any]], tuple[Any, ...]]:
            return SyncEnqueueResult, tuple(self)

    Answer.__name__ = Answer.__qualname__ = SyncEnqueueResult.__name__
    return Answer


@dataclass(frozen=True, slots=True)
class EnqueueRequest:
    """One job for `enqueue_many`, with the options of `enqueue`."""

    id: str | None
    payload: Any
    max_attempts: int | None = None
    result_ttl: float | None = None
    delay: float | None = None
    run_at: datetime | None = None
    priority: int = 0
    reuse: Reuse | str = Reuse.RETURN
    headers: Mapping[str, str] | None = None
    """Texts that travel beside the payload, mostly set by middleware: trace context, a request id. The
    handler finds them in ``job.headers``. At most 16 KiB as JSON."""
    task: str = ""
    """Name of the task that is to run it, as `Task.request` sets it; ``""``: the queue's handler."""
    group: str = ""
    """Text that several jobs share, such as a tenant: at most 256 bytes; ``""``: none."""
    conflict: Conflict | str = Conflict.JOIN
    """What the id means if its job waits: ``"join"``, ``"replace"`` or ``"debounce"``."""
    on_full: OnFull | str = OnFull.RAISE
    """What to do when there is no room: ``"raise"`` or ``"wait"``."""
    expires: float | None = None
    """Seconds after it is due within which it has to start, or fails; ``None``: whenever it can."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt of a job, or one stall."""

    attempt: int
    """Number of the attempt, from 1."""
    at: datetime
    """Instant at which its failure was stored."""
    worker_id: str
    """Name of the worker that ran it."""
    reason: FailureReason
    """``stalled`` if the worker lost its lease."""
    error: ErrorInfo
    """The error without its traceback, the message cut to fit into 2,048 bytes."""


@dataclass(frozen=True, slots=True)
class JobStatus(Generic[R]):
    """A job's state, counters and outcome, as read from the store."""

    id: str
    state: JobState
    created_at: datetime
    updated_at: datetime
    attempts: int
    max_attempts: int
    result: R | None
    """Only if ``completed``."""
    error: ErrorInfo | None
    """The error of the last failed attempt, until the job completes."""
    progress: Any
    """The last value that the handler reported, ``None`` if there is none."""
    run_at: datetime
    """Instant at which the job is or was due."""
    priority: int
    worker_id: str | None
    """Name of the worker that runs it; only while ``processing``."""
    expires_at: datetime | None
    """Instant at which record, outcome and dedup mark expire together; ``None`` while the job is live."""
    history: tuple[Attempt, ...] = ()
    """The last 20 failed attempts and stalls, oldest first."""
    task: str = ""
    """Name of its task; ``""``: none."""
    group: str = ""
    """The group it was enqueued with; ``""``: none."""
    reason: FailureReason | None = None
    """Why its last attempt failed, as ``error`` tells; ``None`` without one."""
    stalls: int = 0
    """Leases it has lost."""
    max_stalls: int = 0
    payload: Any = None
    """Only from `QueueJobs.get`, and not of completed and cancelled jobs, whose payload is dropped."""
    expires: float | None = None
    """Seconds after ``run_at`` within which it has to start for the first time; ``None``: whenever it can."""


def job_status(record: Record, result: Any, progress: Any, payload: Any = None) -> JobStatus[Any]:
    """Make the public view of a record."""
    error, reason = (None, None) if record.error is None else decode_error(record.error)
    ended = record.attempts - (record.state is JobState.PROCESSING)
    return JobStatus(
        id=record.id,
        state=record.state,
        created_at=instant(record.created_at),
        updated_at=instant(record.updated_at),
        attempts=record.attempts - uncounted(record.history, ended) if record.history else record.attempts,
        max_attempts=record.max_attempts,
        result=result,
        error=error,
        progress=progress,
        run_at=instant(record.run_at),
        priority=record.priority,
        worker_id=record.worker,
        expires_at=None if record.expires_at is None else instant(record.expires_at),
        history=tuple([_attempt(failed) for failed in record.history]),
        task=record.task,
        group=record.group,
        reason=reason,
        stalls=record.stalls,
        max_stalls=record.max_stalls,
        payload=payload,
        expires=None if record.expires is None else record.expires / 1000,
    )


def _attempt(failed: AttemptRecord) -> Attempt:
    error, reason = decode_error(failed.error)
    return Attempt(failed.attempt, instant(failed.at), failed.worker, reason, error)


def ended_error(id: str, state: JobState, data: bytes | None, attempts: int) -> JobQueueError:
    """Return the error to raise for a job that ended without a result, or whose result is gone."""
    match state, data:
        case JobState.CANCELLED, _:
            return JobCancelledError(f"job {id!r} was cancelled")
        case JobState.COMPLETED, _:
            return ResultExpiredError(
                f"job {id!r} has completed, and its result expired before it was read: raise result_ttl"
            )
        case _, None:
            error, reason = _EXPIRED, FailureReason.UNKNOWN
        case _:
            error, reason = decode_error(data)
    # The store would have tried again: the attempts were used up.
    return (MaxRetriesError if reason.retryable else JobFailedError)(id, error, attempts, reason.value)
