"""A run: one claimed job in this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jobqueue.model.outcomes import AbortedReason, Settlement
from jobqueue.runtime.timers import Lane
from jobqueue.storage.transactions import OpenTransaction
from jobqueue.storage.values import Claimed, SettleStatus

if TYPE_CHECKING:
    from jobqueue.worker.job import Job

__all__ = ["PLAIN", "Run", "RunExtras"]


class RunExtras:
    """What most runs leave at its default. A run without any shares `PLAIN` with all others."""

    __slots__ = (
        "abandoned", "error", "handler_task", "in_thread", "settled", "thread", "transaction", "uncounted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.abandoned = False
        """True if the job was settled without waiting for the run's end, which is then ignored."""
        self.error: BaseException | None = None
        """The exception of a failed attempt, until its event has been emitted."""
        self.handler_task: asyncio.Task[Any] | None = None
        """The task in which middleware called the handler: the run's, or one that the middleware made and
        awaits."""
        self.thread: asyncio.Future[Any] | None = None
        self.in_thread = False
        """Whether the task awaits the end of its thread, and nothing else."""
        self.transaction: OpenTransaction | None = None
        """The one that the handler has opened, until the run ends."""
        self.settled: SettleStatus | None = None
        """The answer to the settlement if it was written in `transaction`: then it is not handed in."""
        self.uncounted = 0
        """Claims of the job that met no handler; its attempts are without them."""


PLAIN = RunExtras()
"""The defaults. Never changed: `Run.own_extras` is for writing."""


class Run:
    """A job that runs in this process, with its lease."""

    # Slots: to read a default that stands in the class takes ten times as long. One is made for every job, so
    # it sets no more than is read before others have set it.
    __slots__ = (
        "aborted", "claimed", "confirmed_at", "due", "extras", "fence", "job", "lane", "renew_until",
        "result", "settlement", "started_at", "task",
    )  # fmt: skip

    claimed: Claimed
    fence: int
    """The claim's fence: no other run has it."""
    started_at: float
    confirmed_at: float
    """Start of the last step, by the monotonic clock, that held the lease."""
    aborted: AbortedReason | None
    job: Job[Any] | None
    """``None`` until the payload has been read."""
    task: asyncio.Task[None] | None
    result: Any
    """Set when the run has ended, as is `settlement`."""
    settlement: Settlement
    """The write to hand in."""
    due: float
    """Set by `Timers`, with `lane`."""
    lane: Lane | None
    renew_until: float | None
    """Monotonic instant after which the lease is no longer renewed; ``None``: never."""
    extras: RunExtras
    """To read."""

    def __init__(self, claimed: Claimed, started_at: float, confirmed_at: float) -> None:
        self.claimed = claimed
        self.fence = claimed.fence
        self.started_at = started_at
        self.confirmed_at = confirmed_at
        self.aborted = self.job = self.task = self.lane = self.renew_until = None
        self.extras = PLAIN

    def own_extras(self) -> RunExtras:
        """Return the extras to write to."""
        if self.extras is PLAIN:
            self.extras = RunExtras()
        return self.extras

    @property
    def id(self) -> str:
        """The job's id."""
        return self.claimed.id

    @property
    def over(self) -> bool:
        """Whether nothing runs any more."""
        return self.task is not None and self.task.done()

    def awaits(self, task: asyncio.Task[Any]) -> bool:
        """Return whether the run can only end after a task of its own."""
        return task is self.task or task is self.extras.handler_task

    def take_transaction(self) -> OpenTransaction:
        """Return the open transaction, which is the caller's from now on."""
        opened = self.extras.transaction
        assert opened is not None
        self.own_extras().transaction = None
        return opened

    def leave_out(self, uncounted: int) -> None:
        """Leave claims that met no handler out of the attempts."""
        if uncounted:
            self.own_extras().uncounted = uncounted
            self.claimed = self.claimed._replace(attempts=self.claimed.attempts - uncounted)

    def expire(self) -> None:
        """Abort because `job_timeout` has passed."""
        self.abort(AbortedReason.TIMEOUT)

    def abort(self, reason: AbortedReason) -> None:
        """Ask the run to end; only the first reason counts."""
        if self.aborted is not None:
            return
        self.aborted = reason
        # Before its first step a task has no job, and cancelled then it would never see why: it
        # looks at `aborted` itself.
        if self.job is None or self.task is None:
            return
        self.job.tell_aborted()
        # A thread cannot be cancelled: at a shutdown it gets the time to read `job.aborted`.
        if not self.extras.in_thread or reason is not AbortedReason.SHUTDOWN:
            self.task.cancel()
