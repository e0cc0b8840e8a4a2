"""A run: one claimed job in this process, and the `Job` through which its handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Generic, Protocol

from jobqueue.generics import P
from jobqueue.job import AbortedReason, Settlement
from jobqueue.storage.base import Claimed
from jobqueue.timers import Lane

__all__ = ["Job", "Run", "Setting"]


class Setting(Protocol):
    """Where a run takes place."""

    @property
    def queue(self) -> str:
        """Name of the queue."""
        ...

    @property
    def worker_id(self) -> str:
        """Name of the worker."""
        ...

    def report(self, job: Job[Any], value: Any, /) -> Awaitable[None]:
        """Store what a handler reports as its progress."""
        ...


class Run:
    """A job that runs in this process, with its lease."""

    # Defaults stand in the class, not in __init__: most runs end without ever changing them.
    aborted: AbortedReason | None = None
    abandoned = False
    """Settled without waiting for its end: what it still does is ignored."""
    job: Job[Any] | None = None
    """``None`` until the payload has been read."""
    task: asyncio.Task[None] | None = None
    thread: asyncio.Future[Any] | None = None
    result: Any = None
    settlement: Settlement
    """What is handed in; set when the run has ended."""
    due = 0.0
    lane: Lane | None = None
    renew_until: float | None = None
    """Monotonic instant from which the lease is left to expire; ``None``: never."""

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

    def expire(self) -> None:
        """Abort: `job_timeout` is over."""
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
    """What a handler gets."""

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
        """The id that it was enqueued with."""
        return self._run.claimed.id

    @property
    def queue(self) -> str:
        """Name of its queue."""
        return self._setting.queue

    @property
    def worker_id(self) -> str:
        """Who runs it."""
        return self._setting.worker_id

    @property
    def attempts(self) -> int:
        """Which attempt this is, from 1. Runs that were given back are not counted."""
        return self._run.claimed.attempts

    @property
    def max_attempts(self) -> int:
        """How often it is tried at the most, unless it raises `Retry`."""
        return self._run.claimed.max_attempts

    @property
    def fence(self) -> int:
        """Grows with every claim. Pass it to your own systems, and let them refuse older ones."""
        return self._run.claimed.fence

    @property
    def created_at(self) -> datetime:
        """When it was enqueued."""
        return datetime.fromtimestamp(self._run.claimed.created_at / 1000, UTC)

    @property
    def aborted(self) -> asyncio.Event:
        """Set when the run is to end. An async handler is also cancelled; a thread reads this."""
        if self._aborted is None:
            self._aborted = asyncio.Event()
            if self._run.aborted is not None:
                self._aborted.set()
        return self._aborted

    @property
    def aborted_reason(self) -> AbortedReason | None:
        """Why `aborted` is set."""
        return self._run.aborted

    async def progress(self, value: Any) -> None:
        """Store how far the job is; `get_status` shows it. Any value that the result serde takes.

        Raises `LeaseLostError` if this run no longer owns the job, `SerializationError`, or
        `StorageError`.
        """
        await self._setting.report(self, value)

    def tell_aborted(self) -> None:
        """Set `aborted`; called by the run."""
        if self._aborted is not None:
            self._aborted.set()
