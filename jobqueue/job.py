"""The state machine of a job: states, the one transition table, and outcomes.

                 enqueue          claim             complete
    (no job) ─────────────▶ queued ─────▶ processing ─────────▶ completed
        │                    ▲ ▲ ▲           │ │ │ │   fail
        │ schedule   promote │ │ └─ release ─┘ │ │ └──────────▶ failed
        └─────▶ scheduled ───┘ │    recover    │ │      abandon
                       promote │         retry │ │ cancel
                               └── failing ◀───┘ └────────────▶ cancelled

`scheduled`, `queued` and `failing` are also cancelled directly. An ended job (`completed`,
`failed`, `cancelled`) whose id is used again starts over from "no job".

Everything here is pure: what a handler did becomes an `Outcome`, `settle` turns that into a
`Settlement`, and a store compares the fence and writes it. Stores never decide policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from jobqueue.errors import ErrorInfo
from jobqueue.options import millis
from jobqueue.runtime import make_tuple

__all__ = [
    "ENDED",
    "STALLED_ERROR",
    "TIMED_OUT",
    "TRANSITIONS",
    "WAITING",
    "Aborted",
    "AbortedReason",
    "Action",
    "Attempt",
    "CheckedSettlement",
    "FailureReason",
    "Fatal",
    "JobState",
    "Outcome",
    "Raised",
    "Retry",
    "RetryAsked",
    "Returned",
    "Settlement",
    "decode_error",
    "encode_error",
    "is_final",
    "settle",
]

MAX_TYPE = 512
MAX_MESSAGE = 4096
MAX_TRACEBACK = 32_768


class JobState(StrEnum):
    """The states of a job."""

    SCHEDULED = "scheduled"
    """Waits for its start time."""
    QUEUED = "queued"
    """Ready to be claimed."""
    PROCESSING = "processing"
    """A worker holds its lease."""
    FAILING = "failing"
    """An attempt failed; the retry waits for its time."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = frozenset({JobState.SCHEDULED, JobState.QUEUED, JobState.FAILING})
"""Live states in which the job waits: no worker runs it."""
ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
"""Final states: nothing more happens until the record expires."""


class Action(StrEnum):
    """The steps that move a job from one state to the next."""

    ENQUEUE = "enqueue"
    SCHEDULE = "schedule"
    PROMOTE = "promote"
    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RELEASE = "release"
    """Given back unfinished: to the front, and the attempt is not counted."""
    RECOVER = "recover"
    """The lease expired: to the front, and the stall is counted."""
    ABANDON = "abandon"
    """The lease expired more often than ``max_stalls`` allows."""
    CANCEL = "cancel"


TRANSITIONS: dict[tuple[JobState | None, Action], JobState] = {
    (None, Action.ENQUEUE): JobState.QUEUED,
    (None, Action.SCHEDULE): JobState.SCHEDULED,
    (JobState.SCHEDULED, Action.PROMOTE): JobState.QUEUED,
    (JobState.FAILING, Action.PROMOTE): JobState.QUEUED,
    (JobState.QUEUED, Action.CLAIM): JobState.PROCESSING,
    (JobState.PROCESSING, Action.COMPLETE): JobState.COMPLETED,
    (JobState.PROCESSING, Action.FAIL): JobState.FAILED,
    (JobState.PROCESSING, Action.RETRY): JobState.FAILING,
    (JobState.PROCESSING, Action.RELEASE): JobState.QUEUED,
    (JobState.PROCESSING, Action.RECOVER): JobState.QUEUED,
    (JobState.PROCESSING, Action.ABANDON): JobState.FAILED,
    (JobState.PROCESSING, Action.CANCEL): JobState.CANCELLED,
    (JobState.SCHEDULED, Action.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, Action.CANCEL): JobState.CANCELLED,
    (JobState.FAILING, Action.CANCEL): JobState.CANCELLED,
}
"""The state that an action leads to, by the state before. No other transition exists."""


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
    UNKNOWN = "unknown"
    """The job failed, and its error expired before it was read, or the stored bytes are no error."""


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

    @property
    def retryable(self) -> bool:
        """Whether another attempt could end differently."""
        return self.reason in {FailureReason.ERROR, FailureReason.TIMEOUT}


TIMED_OUT = Raised(ErrorInfo("TimeoutError", "the attempt exceeded job_timeout"), FailureReason.TIMEOUT)
"""The outcome of a run that was aborted because of its timeout."""


class RetryAsked(NamedTuple):
    """The handler raised `Retry`."""

    error: ErrorInfo
    delay: float | None


class Aborted(NamedTuple):
    """The run was ended from outside before it had an outcome of its own."""

    reason: AbortedReason


Outcome = Returned | Raised | RetryAsked | Aborted


class Attempt(Protocol):
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


class CheckedSettlement(Settlement):
    """A settlement whose fields need no check: `settle` made it. A changed copy is a `Settlement` again."""

    __slots__ = ()
    # `_replace` calls it, and makes what is not checked.
    _make = Settlement._make  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def is_final(attempt: Attempt, outcome: Outcome) -> bool:
    """Return whether a run ends its job with a result, or with an error that is not tried again."""
    match outcome:
        case Returned():
            return True
        case Raised():
            return not outcome.retryable or attempt.attempts >= attempt.max_attempts
        case Aborted(AbortedReason.TIMEOUT):
            return is_final(attempt, TIMED_OUT)
        case _:
            return False


def settle(attempt: Attempt, outcome: Outcome, ttl: int, backoff: Callable[[int], int]) -> Settlement | None:
    """Turn the outcome of a run into the write for the store, or ``None`` if the lease is gone.

    ``ttl`` is the milliseconds that an ended record stays; ``backoff`` gives the milliseconds to wait
    after so many attempts.
    """
    id, fence = attempt.id, attempt.fence
    if isinstance(outcome, Returned):  # first: the outcome of nearly all runs
        return make_tuple(CheckedSettlement, (id, fence, _COMPLETE, outcome.result, ttl, 0))
    match outcome:
        case RetryAsked(error, delay):
            wait = backoff(attempt.attempts) if delay is None else millis(delay)
            data = encode_error(error, FailureReason.ERROR)
            return CheckedSettlement(id, fence, Action.RETRY, data, ttl, wait)
        case Raised(error, reason):
            data = encode_error(error, reason)
            if is_final(attempt, outcome):
                return CheckedSettlement(id, fence, Action.FAIL, data, ttl)
            return CheckedSettlement(id, fence, Action.RETRY, data, ttl, backoff(attempt.attempts))
        case Aborted(AbortedReason.CANCELLED):
            return CheckedSettlement(id, fence, Action.CANCEL, b"", ttl)
        case Aborted(AbortedReason.SHUTDOWN):
            return CheckedSettlement(id, fence, Action.RELEASE, b"", ttl)
        case Aborted(AbortedReason.TIMEOUT):
            return settle(attempt, TIMED_OUT, ttl, backoff)
        case Aborted():  # the lease is lost: whatever this run did belongs to nobody
            return None


def encode_error(error: ErrorInfo, reason: str) -> bytes:
    """Return an error as bounded JSON, readable in any store's own tools."""
    fields = {"type": error.type[:MAX_TYPE], "message": error.message[:MAX_MESSAGE], "reason": reason}
    if error.traceback is not None:
        fields["traceback"] = error.traceback[-MAX_TRACEBACK:]
    # ASCII escapes carry even a lone surrogate, which UTF-8 would refuse.
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def decode_error(data: bytes) -> tuple[ErrorInfo, FailureReason]:
    """Read the bytes of `encode_error`. Never raises: foreign bytes become an error that says so."""
    try:
        fields: Any = json.loads(data)
        traceback = fields.get("traceback")
        info = ErrorInfo(
            str(fields["type"])[:MAX_TYPE],
            str(fields["message"])[:MAX_MESSAGE],
            None if traceback is None else str(traceback)[-MAX_TRACEBACK:],
        )
        reason = fields.get("reason")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ErrorInfo("unknown", "the stored error cannot be read"), FailureReason.UNKNOWN
    return info, FailureReason(reason) if reason in _REASONS else FailureReason.UNKNOWN


STALLED_ERROR = encode_error(
    ErrorInfo(
        "Stalled",
        "the lease expired more than max_stalls times: the workers that ran this job died or hung",
    ),
    FailureReason.STALLED,
)
"""The error that a sweep stores when it abandons a job."""
