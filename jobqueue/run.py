"""A run: one claimed job in this process, and the `Job` through which its handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Generic, Protocol

from jobqueue.generics import P
from jobqueue.job import AbortedReason, Settlement
from jobqueue.options import instant
from jobqueue.storage.base import Claimed
from jobqueue.timers import Lane

__all__ = ["Job", "Run", "Setting"]


class Setting(Protocol):
    """What `Job` needs from its queue."""

    @property
    def queue(self) -> str:
        """Name of the queue."""
        ...

    @property
    def worker_id(self) -> str:
        """Name of the worker."""
        ...

    def report(self, job: Job[Any], value: Any, /) -> Awaitable[None]:
        """Store the progress that a handler reports."""
        ...


class Run:
    """A job that runs in this process, with its lease."""

    # Defaults stand in the class, not in __init__: most runs end without ever changing them.
    aborted: AbortedReason | None = None
    abandoned = False
    """True if the job was settled without waiting for the run's end, which is then ignored."""
    job: Job[Any] | None = None
    """``None`` until the payload has been read."""
    task: asyncio.Task[None] | None = None
    thread: asyncio.Future[Any] | None = None
    result: Any = None
    error: BaseException | None = None
    """The exception of a failed attempt, until its event has been emitted."""
    settlement: Settlement
    """The write to hand in; set when the run has ended."""
    due = 0.0
    lane: Lane | None = None
    renew_until: float | None = None
    """Monotonic instant after which the lease is no longer renewed; ``None``: never."""

    def __init__(self, claimed: Claimed, now: float) -> None:
        self.claimed = claimed
        self.started_at = self.confirmed_at = now
        """``confirmed_at``: start of the last step, by the monotonic clock, that held the lease."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.claimed.id

    @property
    def fence(self) -> int:
        """The claim's fence: no other run has it."""
        return self.claimed.fence

    @property
    def over(self) -> bool:
        """Whether nothing runs any more."""
        return self.task is not None and self.task.done()

    def expire(self) -> None:
        """Abort because `job_timeout` has passed."""
        self.abort(AbortedReason.TIMEOUT)

    def abort(self, reason: AbortedReason) -> None:
        """Ask the run to end; the first reason stands."""
        if self.aborted is not None:
            return
        self.aborted = reason
        # Before its first step a task has no job, and cancelled then it would never see why: it
        # looks at `aborted` itself.
        if self.job is None or self.task is None:
            return
        self.job.tell_aborted()
        # A thread cannot be cancelled: at a shutdown it gets the time to read `job.aborted`.
        if self.thread is None or reason is not AbortedReason.SHUTDOWN:
            self.task.cancel()


class Job(Generic[P]):
    """One job in its handler: id, payload, attempt, progress."""

    __slots__ = ("_aborted", "_run", "_setting", "payload")

    def __init__(self, run: Run, payload: P, setting: Setting) -> None:
        self.payload = payload
        self._run = run
        self._setting = setting
        self._aborted: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id!r} of {self.queue}, attempt {self.attempts} of {self.max_attempts}>"

    @property
    def id(self) -> str:
        """The job's id, as enqueued."""
        return self._run.claimed.id

    @property
    def queue(self) -> str:
        """Name of its queue."""
        return self._setting.queue

    @property
    def worker_id(self) -> str:
        """Name of the worker that runs it."""
        return self._setting.worker_id

    @property
    def attempts(self) -> int:
        """Number of this attempt, from 1. Runs that were given back are not counted."""
        return self._run.claimed.attempts

    @property
    def max_attempts(self) -> int:
        """Number of attempts allowed, unless the handler raises `Retry`."""
        return self._run.claimed.max_attempts

    @property
    def fence(self) -> int:
        """A number that grows with every claim: pass it to your own systems, let them refuse smaller ones."""
        return self._run.claimed.fence

    @property
    def created_at(self) -> datetime:
        """Instant at which the job was enqueued."""
        return instant(self._run.claimed.created_at)

    @property
    def aborted(self) -> asyncio.Event:
        """Event, set when the run is to end. An async handler is also cancelled; a thread reads this."""
        if self._aborted is None:
            self._aborted = asyncio.Event()
            if self._run.aborted is not None:
                self._aborted.set()
        return self._aborted

    @property
    def aborted_reason(self) -> AbortedReason | None:
        """The reason for `aborted`, ``None`` while it is not set."""
        return self._run.aborted

    async def progress(self, value: Any) -> None:
        """Store the job's progress, any value that the result serde takes; `get_status` shows it.

        Raises `LeaseLostError` if this run no longer owns the job, `SerializationError`, or
        `StorageError`.
        """
        await self._setting.report(self, value)

    def tell_aborted(self) -> None:
        """Set `aborted`; called by the run."""
        if self._aborted is not None:
            self._aborted.set()
