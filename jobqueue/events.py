"""The events of queues and reapers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from jobqueue.errors import ErrorInfo
from jobqueue.model.outcomes import FailureReason

__all__ = [
    "ErrorOccurred",
    "Event",
    "JobCancelled",
    "JobCompleted",
    "JobDeadLettered",
    "JobEnqueued",
    "JobFailed",
    "JobFailing",
    "JobProcessing",
    "JobProgress",
    "JobRequeued",
    "JobStalled",
    "LeadershipAcquired",
    "LeadershipLost",
    "Listener",
    "QueueEvent",
    "QueueEventName",
    "QueueStarted",
    "QueueStopped",
    "ReaperEvent",
    "ReaperEventName",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]
    """The name to give to `on`."""


@dataclass(frozen=True, slots=True)
class QueueStarted(Event):
    """The queue accepts calls; its worker claims jobs if it has a handler."""

    name: ClassVar[str] = "started"
    queue: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class QueueStopped(Event):
    """The queue has ended all its work."""

    name: ClassVar[str] = "stopped"
    queue: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class JobEnqueued(Event):
    """This queue object created a job. A duplicate is no event."""

    name: ClassVar[str] = "enqueued"
    id: str
    queue: str
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    priority: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class JobProcessing(Event):
    """A run starts in this process."""

    name: ClassVar[str] = "processing"
    id: str
    queue: str
    attempts: int
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str = field(default="", compare=False)
    """Name of the worker that runs it, this queue object's."""
    wait: float | None = field(default=None, compare=False)
    """Seconds from its due time, by the clock of the store, to this start, by that of this machine; never
    below 0.0. For a job that was given back or lost its worker: since before that. ``None`` if the store does
    not say."""


@dataclass(frozen=True, slots=True)
class JobCompleted(Event):
    """A run in this process completed its job, and the store has the result."""

    name: ClassVar[str] = "completed"
    id: str
    queue: str
    result: Any
    attempts: int
    seconds: float
    """How long the run took."""
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str = field(default="", compare=False)
    """Name of the worker that ran it, this queue object's."""


@dataclass(frozen=True, slots=True)
class JobFailed(Event):
    """A job failed for good: after its last attempt, or before its first, as it had not started in time."""

    name: ClassVar[str] = "failed"
    id: str
    queue: str
    error: ErrorInfo
    attempts: int
    reason: FailureReason
    seconds: float = 0.0
    """Seconds that the attempt took."""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    """The exception of the attempt, ``None`` if it raised none. It holds the variables of the handler: do not
    keep it."""
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str = field(default="", compare=False)
    """Name of the worker that ran it, this queue object's."""


@dataclass(frozen=True, slots=True)
class JobDeadLettered(Event):
    """A job has ended as failed, whatever the reason, and is a dead letter from now on.

    Told once for each such end, by whoever wrote it: the queue whose worker ran the job, or met it too late,
    and the reaper that found its lease lost once too often, or its time to start over.
    """

    name: ClassVar[str] = "dead_lettered"
    id: str
    queue: str
    error: ErrorInfo
    attempts: int
    """Claims so far."""
    reason: FailureReason
    task: str = ""
    """Name of the task that runs it; empty for the untyped job of a queue, and on a reaper."""
    worker_id: str = ""
    """Name of the worker that had it last."""


@dataclass(frozen=True, slots=True)
class JobFailing(Event):
    """An attempt failed; another follows after ``delay`` seconds."""

    name: ClassVar[str] = "failing"
    id: str
    queue: str
    error: ErrorInfo
    attempts: int
    delay: float
    seconds: float = 0.0
    """Seconds that the attempt took."""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    """The exception of the attempt, ``None`` if it raised none. It holds the variables of the handler: do not
    keep it."""
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str = field(default="", compare=False)
    """Name of the worker that ran it, this queue object's."""


@dataclass(frozen=True, slots=True)
class JobRequeued(Event):
    """A job was given back unfinished; the attempt is not counted."""

    name: ClassVar[str] = "requeued"
    id: str
    queue: str
    attempts: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)
    """Seconds that the attempt took."""
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str = field(default="", compare=False)
    """Name of the worker that ran it, this queue object's."""


@dataclass(frozen=True, slots=True)
class JobCancelled(Event):
    """A job ended as cancelled."""

    name: ClassVar[str] = "cancelled"
    id: str
    queue: str
    attempts: int | None = field(default=None, compare=False)
    """Claims so far; ``None`` if it was waiting."""
    seconds: float | None = field(default=None, compare=False)
    """Seconds that the attempt took; ``None`` if it was waiting."""
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str | None = field(default=None, compare=False)
    """Name of the worker that ran it, this queue object's; ``None`` if it was waiting."""


@dataclass(frozen=True, slots=True)
class JobStalled(Event):
    """A lease was lost: by a run of this process (on a queue), or found expired (on a reaper)."""

    name: ClassVar[str] = "stalled"
    id: str
    queue: str
    worker_id: str
    """The worker that had the lease."""
    stalls: int | None = None
    """Leases lost so far, if known: a worker that loses its lease does not know."""
    failed: bool = False
    """True if this was one stall too many, so the job failed with reason ``stalled``."""
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue, and on a reaper."""


@dataclass(frozen=True, slots=True)
class JobProgress(Event):
    """A handler of this process reported progress."""

    name: ClassVar[str] = "progress"
    id: str
    queue: str
    value: Any
    attempts: int = field(default=0, compare=False)
    task: str = field(default="", compare=False)
    """Name of the task that runs it; empty for the untyped job of a queue."""
    worker_id: str = field(default="", compare=False)
    """Name of the worker that runs it, this queue object's."""


@dataclass(frozen=True, slots=True)
class ErrorOccurred(Event):
    """Something went wrong outside of a handler; the queue or reaper goes on."""

    name: ClassVar[str] = "error"
    error: BaseException
    doing: str
    """The activity that failed, for a log line."""
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class LeadershipAcquired(Event):
    """This reaper leads."""

    name: ClassVar[str] = "leadership_acquired"
    id: str
    """The reaper's id."""
    term: int


@dataclass(frozen=True, slots=True)
class LeadershipLost(Event):
    """This reaper no longer leads."""

    name: ClassVar[str] = "leadership_lost"
    id: str
    term: int
    why: str


QueueEvent = (
    QueueStarted
    | QueueStopped
    | JobEnqueued
    | JobProcessing
    | JobCompleted
    | JobFailing
    | JobFailed
    | JobDeadLettered
    | JobRequeued
    | JobCancelled
    | JobStalled
    | JobProgress
    | ErrorOccurred
)
"""The events of a queue."""
QueueEventName = Literal[
    "started", "stopped", "enqueued", "processing", "completed", "failing", "failed", "dead_lettered",
    "requeued", "cancelled", "stalled", "progress", "error",
]  # fmt: skip

ReaperEvent = JobStalled | JobDeadLettered | LeadershipAcquired | LeadershipLost | ErrorOccurred
"""The events of a reaper."""
ReaperEventName = Literal["stalled", "dead_lettered", "leadership_acquired", "leadership_lost", "error"]

E = TypeVar("E", bound=Event)
Listener = Callable[[E], Awaitable[None] | None]
"""A function of one event; ``Listener[Any]`` is one of any event."""
