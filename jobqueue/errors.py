"""The errors of jobqueue, in one tree. Whatever else a store or serde raises is a subclass of one of them.

JobQueueError
├── InvalidArgumentError (ValueError)    bad input; nothing was stored
├── SerializationError                   a payload or result that the serde refuses
├── QueueFullError                       max_length, disk or memory limit reached
├── WaitTimeoutError (TimeoutError)      the wait ended; the job goes on
├── JobNotFoundError                     no such id, or its record expired
├── ResultExpiredError                   the job completed; its result expired before it was read
├── JobCancelledError                    the job was cancelled
├── JobFailedError                       the job ended without a result
│   └── MaxRetriesError                  ... because its attempts were used up
├── LeaseLostError                       this run no longer owns its job
└── StorageError                         the store refused or broke
    └── StorageUnavailableError          ... and may answer later
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

__all__ = [
    "ErrorInfo",
    "InvalidArgumentError",
    "JobCancelledError",
    "JobFailedError",
    "JobNotFoundError",
    "JobQueueError",
    "LeaseLostError",
    "MaxRetriesError",
    "QueueFullError",
    "ResultExpiredError",
    "SerializationError",
    "StorageError",
    "StorageUnavailableError",
    "WaitTimeoutError",
]

E = TypeVar("E", bound=BaseException)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A handler's exception as it is stored: text only, never the object."""

    type: str
    """Qualified class name, for example ``ValueError`` or ``app.errors.Declined``."""
    message: str
    """``str(exception)``, cut to 4,096 characters."""
    traceback: str | None = None
    """The formatted traceback, only if the queue was built with ``tracebacks=True``."""


class JobQueueError(Exception):
    """Base of every error of this package."""


def own_copy(error: E) -> E:
    """Return a copy to raise: one object raised many times would gather the traceback of each."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


class InvalidArgumentError(JobQueueError, ValueError):
    """An argument is wrong. Raised before anything is stored."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument
        """Name of the argument at fault."""

    def within(self, place: str) -> InvalidArgumentError:
        """Return the same error for an argument that is part of ``place``, for example of ``jobs[3]``."""
        return type(self)(f"{place}.{self.argument}" if self.argument else place, self._problem)

    @property
    def _problem(self) -> str:
        return str(self).removeprefix(f"{self.argument}: ")

    def __reduce__(self) -> tuple[type[InvalidArgumentError], tuple[str, str]]:
        return type(self), (self.argument, self._problem)


class SerializationError(JobQueueError):
    """The serde could not turn a payload or result into bytes, or back."""


class QueueFullError(JobQueueError):
    """The queue holds ``max_length`` waiting jobs, or the store has no room left."""


class WaitTimeoutError(JobQueueError, TimeoutError):
    """The timeout passed without an outcome. The job is not cancelled: wait again, or cancel it."""


class JobNotFoundError(JobQueueError):
    """No job has this id, or its record has expired."""


class ResultExpiredError(JobQueueError):
    """The job has completed, but its ``result_ttl`` was over before the result was read."""


class JobCancelledError(JobQueueError):
    """The job was cancelled, so no result will come."""


class JobFailedError(JobQueueError):
    """The job ended without a result."""

    def __init__(self, job_id: str, error: ErrorInfo, attempts: int, reason: str) -> None:
        super().__init__(
            f"job {job_id!r} failed ({reason}) after {attempts} "
            f"attempt{'' if attempts == 1 else 's'}: {error.type}: {error.message}"
        )
        self.job_id = job_id
        """Id of the failed job."""
        self.error = error
        """What the last attempt raised."""
        self.attempts = attempts
        """Claims counted until the end, stalled ones included."""
        self.reason = reason
        """``error``, ``timeout``, ``fatal``, ``stalled``, ``serialization``, or ``unknown``: the error itself
        had expired before it was read."""

    def __reduce__(self) -> tuple[type[JobFailedError], tuple[str, ErrorInfo, int, str]]:
        return type(self), (self.job_id, self.error, self.attempts, self.reason)


class MaxRetriesError(JobFailedError):
    """The job raised, or ran into its timeout, on its last allowed attempt."""


class LeaseLostError(JobQueueError):
    """This run lost its lease: another worker owns the job, nothing of this run is stored."""


class StorageError(JobQueueError):
    """The store refused the operation or broke."""


class StorageUnavailableError(StorageError):
    """The store cannot be reached now. A later try may succeed."""
