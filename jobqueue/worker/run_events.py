"""Turns the end of a run into the event that listeners receive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobqueue.emitter import Emitter
from jobqueue.events import (
    Event,
    JobCancelled,
    JobCompleted,
    JobDeadLettered,
    JobFailed,
    JobFailing,
    JobProcessing,
    JobProgress,
    JobRequeued,
    JobStalled,
)
from jobqueue.model.outcomes import EXPIRED_ERROR, decode_error
from jobqueue.model.states import Action
from jobqueue.runtime.clock import Clock
from jobqueue.storage.values import SettleStatus
from jobqueue.worker.run import Run

__all__ = ["Announcer"]


class Announcer:
    """Emits the events of one worker's runs."""

    def __init__(self, emitter: Emitter, clock: Clock, queue: str, worker_id: str) -> None:
        self._emitter = emitter
        self._clock = clock
        self._queue = queue
        self._worker_id = worker_id

    @property
    def hears_starts(self) -> bool:
        """Whether `JobProcessing` has a listener."""
        return JobProcessing in self._emitter.heard

    @property
    def hears_results(self) -> bool:
        """Whether `JobCompleted` has a listener."""
        return JobCompleted in self._emitter.heard

    def started(self, run: Run) -> None:
        """Emit the start of a run."""
        job = run.claimed
        # 0: a store that does not say when a job was due.
        wait = max(0.0, self._clock.time() - job.due / 1000) if job.due else None
        self._emitter.emit(JobProcessing(job.id, self._queue, job.attempts, job.task, self._worker_id, wait))

    def progressed(self, run: Run, value: Any) -> None:
        """Emit the progress that a handler reported."""
        job = run.claimed
        self._emitter.emit(JobProgress(job.id, self._queue, value, job.attempts, job.task, self._worker_id))

    def lost(self, run: Run) -> None:
        """Emit the loss of a run's lease."""
        self._emitter.emit(JobStalled(run.id, self._queue, self._worker_id, task=run.claimed.task))

    def expired(self, ids: Sequence[str]) -> None:
        """Emit the failures of jobs that had not started in time."""
        error, reason = decode_error(EXPIRED_ERROR)
        for id in ids:
            self._emitter.emit(JobFailed(id, self._queue, error, 0, reason))
            self._emitter.emit(JobDeadLettered(id, self._queue, error, 0, reason))

    def settled(self, run: Run, status: SettleStatus) -> None:
        """Emit the outcome of a run, once the store has answered its settlement."""
        if status is SettleStatus.LOST:
            self.lost(run)
        else:
            cancelled = status is SettleStatus.CANCELLED
            event = self._event(run, Action.CANCEL if cancelled else run.settlement.action)
            if type(event) in self._emitter.heard:
                self._emitter.emit(event)
            if isinstance(event, JobFailed) and JobDeadLettered in self._emitter.heard:
                error, attempts, reason = event.error, event.attempts, event.reason
                task, worker = event.task, self._worker_id
                letter = JobDeadLettered(run.id, self._queue, error, attempts, reason, task, worker)
                self._emitter.emit(letter)
        if run.extras.error is not None:
            run.own_extras().error = None  # its traceback holds the run, and the variables of the handler

    def _event(self, run: Run, action: Action) -> Event:
        id, queue, attempts = run.id, self._queue, run.claimed.attempts
        seconds = self._clock.monotonic() - run.started_at
        task, worker = run.claimed.task, self._worker_id
        match action:
            case Action.COMPLETE:
                return JobCompleted(id, queue, run.result, attempts, seconds, task, worker)
            case Action.FAIL:
                error, reason = decode_error(run.settlement.data)
                return JobFailed(id, queue, error, attempts, reason, seconds, run.extras.error, task, worker)
            case Action.RETRY:
                error, _ = decode_error(run.settlement.data)
                delay = run.settlement.delay / 1000
                return JobFailing(id, queue, error, attempts, delay, seconds, run.extras.error, task, worker)
            case Action.CANCEL:
                return JobCancelled(id, queue, attempts, seconds, task, worker)
            case _:  # given back
                return JobRequeued(id, queue, attempts, seconds, task, worker)
