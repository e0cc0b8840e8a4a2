"""Every error that jobqueue raises, in one tree. A store may raise a subclass of its own.

JobQueueError
├── InvalidArgumentError (ValueError)    bad input; nothing was stored
├── NotStartedError                      the queue or reaper is not started
├── StoppedError                         the queue was stopped during the call
├── BrokenError                          a background task failed; only a restart helps
├── WrongLoopError                       used in another event loop, or in a forked child
├── SerializationError                   a payload or result that the serde refuses
│   └── TooLargeError                    ... because of its size
├── QueueFullError                       max_length, disk or memory limit reached
├── WaitTimeoutError (TimeoutError)      the wait ended; the job goes on
├── JobNotFoundError                     no such id, or its record expired
├── ResultExpiredError                   the job completed; its result expired before it was read
├── JobCancelledError                    the job was cancelled
├── JobFailedError                       the job ended without a result
│   └── MaxRetriesError                  ... because its attempts were used up
├── LeaseLostError                       this run no longer owns its job
├── UnsupportedError                     the store lacks a capability
└── StorageError                         the store refused or broke
    ├── StorageUnavailableError          ... and may answer later
    └── NotConfirmedError                the jobs are stored, but not as safely as asked
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

__all__ = [
    "BrokenError",
    "ErrorInfo",
    "InvalidArgumentError",
    "JobCancelledError",
    "JobFailedError",
    "JobNotFoundError",
    "JobQueueError",
    "LeaseLostError",
    "MaxRetriesError",
    "NotConfirmedError",
    "NotStartedError",
    "QueueFullError",
    "ResultExpiredError",
    "SerializationError",
    "StoppedError",
    "StorageError",
    "StorageUnavailableError",
    "TooLargeError",
    "UnsupportedError",
    "WaitTimeoutError",
    "WrongLoopError",
]

E = TypeVar("E", bound=BaseException)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A handler's exception as it is stored: text only, never the object."""

    type: str
    """Qualified class name, for example ``ValueError``, ``app.errors.Declined`` or ``jobqueue.Fatal``."""
    message: str
    """``str(exception)``, cut to 4,096 characters."""
    traceback: str | None = None
    """The formatted traceback, only if the queue was built with ``tracebacks=True``."""


class JobQueueError(Exception):
    """Base of every error of this package; itself raised for mistakes in the use of an object.

    For example for a second handler, or for a handler that stops its own queue.
    """


def own_copy(error: E) -> E:
    """Return a copy to raise: one object raised many times would gather the traceback of each."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def user_code(call: Callable[[], T], otherwise: Callable[[BaseException], T]) -> T:
    """Return what code of the user's returns, or ``otherwise(error)`` for whatever it raises.

    For what must not fail with it: an error's text, a log line, a delay. Where an error of the user's is
    an outcome, as in a run, it is caught there.
    """
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - this is the place for it
        return otherwise(error)


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


class NotStartedError(JobQueueError):
    """The queue is not started, or has been stopped: use ``async with queue:`` or `Queue.start`."""


class StoppedError(JobQueueError):
    """The queue was stopped during this call. The job goes on elsewhere: wait for it with another queue."""


class BrokenError(JobQueueError):
    """A background task failed, which only a restart of the queue or reaper heals; its error is the cause."""


class WrongLoopError(JobQueueError):
    """A queue or reaper was used in another event loop, or another process, than that of its start.

    Or ``queue.sync`` in a thread whose event loop runs, which it would block.
    """


class SerializationError(JobQueueError):
    """The serde could not turn a payload or result into bytes, or back."""


class TooLargeError(SerializationError):
    """A serialized result or progress value exceeds ``max_payload_bytes``: store a reference to it instead.

    A payload that does is an `InvalidArgumentError`, since it is an argument.
    """


class QueueFullError(JobQueueError):
    """The queue holds ``max_length`` waiting jobs, or the store has no room left."""


class WaitTimeoutError(JobQueueError, TimeoutError):
    """The timeout passed without an outcome. The job is not cancelled: wait again, or cancel it."""


class JobNotFoundError(JobQueueError):
    """No job has this id, or its record has expired; or no schedule has this name."""


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
        """The error of the last attempt."""
        self.attempts = attempts
        """Claims counted until the end, stalled ones included."""
        self.reason = reason
        """``error``, ``timeout``, ``fatal``, ``stalled``, ``serialization``, ``no_handler``, or
        ``unknown``: the error itself had expired before it was read."""

    def __reduce__(self) -> tuple[type[JobFailedError], tuple[str, ErrorInfo, int, str]]:
        return type(self), (self.job_id, self.error, self.attempts, self.reason)


class MaxRetriesError(JobFailedError):
    """The job raised, or ran into its timeout, on its last allowed attempt."""


class LeaseLostError(JobQueueError):
    """This run lost its lease: another worker owns the job, nothing of this run is stored."""


class UnsupportedError(JobQueueError):
    """The store lacks a capability that a feature needs. Nothing was stored."""

    def __init__(self, feature: str, store: str, capability: str, remedy: str) -> None:
        super().__init__(f"{feature}: {store} lacks {capability}; {remedy}")
        self.feature = feature
        """The feature that was asked for."""
        self.store = store
        """Class name of the store."""
        self.capability = capability
        """Name of the capability, one of `jobqueue.storage.capabilities`."""
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[UnsupportedError], tuple[str, str, str, str]]:
        return type(self), (self.feature, self.store, self.capability, self.remedy)


class StorageError(JobQueueError):
    """The store refused the operation or broke."""


class StorageUnavailableError(StorageError):
    """The store cannot be reached now. A later try may succeed."""


class Confirmation(Protocol):
    """The safety that was asked for: a `Confirm` of the Redis store."""

    @property
    def replicas(self) -> int:
        """Number of replicas that are to have the jobs."""
        ...

    @property
    def local_fsync(self) -> bool:
        """Whether the server itself is to have them on its disk."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds that this may take."""
        ...


class Reached(NamedTuple):
    """The safety that new jobs had when the time was up."""

    local_fsync: bool
    """Whether the server's own disk has them (False if not asked)."""
    replicas: int
    """Number of replicas that have them."""

    def suffices(self, asked: Confirmation) -> bool:
        """Return whether this is as much as ``asked``."""
        return self.replicas >= asked.replicas and self.local_fsync >= asked.local_fsync


class NotConfirmedError(StorageError):
    """The jobs are stored and will run, but a crash of the server may still lose them.

    Calling again with the same ids is safe: it creates nothing twice, and waits for confirmation anew.
    """

    def __init__(self, asked: Confirmation, reached: Reached) -> None:
        parts = [f"{reached.replicas} of {asked.replicas} replicas"] if asked.replicas else []
        if asked.local_fsync:
            parts.append("the server's disk" if reached.local_fsync else "not the server's disk")
        super().__init__(
            f"the jobs are stored, but within {asked.timeout:g} s they had reached only "
            f"{' and '.join(parts)}: insert them again with the same ids to wait for confirmation anew"
        )
        self.asked = asked
        """The confirmation that was asked for."""
        self.reached = reached
        """The confirmation that was reached."""

    def __reduce__(self) -> tuple[type[NotConfirmedError], tuple[Confirmation, Reached]]:
        return type(self), (self.asked, self.reached)
