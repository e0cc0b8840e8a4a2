"""The events of queues and reapers, and their listeners."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from jobqueue.errors import ErrorInfo, InvalidArgumentError
from jobqueue.job import FailureReason
from jobqueue.loggers import get_logger
from jobqueue.options import check_callable
from jobqueue.runtime import Clock, all_end

__all__ = [
    "Emitter",
    "ErrorOccurred",
    "Event",
    "JobCancelled",
    "JobCompleted",
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

log = get_logger("jobqueue")

PATIENCE = 5.0
"""Seconds that asynchronous listeners get to end when their queue or reaper stops."""
GRACE = 1.0
"""Seconds that asynchronous listeners get to end after their cancellation."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]
    """The name that `on` takes."""


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


@dataclass(frozen=True, slots=True)
class JobProcessing(Event):
    """A run starts in this process."""

    name: ClassVar[str] = "processing"
    id: str
    queue: str
    attempts: int


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


@dataclass(frozen=True, slots=True)
class JobFailed(Event):
    """A job failed for good."""

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


@dataclass(frozen=True, slots=True)
class JobRequeued(Event):
    """A job was given back unfinished; the attempt is not counted."""

    name: ClassVar[str] = "requeued"
    id: str
    queue: str


@dataclass(frozen=True, slots=True)
class JobCancelled(Event):
    """A job ended as cancelled."""

    name: ClassVar[str] = "cancelled"
    id: str
    queue: str


@dataclass(frozen=True, slots=True)
class JobStalled(Event):
    """A lease was lost: by a run of this process (on a queue), or found expired (on a reaper)."""

    name: ClassVar[str] = "stalled"
    id: str
    queue: str
    worker_id: str
    """The worker that had the lease."""
    stalls: int | None = None
    """Leases lost so far, if known: a worker that loses its lease cannot tell."""
    failed: bool = False
    """True if this was one stall too many, so the job failed with reason ``stalled``."""


@dataclass(frozen=True, slots=True)
class JobProgress(Event):
    """A handler of this process reported progress."""

    name: ClassVar[str] = "progress"
    id: str
    queue: str
    value: Any


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
    | JobRequeued
    | JobCancelled
    | JobStalled
    | JobProgress
    | ErrorOccurred
)
"""The events of a queue."""
QueueEventName = Literal[
    "started", "stopped", "enqueued", "processing", "completed", "failing", "failed", "requeued",
    "cancelled", "stalled", "progress", "error",
]  # fmt: skip

ReaperEvent = JobStalled | LeadershipAcquired | LeadershipLost | ErrorOccurred
"""The events of a reaper."""
ReaperEventName = Literal["stalled", "leadership_acquired", "leadership_lost", "error"]

E = TypeVar("E", bound=Event)
Listener = Callable[[E], Awaitable[None] | None]
"""A function of one event; ``Listener[Any]`` is one of any event."""


class Emitter:
    """Calls the listeners of each event. One that raises is logged; the others are still called."""

    def __init__(self, *kinds: type[Event]) -> None:
        self._listeners: dict[str, tuple[tuple[Listener[Any]], ...]] = {kind.name: () for kind in kinds}
        self._kinds = {kind.name: kind for kind in kinds}
        self._tasks: dict[asyncio.Task[None], str] = {}  # to the event's name
        self.heard: set[type[Event]] = set()
        """Event types with at least one listener; others are not even built."""

    def on(self, event: str | type[Event], listener: Listener[Any]) -> Callable[[], None]:
        """Add a listener for an event, given by name or class; return a function that removes it.

        Raises `InvalidArgumentError`.
        """
        kind = self._kind(event)
        check_callable("listener", listener)
        entry = (listener,)  # an object of its own: one function may listen twice
        self._listeners[kind.name] += (entry,)
        self.heard.add(kind)

        def unsubscribe() -> None:
            left = [known for known in self._listeners[kind.name] if known is not entry]
            self._listeners[kind.name] = tuple(left)
            if not left:
                self.heard.discard(kind)

        return unsubscribe

    def has(self, kind: type[Event]) -> bool:
        """Return whether this emitter has events of a class."""
        return kind in self._kinds.values()

    def _kind(self, event: str | type[Event]) -> type[Event]:
        for name, kind in self._kinds.items():
            if event is kind or event == name:
                return kind
        raise InvalidArgumentError("name", f"must be one of {', '.join(self._kinds)}, not {event!r}")

    def emit(self, event: Event) -> None:
        """Call every listener; asynchronous ones run as tasks of their own."""
        for (listener,) in self._listeners[event.name]:
            try:
                answer = listener(event)
            except BaseException:
                log.exception("a listener of %r raised", event.name)
                continue
            if inspect.isawaitable(answer):
                task = asyncio.ensure_future(_logged(event.name, answer))
                self._tasks[task] = event.name
                task.add_done_callback(self._forget)

    async def drain(self, clock: Clock) -> None:
        """Wait for the asynchronous listeners called so far; cancel those that take too long."""
        current = asyncio.current_task()
        tasks = {task: name for task, name in self._tasks.items() if task is not current}
        if not tasks or await all_end(clock, tasks, PATIENCE):
            return
        left = [task for task in tasks if not task.done()]
        names = ", ".join(sorted({repr(tasks[task]) for task in left}))
        log.warning("listeners of %s had not ended after %g s and were cancelled", names, PATIENCE)
        for task in left:
            task.cancel()
            self._forget(task)  # one that ignores this is waited for once
        await all_end(clock, left, GRACE)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)


async def _logged(name: str, answer: Awaitable[None]) -> None:
    try:
        await answer
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException:
        log.exception("a listener of %r raised", name)
