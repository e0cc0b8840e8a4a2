"""The outcomes of a run, and the write that each one asks of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from jobqueue.errors import ErrorInfo
from jobqueue.model.checks import millis
from jobqueue.model.fast import make_tuple
from jobqueue.model.new_job import NewJob
from jobqueue.model.states import Action

__all__ = [
    "EXPIRED_ERROR",
    "MAX_SUMMARY",
    "STALLED_ERROR",
    "Aborted",
    "AbortedReason",
    "CheckedSettlement",
    "FailureReason",
    "Fatal",
    "Outcome",
    "Raised",
    "Retry",
    "RetryAsked",
    "Returned",
    "RunFacts",
    "Settlement",
    "aborted_outcome",
    "completion",
    "decode_error",
    "decode_met",
    "encode_error",
    "is_final",
    "settle",
    "stable_name",
    "summarize_error",
]

MAX_TYPE = 512
MAX_MESSAGE = 4096
MAX_TRACEBACK = 32_768
MAX_SUMMARY = 2_048
"""Largest number of bytes in the summary of an error, which stays in a job's history."""
_SUMMARY_TYPE = 100


# Looked up once: on Python 3.11 the member of an enum costs 0.1 µs, from 3.12 on nothing.
_COMPLETE = Action.COMPLETE


class FailureReason(StrEnum):
    """Why a job failed; ``JobFailedError.reason``."""

    ERROR = "error"
    TIMEOUT = "timeout"
    """An attempt exceeded ``job_timeout``."""
    FATAL = "fatal"
    """The handler raised `Fatal`, or ``after_execution`` failed a job that had succeeded."""
    STALLED = "stalled"
    """Its lease expired more than ``max_stalls`` times: it keeps killing its workers."""
    SERIALIZATION = "serialization"
    """The payload could not be read, or the result not be written."""
    NO_HANDLER = "no_handler"
    """No worker that met it for ``handler_patience`` seconds had the handler of its task."""
    EXPIRED = "expired"
    """It had not started within ``expires`` seconds after it was due, and so never does."""
    UNKNOWN = "unknown"
    """The job failed, and its error expired before it was read, or the stored bytes are no error."""

    @property
    def retryable(self) -> bool:
        """Whether another attempt could end differently, so that only the last allowed one is final."""
        return self in _RETRYABLE


_RETRYABLE = frozenset({FailureReason.ERROR, FailureReason.TIMEOUT})
_REASONS: tuple[str, ...] = tuple(FailureReason)


class AbortedReason(StrEnum):
    """Why a running handler is asked to end; ``Job.aborted_reason``."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"


class Retry(Exception):  # noqa: N818 - a request of the handler, not an error
    """Raised by a handler to run this job again after ``delay`` seconds.

    ``None`` takes the queue's backoff. Attempts left do not matter: it is always run again.
    """

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("the handler asked for a retry")
        self.delay = delay


class Fatal(Exception):  # noqa: N818 - a request of the handler, not an error
    """Raised by a handler to fail the job now, whatever attempts are left."""


# -- outcomes: what one run of a handler came to --------------------------------------------------


class Returned(NamedTuple):
    """The handler returned; its result as bytes."""

    result: bytes


class Raised(NamedTuple):
    """The run failed."""

    error: ErrorInfo
    reason: FailureReason = FailureReason.ERROR


_TIMED_OUT = Raised(ErrorInfo("TimeoutError", "the attempt exceeded job_timeout"), FailureReason.TIMEOUT)


class RetryAsked(NamedTuple):
    """The job is to run again, whatever attempts are left: the handler raised `Retry`, or is missing."""

    error: ErrorInfo
    delay: float | None
    """Seconds; ``None``: as the backoff says."""
    reason: FailureReason = FailureReason.ERROR
    met: int = 0
    """Claims of the job so far that met no handler, this one included; 0 if this one met it."""


class Aborted(NamedTuple):
    """The run was ended from outside before it had an outcome of its own: see `aborted_outcome`."""

    reason: AbortedReason
    """Never a timeout: that is a failed attempt."""


Outcome = Returned | Raised | RetryAsked | Aborted


def aborted_outcome(reason: AbortedReason) -> Outcome:
    """Return the outcome of a run that was asked to end for a reason, and ended without another one."""
    return _TIMED_OUT if reason is AbortedReason.TIMEOUT else Aborted(reason)


class RunFacts(Protocol):
    """The facts about a run on which its settlement depends."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def fence(self) -> int:
        """The claim's fence."""
        ...

    @property
    def attempts(self) -> int:
        """Claims so far, this one included."""
        ...

    @property
    def max_attempts(self) -> int:
        """The attempt on which an error is final."""
        ...


class Settlement(NamedTuple):
    """The write a worker asks for at the end of a run; the store makes it if the fence still holds."""

    id: str
    fence: int
    action: Action
    """``complete``, ``fail``, ``retry``, ``release`` or ``cancel``."""
    data: bytes = b""
    """The result of ``complete``; the encoded error of ``fail`` and ``retry``."""
    ttl: int = 0
    """Milliseconds that an ended record stays."""
    delay: int = 0
    """Milliseconds until the attempt after a ``retry``."""
    summary: bytes = b""
    """The error of ``fail`` and ``retry`` once more, at most `MAX_SUMMARY` bytes, for the history."""
    then: tuple[NewJob, ...] = ()
    """Jobs to insert into the same queue in the same step, if and only if this settlement is accepted now."""


class CheckedSettlement(Settlement):
    """A settlement whose fields need no check: `settle` made it. A changed copy is a `Settlement` again."""

    __slots__ = ()
    # `_replace` calls it, and makes what is not checked.
    _make = Settlement._make  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def is_final(attempt: RunFacts, outcome: Outcome) -> bool:
    """Return whether a run ends its job with a result, or with an error that is not tried again."""
    match outcome:
        case Returned():
            return True
        case Raised():
            return not outcome.reason.retryable or attempt.attempts >= attempt.max_attempts
        case _:
            return False


def completion(id: str, fence: int, result: bytes, ttl: int) -> Settlement:
    """Return the write that completes a job: what nearly all runs end with, so it is made the fast way."""
    return make_tuple(CheckedSettlement, (id, fence, _COMPLETE, result, ttl, 0, b"", ()))


def settle(attempt: RunFacts, outcome: Outcome, ttl: int, backoff: Callable[[int], int]) -> Settlement | None:
    """Turn the outcome of a run into the write for the store, or ``None`` if the lease is gone.

    ``ttl`` is the milliseconds that an ended record stays; ``backoff`` gives the milliseconds to wait
    after so many attempts.
    """
    id, fence = attempt.id, attempt.fence
    match outcome:
        case Returned(result):
            return completion(id, fence, result, ttl)
        case RetryAsked(error, delay, reason, met):
            wait = backoff(attempt.attempts) if delay is None else millis(delay)
            data, summary = encode_error(error, reason), summarize_error(error, reason, met)
            return CheckedSettlement(id, fence, Action.RETRY, data, ttl, wait, summary)
        case Raised(error, reason):
            data, summary = encode_error(error, reason), summarize_error(error, reason)
            if is_final(attempt, outcome):
                return CheckedSettlement(id, fence, Action.FAIL, data, ttl, 0, summary)
            wait = backoff(attempt.attempts)
            return CheckedSettlement(id, fence, Action.RETRY, data, ttl, wait, summary)
        case Aborted(AbortedReason.CANCELLED):
            return CheckedSettlement(id, fence, Action.CANCEL, b"", ttl)
        case Aborted(AbortedReason.SHUTDOWN):
            return CheckedSettlement(id, fence, Action.RELEASE, b"", ttl)
        case Aborted():  # the lease is lost: whatever this run did belongs to nobody
            return None


def stable_name(type: str) -> str:
    """Return the qualified name of an exception class as it is stored: one of ours without its module.

    Our modules may move; names in users' data must not. Applied to what is read, too: 0.1.0 stored
    ``jobqueue.job.Fatal``.
    """
    return f"jobqueue.{type.rpartition('.')[2]}" if type.startswith("jobqueue.") else type


def encode_error(error: ErrorInfo, reason: str) -> bytes:
    """Return an error as bounded JSON, readable in any store's own tools."""
    fields = {"type": error.type[:MAX_TYPE], "message": error.message[:MAX_MESSAGE], "reason": reason}
    if error.traceback is not None:
        fields["traceback"] = error.traceback[-MAX_TRACEBACK:]
    return _as_json(fields)


def summarize_error(error: ErrorInfo, reason: str, met: int = 0) -> bytes:
    """Return an error as `encode_error` does, without its traceback and within `MAX_SUMMARY` bytes.

    ``met`` is that of a `RetryAsked`.
    """
    message = error.message[:MAX_SUMMARY]
    fields: dict[str, object] = {"type": error.type[:_SUMMARY_TYPE], "message": message, "reason": reason}
    if met:
        fields["met"] = met
    summary = _as_json(fields)
    excess = len(summary) - MAX_SUMMARY
    if excess > 0:
        end = len(message)
        while excess > 0:  # an escaped character takes up to twelve bytes
            end -= 1
            excess -= len(_as_json(message[end])) - 2
        summary = _as_json({**fields, "message": message[:end]})
    return summary


def _as_json(value: object) -> bytes:
    # ASCII escapes carry even a lone surrogate, which UTF-8 would refuse.
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_error(data: bytes) -> tuple[ErrorInfo, FailureReason]:
    """Read the bytes of `encode_error`. Never raises: foreign bytes become an error that says so."""
    try:
        fields: Any = json.loads(data)
        traceback = fields.get("traceback")
        info = ErrorInfo(
            stable_name(str(fields["type"]))[:MAX_TYPE],
            str(fields["message"])[:MAX_MESSAGE],
            None if traceback is None else str(traceback)[-MAX_TRACEBACK:],
        )
        reason = fields.get("reason")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ErrorInfo("unknown", "the stored error cannot be read"), FailureReason.UNKNOWN
    return info, FailureReason(reason) if reason in _REASONS else FailureReason.UNKNOWN


def decode_met(summary: bytes) -> int:
    """Return the ``met`` of a summary, 0 if it has none."""
    try:
        met: Any = json.loads(summary).get("met")
    except (ValueError, AttributeError, RecursionError):
        return 0
    return met if type(met) is int and met > 0 else 0


STALLED_ERROR = encode_error(
    ErrorInfo(
        "Stalled",
        "the lease expired more than max_stalls times: the workers that ran this job died or hung",
    ),
    FailureReason.STALLED,
)
"""The error that a sweep stores when it abandons a job."""

EXPIRED_ERROR = encode_error(
    ErrorInfo("Expired", "it had not started within `expires` seconds after it was due, so it never will"),
    FailureReason.EXPIRED,
)
"""The error that a store writes into a job whose time to start has passed."""
