"""Logs the events of jobs, queues and reapers to the ``jobqueue`` logger; no other module does.

A failed job is logged with its traceback, an attempt that is tried again in one line. Every job is logged at
debug level, and costs nothing at any other. Payloads, results and progress are never logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from jobqueue.emitter import Emitter
from jobqueue.events import (
    ErrorOccurred,
    Event,
    JobCancelled,
    JobCompleted,
    JobDeadLettered,
    JobEnqueued,
    JobFailed,
    JobFailing,
    JobProcessing,
    JobProgress,
    JobRequeued,
    JobStalled,
    LeadershipAcquired,
    LeadershipLost,
    QueueStarted,
    QueueStopped,
)
from jobqueue.model.failures import place
from jobqueue.model.missing_handler import LEFT
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.text import one_line

__all__ = ["EventLog"]

log = get_logger("jobqueue")

_NOTABLE = (
    QueueStarted, QueueStopped, JobFailing, JobFailed, JobRequeued, JobCancelled, JobStalled,
    LeadershipAcquired, LeadershipLost, ErrorOccurred,
)  # fmt: skip
_EVERY_JOB = (JobEnqueued, JobProcessing, JobProgress, JobCompleted)


class EventLog:
    """Logs the events of one emitter."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._jobs: list[Callable[[], None]] = []
        self._listen(_NOTABLE)
        if not emitter.has(JobFailed):  # a reaper tells of those that it has failed by this event alone
            self._listen((JobDeadLettered,))

    def log_jobs(self) -> None:
        """Log every job from now on, if the level is debug; else, do so no more."""
        listening, self._jobs = self._jobs, []  # at once: queues on one emitter may start in two threads
        for remove in listening:
            remove()
        if log.isEnabledFor(logging.DEBUG):
            self._jobs = self._listen(_EVERY_JOB)

    def _listen(self, kinds: Iterable[type[Event]]) -> list[Callable[[], None]]:
        return [self._emitter.on(kind, log_event) for kind in kinds if self._emitter.has(kind)]


def log_event(event: Event) -> None:
    """Write one event."""
    match event:
        case JobEnqueued() | JobProcessing() | JobProgress() | JobCompleted():
            _log_job(event)
        case JobFailing() | JobFailed() | JobDeadLettered():
            _log_failure(event)
        case JobStalled(id, queue, worker_id, stalls=stalls, failed=True):
            log.error(
                "job %r of %s failed (stalled): worker %s lost its lease, the %s. that was lost",
                id, queue, worker_id, stalls, extra={**_fields(event), "reason": "stalled"},
            )  # fmt: skip
        case JobStalled(id, queue, worker_id):
            log.warning("job %r of %s: worker %s lost its lease", id, queue, worker_id, extra=_fields(event))
        case JobRequeued(id, queue) | JobCancelled(id, queue):
            log.info("job %r of %s was %s", id, queue, event.name, extra=_fields(event))
        case QueueStarted(queue, worker_id) | QueueStopped(queue, worker_id):
            log.info("queue %s %s, worker %s", queue, event.name, worker_id, extra=_fields(event))
        case LeadershipAcquired(id, term):
            log.info("reaper %s leads, term %d", id, term, extra={"reaper_id": id, "term": term})
        case LeadershipLost(id, term, why):
            fields = {"reaper_id": id, "term": term, "reason": why}
            log.info("reaper %s no longer leads term %d: %s", id, term, why, extra=fields)
        case ErrorOccurred(error, doing):
            log.error("%s: %s: %s", doing, type(error).__name__, error, extra=_fields(event))
        case _:
            pass


def _log_failure(event: JobFailing | JobFailed | JobDeadLettered) -> None:
    error = f"{event.error.type}: {one_line(event.error.message)}"
    if not isinstance(event, JobFailing):
        log.error(
            "job %r of %s failed (%s) after %d attempts: %s",
            event.id, event.queue, event.reason, event.attempts, error,
            exc_info=event.exception if isinstance(event, JobFailed) else None, extra=_fields(event),
        )  # fmt: skip
    else:
        where = place(event.exception) if event.exception is not None else ""
        log.log(
            # That it was left to others is as it was asked for, and as frequent as such jobs.
            logging.DEBUG if event.error.type == LEFT else logging.WARNING,
            "job %r of %s failed attempt %d, again in %.3g s: %s%s",
            event.id, event.queue, event.attempts, event.delay, error, where and f" ({where})",
            extra=_fields(event),
        )  # fmt: skip


def _log_job(event: JobEnqueued | JobProcessing | JobProgress | JobCompleted) -> None:
    id, queue, fields = event.id, event.queue, _fields(event)
    match event:
        case JobEnqueued():
            log.debug("job %r of %s is enqueued", id, queue, extra=fields)
        case JobProcessing(attempts=attempts):
            log.debug("job %r of %s begins attempt %d", id, queue, attempts, extra=fields)
        case JobProgress():
            log.debug("job %r of %s has made progress", id, queue, extra=fields)
        case JobCompleted(seconds=seconds):
            log.debug("job %r of %s is completed after %.3g s", id, queue, seconds, extra=fields)


_FIELDS = {
    "id": "job_id",
    "queue": "queue",
    "task": "task",
    "attempts": "attempt",
    "worker_id": "worker_id",
    "reason": "reason",
    "seconds": "duration",
    "delay": "delay",
}
"""Attributes of events, and their names in a log record."""


def _fields(event: Event) -> dict[str, Any]:
    found = {name: getattr(event, attribute, None) for attribute, name in _FIELDS.items()}
    return {name: value for name, value in found.items() if value not in {None, ""}}
