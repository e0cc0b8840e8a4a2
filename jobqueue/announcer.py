"""Turns the end of a run into the event that listeners receive."""

from __future__ import annotations

from typing import Any

from jobqueue.events import (
    Emitter,
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobFailing,
    JobProcessing,
    JobProgress,
    JobRequeued,
    JobStalled,
)
from jobqueue.job import Action, decode_error
from jobqueue.run import Run
from jobqueue.runtime import Clock
from jobqueue.storage.base import SettleStatus

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
        self._emitter.emit(JobProcessing(run.id, self._queue, run.claimed.attempts))

    def progressed(self, run: Run, value: Any) -> None:
        """Emit the progress that a handler reported."""
        self._emitter.emit(JobProgress(run.id, self._queue, value))

    def lost(self, run: Run) -> None:
        """Emit the loss of a run's lease."""
        self._emitter.emit(JobStalled(run.id, self._queue, self._worker_id))

    def settled(self, run: Run, status: SettleStatus) -> None:
        """Emit the outcome of a run, once the store has answered its settlement."""
        if status is SettleStatus.LOST:
            self.lost(run)
        else:
            cancelled = status is SettleStatus.CANCELLED
            event = self._event(run, Action.CANCEL if cancelled else run.settlement.action)
            if type(event) in self._emitter.heard:
                self._emitter.emit(event)
        run.error = None  # its traceback holds the run, and the variables of the handler

    def _event(self, run: Run, action: Action) -> Event:
        id, queue, attempts = run.id, self._queue, run.claimed.attempts
        seconds = self._clock.monotonic() - run.started_at
        match action:
            case Action.COMPLETE:
                return JobCompleted(id, queue, run.result, attempts, seconds)
            case Action.FAIL:
                error, reason = decode_error(run.settlement.data)
                return JobFailed(id, queue, error, attempts, reason, seconds, run.error)
            case Action.RETRY:
                error, _ = decode_error(run.settlement.data)
                return JobFailing(id, queue, error, attempts, run.settlement.delay / 1000, seconds, run.error)
            case Action.CANCEL:
                return JobCancelled(id, queue)
            case _:  # given back
                return JobRequeued(id, queue)
