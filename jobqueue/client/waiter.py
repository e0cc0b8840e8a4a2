"""One call that waits for a job to end.

It waits for one incarnation (``seq``) of its id and accepts the outcome of no other. Replies and records name
the incarnation that they are about. A reply may even come before the answer of the insert that registered its
waiter; it is kept until the incarnation is known.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jobqueue.errors import (
    JobNotFoundError,
    WaitTimeoutError,
)
from jobqueue.model.states import ENDED, JobState
from jobqueue.runtime.timers import Lane
from jobqueue.storage.values import Record, Reply

__all__ = ["TimeIsUpError", "Waiter"]


class Waiter:
    """One call that waits for one job."""

    # Slots: to read a default that stands in the class takes ten times as long, and a call reads six. One
    # is made for every call, so it sets no more than is read before others have set it.
    __slots__ = (
        "_heard", "cancels", "due", "future", "held", "id", "lane", "late", "newer", "older", "seq", "task",
    )  # fmt: skip

    id: str
    future: asyncio.Future[Reply]
    seq: int
    """The incarnation of the job, once it is known, else 0. It never changes then."""
    due: float
    """Set by `Timers`, with `lane`."""
    lane: Lane | None
    older: Waiter | None
    """The previous waiter for the same id (a linked list, usually of one); set by `Waiters`."""
    newer: Waiter | None
    task: asyncio.Task[Any] | None
    """The task that makes the call, if the store may be silent; set by `Waiters`."""
    cancels: int
    """Cancellations of the task before the call; set with it."""
    held: bool
    """True while the call awaits something else than the outcome, even if the incarnation is known."""
    late: bool
    """True if the timeout passed while nobody looked at the future, so that the task was cancelled."""
    _heard: dict[int, Reply] | None
    """Replies by incarnation: those that came before it was known, and those without the outcome."""

    def __init__(self, id: str, future: asyncio.Future[Reply]) -> None:
        self.id = id
        self.future = future
        self.seq = 0
        self.older = self.newer = self.task = self._heard = None
        self.held = self.late = False

    def bind(self, seq: int) -> bool:
        """Set the incarnation to wait for, once the store has named it; returns as `hear` does."""
        self.seq = seq
        if self._heard is None:
            return False
        heard = [self.hear(reply) for reply in self._heard.values()]  # in whatever order they came
        return any(heard)

    def hear(self, reply: Reply) -> bool:
        """Receive a reply; return whether the store has to be read for the outcome."""
        if self.seq and reply.seq != self.seq:
            return reply.seq > self.seq  # another job has the id: this one has ended unheard
        if self.seq and (reply.data is not None or reply.state is JobState.CANCELLED):
            self.end(reply)
            return False
        self._heard = self._heard or {}
        self._heard[reply.seq] = reply
        return bool(self.seq)

    def read(self, queue: str, record: Record | None) -> None:
        """Receive the job's record, read after the incarnation was known (or to learn it)."""
        if record is None or record.seq != (self.seq or record.seq):
            self._vanish()
        elif record.state in ENDED:
            data = record.result if record.state is JobState.COMPLETED else record.error
            self.end(Reply(queue, record.id, record.seq, record.state, data, record.attempts))

    def _vanish(self) -> None:
        """End the call: the store has the job no longer, or never had it."""
        told = None if self._heard is None else self._heard.get(self.seq)
        if told is not None:
            self.end(told)
        elif self.seq:
            self.fail(
                JobNotFoundError(
                    f"job {self.id!r} is gone, and its outcome is unknown: its record has expired, "
                    "another job has its id now, or the store lost its last writes"
                )
            )
        else:
            self.fail(JobNotFoundError(f"no job {self.id!r}: it never was, or its record has expired"))

    def end(self, outcome: Reply) -> None:
        """Answer the call."""
        if not self.future.done():
            self.future.set_result(outcome)

    def expire(self) -> None:
        """End the call because its timeout has passed."""
        self.fail(TimeIsUpError())
        if self.task is not None and (self.held or not self.seq):
            # It awaits an answer, and nobody looks at the future yet. This is what
            # `asyncio.timeout` does, at a tenth of its cost for the calls that are answered.
            self.late = True
            self.task.cancel()

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Note the task that makes the call: it is cancelled if the timeout passes before any answer."""
        self.task = task
        self.cancels = task.cancelling()

    def check_late(self, message: str) -> None:
        """If only our own timeout cancelled the task, raise `WaitTimeoutError` instead."""
        if self.late and self.task is not None and self.task.cancelling() - 1 <= self.cancels:
            raise WaitTimeoutError(message) from None

    def leave(self) -> None:
        """Undo our cancellation; the call reports the timeout itself."""
        if self.task is not None:
            self.task.uncancel()

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # seen: its caller may be elsewhere, and asyncio would complain


class TimeIsUpError(Exception):
    """Ends the future of a waiter at its timeout; callers catch it, read once more, and never raise it."""
