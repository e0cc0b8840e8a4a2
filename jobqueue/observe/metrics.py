"""Counts and times jobs from the events of queues and reapers, for whatever collects the figures.

Collectors differ, what is worth counting does not. So the events are read here, once, and told to a `Sink`:
`jobqueue.observe.prometheus` is one, an adapter to StatsD takes ten lines.

Labels come from a bounded set: queues, the tasks that their `Queue` objects declare, reasons, states. The
name of a task that nobody here declares may come from anybody who enqueues: it counts as ``(other)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jobqueue.events import (
    ErrorOccurred,
    JobCancelled,
    JobCompleted,
    JobDeadLettered,
    JobEnqueued,
    JobFailed,
    JobFailing,
    JobProcessing,
    JobRequeued,
    JobStalled,
)
from jobqueue.maintenance.reaper import Reaper
from jobqueue.model.outcomes import FailureReason
from jobqueue.model.states import JobState
from jobqueue.observe.sources import Part, Source, parts_of
from jobqueue.queue import Queue

__all__ = ["COUNTERS", "MAX_QUEUES", "OTHER", "TIMES", "Metric", "QueueLabels", "Sink", "instrument", "watch"]

MAX_QUEUES = 100
"""Queues that get figures of their own although no `Queue` object of this process names them."""
OTHER = "(other)"
"""Label of tasks that no queue object here declares, and of queues beyond `MAX_QUEUES`."""


class Sink(Protocol):
    """Takes figures: `increment` counts one, `observe` takes one of many values, all of them in seconds."""

    def increment(self, name: str, labels: Mapping[str, str], /) -> None:
        """Count one occurrence. ``name`` is that of a counter in `COUNTERS`."""
        ...

    def observe(self, name: str, seconds: float, labels: Mapping[str, str], /) -> None:
        """Take a duration. ``name`` is in `TIMES`."""
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """The description of a figure."""

    name: str
    labels: tuple[str, ...]
    help: str


_ENQUEUED = Metric(
    "jobqueue_jobs_enqueued_total", ("queue", "task"), "Jobs created here. A duplicate is none."
)
_ENDED = Metric(
    "jobqueue_jobs_ended_total", ("queue", "task", "state", "reason"),
    "Jobs that ended here as completed, failed (for a reason) or cancelled.",
)  # fmt: skip
_RETRIED = Metric(
    "jobqueue_jobs_retried_total", ("queue", "task"), "Attempts that failed and are tried again."
)
_REQUEUED = Metric(
    "jobqueue_jobs_requeued_total", ("queue", "task"), "Jobs that were given back unfinished at a shutdown."
)
_STALLED = Metric(
    "jobqueue_jobs_stalled_total",
    ("queue",),
    "Expired leases that a reaper here took back from dead workers.",
)
_LOST = Metric(
    "jobqueue_leases_lost_total", ("queue", "task"), "Leases that runs here lost while they were running."
)
_ERRORS = Metric("jobqueue_errors_total", ("queue",), "Errors outside of handlers, such as those of a store.")
_DURATION = Metric("jobqueue_job_duration_seconds", ("queue", "task"), "Time that an attempt took.")
_WAIT = Metric("jobqueue_job_wait_seconds", ("queue", "task"), "Time from a job's due time to its start.")

COUNTERS = (_ENQUEUED, _ENDED, _RETRIED, _REQUEUED, _STALLED, _LOST, _ERRORS)
TIMES = (_DURATION, _WAIT)


def instrument(*sources: Source, sink: Sink) -> Callable[[], None]:
    """Tell ``sink`` the figures of queues, reapers and apps; return a function that ends this.

    Its methods are called in the event loop, and by `Queue.sync` in another thread: they must not block. One
    that raises is logged. Raises `InvalidArgumentError`.
    """
    labels, removers = QueueLabels(), list[Callable[[], None]]()
    for part in parts_of(sources):
        removers += watch(part, sink, labels)

    def remove() -> None:
        for each in removers:
            each()

    return remove


class QueueLabels:
    """Names of queues as labels, of which there is a bounded number."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._foreign: set[str] = set()

    def know(self, queue: str) -> None:
        """Give a queue that this process has a label of its own."""
        self._known.add(queue)

    def of(self, queue: str) -> str:
        """Return the label of a queue; that of one too many is `OTHER`."""
        if queue not in self._known and queue not in self._foreign:
            if len(self._foreign) >= MAX_QUEUES:
                return OTHER
            self._foreign.add(queue)
        return queue


def watch(part: Part, sink: Sink, labels: QueueLabels) -> list[Callable[[], None]]:
    """Tell a sink the figures of a queue or reaper; return functions that end this."""
    if isinstance(part, Reaper):
        meter = _ReaperMeter(sink, labels)
        return [
            part.on(JobStalled, meter.stalled),
            part.on(JobDeadLettered, meter.failed),
            part.on(ErrorOccurred, meter.error),
        ]
    labels.know(part.name)
    of_queue = _QueueMeter(sink, part)
    return [
        part.on(JobEnqueued, of_queue.enqueued),
        part.on(JobProcessing, of_queue.processing),
        part.on(JobCompleted, of_queue.completed),
        part.on(JobFailing, of_queue.failing),
        part.on(JobFailed, of_queue.failed),
        part.on(JobCancelled, of_queue.cancelled),
        part.on(JobRequeued, of_queue.requeued),
        part.on(JobStalled, of_queue.lost),
        part.on(ErrorOccurred, of_queue.error),
    ]


class _QueueMeter:
    """Reads the events of one queue object."""

    def __init__(self, sink: Sink, queue: Queue[Any, Any]) -> None:
        self._sink = sink
        self._queue = queue.name
        self._tasks = queue.task

    def _labels(self, task: str) -> dict[str, str]:
        return {"queue": self._queue, "task": task if not task or task in self._tasks else OTHER}

    def enqueued(self, event: JobEnqueued) -> None:
        self._sink.increment(_ENQUEUED.name, self._labels(event.task))

    def processing(self, event: JobProcessing) -> None:
        if event.wait is not None:
            self._sink.observe(_WAIT.name, event.wait, self._labels(event.task))

    def completed(self, event: JobCompleted) -> None:
        labels = self._labels(event.task)
        self._sink.observe(_DURATION.name, event.seconds, labels)
        self._sink.increment(_ENDED.name, {**labels, "state": "completed", "reason": ""})

    def failed(self, event: JobFailed) -> None:
        labels = self._labels(event.task)
        if event.reason is not FailureReason.EXPIRED:  # such a job never ran
            self._sink.observe(_DURATION.name, event.seconds, labels)
        ended = {**labels, "state": JobState.FAILED.value, "reason": event.reason.value}
        self._sink.increment(_ENDED.name, ended)

    def failing(self, event: JobFailing) -> None:
        labels = self._labels(event.task)
        self._sink.observe(_DURATION.name, event.seconds, labels)
        self._sink.increment(_RETRIED.name, labels)

    def cancelled(self, event: JobCancelled) -> None:
        labels = self._labels(event.task)
        if event.seconds is not None:
            self._sink.observe(_DURATION.name, event.seconds, labels)
        self._sink.increment(_ENDED.name, {**labels, "state": JobState.CANCELLED.value, "reason": ""})

    def requeued(self, event: JobRequeued) -> None:
        self._sink.increment(_REQUEUED.name, self._labels(event.task))

    def lost(self, event: JobStalled) -> None:
        self._sink.increment(_LOST.name, self._labels(event.task))

    def error(self, _event: ErrorOccurred) -> None:
        self._sink.increment(_ERRORS.name, {"queue": self._queue})


class _ReaperMeter:
    """Reads the events of one reaper."""

    def __init__(self, sink: Sink, labels: QueueLabels) -> None:
        self._sink = sink
        self._labels = labels

    def stalled(self, event: JobStalled) -> None:
        self._sink.increment(_STALLED.name, {"queue": self._labels.of(event.queue)})

    def failed(self, event: JobDeadLettered) -> None:
        ended = {"state": JobState.FAILED.value, "reason": event.reason.value}
        self._sink.increment(_ENDED.name, {"queue": self._labels.of(event.queue), "task": "", **ended})

    def error(self, event: ErrorOccurred) -> None:
        self._sink.increment(
            _ERRORS.name, {"queue": "" if event.queue is None else self._labels.of(event.queue)}
        )
