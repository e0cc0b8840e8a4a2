"""The values that users of a queue pass and get: requests, answers and the status of a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, NamedTuple

from jobqueue.errors import (
    ErrorInfo,
    JobCancelledError,
    JobFailedError,
    JobQueueError,
    MaxRetriesError,
    ResultExpiredError,
)
from jobqueue.generics import R
from jobqueue.job import FailureReason, JobState, decode_error
from jobqueue.options import instant
from jobqueue.storage.base import Record, Reuse

__all__ = [
    "EnqueueRequest",
    "EnqueueResult",
    "EnqueueStatus",
    "JobStatus",
    "ended_error",
    "job_status",
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


class EnqueueResult(NamedTuple, Generic[R]):
    """The answer to an enqueue."""

    id: str
    status: EnqueueStatus
    state: JobState
    """The job's state after the call."""
    result: R | None = None
    """Only if ``status`` is ``completed`` (and even then it may be ``None``: that is a result)."""


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


def job_status(record: Record, result: Any, progress: Any) -> JobStatus[Any]:
    """Make the public view of a record."""
    return JobStatus(
        id=record.id,
        state=record.state,
        created_at=instant(record.created_at),
        updated_at=instant(record.updated_at),
        attempts=record.attempts,
        max_attempts=record.max_attempts,
        result=result,
        error=None if record.error is None else decode_error(record.error)[0],
        progress=progress,
        run_at=instant(record.run_at),
        priority=record.priority,
        worker_id=record.worker,
        expires_at=None if record.expires_at is None else instant(record.expires_at),
    )


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
    used_up = reason in {FailureReason.ERROR, FailureReason.TIMEOUT}
    return (MaxRetriesError if used_up else JobFailedError)(id, error, attempts, reason.value)
