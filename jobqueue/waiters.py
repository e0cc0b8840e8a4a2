"""The calls of this process that wait for a job to end.

Replies are pushed, and losing all of them costs only time. A waiter is registered in the
store within the same step that read the job as live, and the store is read again on every
reconnection, every `POLL` seconds, and when the waiter's time is up.

A reply names the incarnation (``seq``) of its job, so the outcome of an old job is never taken for that
of a new one with the same id. A reply may even come before the answer of the insert that registered its
waiter; it is kept until the incarnation is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from jobqueue.errors import JobQueueError, WaitTimeoutError, own_copy
from jobqueue.job import ENDED, JobState
from jobqueue.runtime import all_end
from jobqueue.storage.base import Record, Reply, Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.timers import Lane, Timers

__all__ = ["POLL", "TimeIsUpError", "Waiter", "Waiters"]

POLL = 5.0
"""Seconds between two reads of a waited-for job: the longest delay that a lost reply can cause."""
LAST_LOOK = 1.0
"""Seconds that the store gets to answer the last read, after a waiter's timeout."""
_CHUNK = 500
_current_task = cast("Callable[[], asyncio.Task[Any]]", asyncio.current_task)
"""The running task; called from coroutines only, so there always is one."""


class Waiter:
    """One call that waits for one job. The outcome is ``None`` if the job's record is gone."""

    # Defaults stand in the class: most waiters never change them.
    seq = 0
    """The incarnation of the job, once it is known."""
    due = 0.0
    lane: Lane | None = None
    other: Waiter | None = None
    """The previous waiter for the same job (a linked list, usually of one)."""
    task: asyncio.Task[Any] | None = None
    """The task that makes the call, if the store may be silent; set by `Waiters`."""
    cancels = 0
    """Cancellations of the task before the call; set by `Waiters`."""
    late = False
    """True if the timeout passed before the store had answered at all, so that the task was cancelled."""
    _early: Reply | None = None

    def __init__(self, id: str, future: asyncio.Future[Reply | None]) -> None:
        self.id = id
        self.future = future

    def bind(self, seq: int) -> bool:
        """Set the incarnation to wait for, once the store has named it; returns as `hear` does."""
        self.seq = seq
        return self._early is not None and self.hear(self._early)

    def hear(self, reply: Reply) -> bool:
        """Receive a reply; return whether the outcome still has to be fetched."""
        if not self.seq:
            if self._early is None or self._early.seq < reply.seq:
                self._early = reply
        elif reply.seq == self.seq:
            if reply.state is JobState.COMPLETED and reply.data is None:
                return True
            self.end(reply)
        return False

    def read(self, queue: str, record: Record | None) -> None:
        """Receive the job's record as read from the store."""
        if record is None:
            self.end(None)
        elif record.seq < self.seq:
            pass  # read before this incarnation was created
        elif record.state in ENDED:
            data = record.result if record.state is JobState.COMPLETED else record.error
            self.end(Reply(queue, record.id, record.seq, record.state, data, record.attempts))
        else:
            # Live. A larger seq means that the job ended, its outcome is gone, and the id was used
            # again: the new job is waited for instead.
            self.seq = record.seq

    def end(self, outcome: Reply | None) -> None:
        """Answer the call."""
        if not self.future.done():
            self.future.set_result(outcome)

    def expire(self) -> None:
        """End the call because its timeout has passed."""
        self.fail(TimeIsUpError())
        if self.task is not None and not self.seq:
            # It awaits the store's answer, and nobody looks at the future yet. This is what
            # `asyncio.timeout` does, at a tenth of its cost for the calls that are answered.
            self.late = True
            self.task.cancel()

    def check_late(self, meaning: str) -> None:
        """If only our own timeout cancelled the task, raise `WaitTimeoutError` instead."""
        if self.late and self.task is not None and self.task.cancelling() - 1 <= self.cancels:
            raise WaitTimeoutError(f"the store has not answered in time: {meaning}") from None

    def leave(self) -> None:
        """Undo our cancellation; the call reports the timeout itself."""
        if self.task is not None:
            self.task.uncancel()

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # seen: its caller may be elsewhere, and asyncio would complain


class Waiters:
    """All waiters of one queue object: the sink of its address.

    ``on_cancel(fence)`` gets cancel requests for runs; ``report(error)`` a poll that failed.
    """

    def __init__(
        self,
        storage: Storage,
        queue: str,
        address: str,
        timers: Timers,
        on_cancel: Callable[[int], None],
        report: Callable[[BaseException], None],
    ) -> None:
        self.address = address
        self._storage = storage
        self._queue = queue
        self._timers = timers
        self._on_cancel = on_cancel
        self._report = report
        self._waiting: dict[str, Waiter] = {}
        self._future = asyncio.get_running_loop().create_future
        # To ask for the running task takes 0.2 µs on Python 3.11, a fiftieth of a call on this one store,
        # whose calls never await anything.
        self._may_be_silent = type(storage) is not MemoryStorage
        self._stale = asyncio.Event()
        self._fetch: set[str] = set()
        self._subscribing: asyncio.Task[None] | None = None
        self._closed: BaseException | None = None
        self.subscribed = False

    # -- the sink ---------------------------------------------------------------------------------

    def deliver(self, replies: Sequence[Reply]) -> None:
        """Hand replies to their waiters."""
        waiting = self._waiting
        for reply in replies:
            waiter = waiting.get(reply.id)
            if waiter is None or reply.queue != self._queue:
                continue
            if waiter.other is None and waiter.seq == reply.seq and reply.data is not None:
                # The case of nearly all replies; `hear` would do the same.
                if not waiter.future.done():
                    waiter.future.set_result(reply)
                continue
            while waiter is not None:
                if waiter.hear(reply):
                    self._fetch_soon(reply.id)
                waiter = waiter.other

    def cancel(self, queue: str, id: str, fence: int) -> None:  # noqa: ARG002 - the fence says all
        """Pass a cancel request on to the run."""
        if queue == self._queue:
            self._on_cancel(fence)

    def resync(self) -> None:
        """Read the jobs of all waiters again."""
        self._fetch.update(self._waiting)
        self._stale.set()

    def _fetch_soon(self, id: str) -> None:
        self._fetch.add(id)
        self._stale.set()

    # -- waiting ----------------------------------------------------------------------------------

    async def subscribe(self) -> None:
        """Subscribe to replies, once, before the first waiter is registered in the store."""
        if self.subscribed:
            return
        if self._subscribing is None:
            # A task of its own: several callers want it, and any one of them may be cancelled.
            self._subscribing = asyncio.create_task(self._subscribe())
        await asyncio.shield(self._subscribing)

    async def _subscribe(self) -> None:
        try:
            await self._storage.subscribe(self._queue, self.address, self)
            self.subscribed = True
        finally:
            self._subscribing = None

    async def unsubscribe(self) -> None:
        """End the subscription."""
        if self._subscribing is not None:
            await asyncio.wait([self._subscribing])
        if self.subscribed:
            await self._storage.unsubscribe(self._queue, self.address, self)

    def add(self, id: str, timeout: float) -> Waiter:
        """Add a waiter for the running task. Every `add` needs a `remove`.

        The task is cancelled if the timeout passes before the store has answered: see `Waiter.check_late`.
        """
        waiter = Waiter(id, self._future())
        if self._may_be_silent:
            waiter.task = task = _current_task()
            waiter.cancels = task.cancelling()
        standing = self._waiting.get(id)
        if standing is not None:
            waiter.other = standing
        self._waiting[id] = waiter
        self._timers.start(waiter, timeout)
        if self._closed is not None:
            waiter.fail(own_copy(self._closed))
        return waiter

    def fetch(self, waiter: Waiter) -> None:
        """Schedule a read: a reply said the job ended but was too large to carry the result."""
        self._fetch_soon(waiter.id)

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter."""
        self._timers.stop(waiter)
        if waiter.late:
            waiter.leave()
        id = waiter.id
        standing = self._waiting[id]
        if standing is not waiter:
            while standing.other is not waiter:
                assert standing.other is not None
                standing = standing.other
            standing.other = waiter.other
        elif waiter.other is None:
            del self._waiting[id]
        else:
            self._waiting[id] = waiter.other

    async def last_look(self, waiter: Waiter) -> Reply | None:
        """Read the store once more for a waiter whose timeout has passed. Raises `WaitTimeoutError`."""
        look = asyncio.create_task(self._look(waiter.id), name="jobqueue-last-look")
        try:
            answered = await all_end(self._storage.clock, [look], LAST_LOOK)
            record = look.result() if answered else None
        except JobQueueError as error:
            raise WaitTimeoutError(
                f"job {waiter.id!r} has no known outcome in time, and the store cannot be asked: {error}"
            ) from error
        finally:
            look.cancel()
        if not answered:
            raise WaitTimeoutError(f"job {waiter.id!r} has no known outcome in time, and the store is silent")
        last = Waiter(waiter.id, self._future())
        last.read(self._queue, record)
        if last.future.done():
            return last.future.result()
        state = "missing" if record is None else record.state.value
        raise WaitTimeoutError(f"job {waiter.id!r} is still {state}; it goes on: wait again, or cancel it")

    async def _look(self, id: str) -> Record | None:
        return (await self._storage.get(self._queue, [id]))[0]

    def fail_all(self, error: BaseException) -> None:
        """End all waiting calls, now and later, with an error: nothing waits for a stopped queue."""
        self._closed = error
        for id in self._waiting:
            for waiter in self._standing(id):
                waiter.fail(own_copy(error))

    def _standing(self, id: str) -> list[Waiter]:
        standing: list[Waiter] = []
        waiter = self._waiting.get(id)
        while waiter is not None:
            standing.append(waiter)
            waiter = waiter.other
        return standing

    # -- reading again -------------------------------------------------------------------------------

    async def poll(self) -> None:
        """Read the scheduled jobs as they come, and all every `POLL` seconds, until cancelled."""
        clock = self._storage.clock
        while True:
            timer = clock.call_later(POLL * clock.uniform(0.8, 1.0), self.resync)
            try:
                await self._stale.wait()
            finally:
                timer.cancel()
            self._stale.clear()
            ids = [id for id in self._fetch if id in self._waiting]
            self._fetch.clear()
            for start in range(0, len(ids), _CHUNK):
                await self._read(ids[start : start + _CHUNK])

    async def _read(self, ids: list[str]) -> None:
        waiters = [[waiter for waiter in self._standing(id) if waiter.seq] for id in ids]
        try:
            records = await self._storage.get(self._queue, ids, reply_to=self.address)
        except JobQueueError as error:
            self._report(error)
            return
        for standing, record in zip(waiters, records, strict=True):
            for waiter in standing:
                waiter.read(self._queue, record)


class TimeIsUpError(Exception):
    """Ends the future of a waiter at its timeout; callers catch it, read once more, and never raise it."""
