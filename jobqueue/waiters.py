"""The calls of this process that wait for a job to end.

Replies are pushed, and losing all of them costs only time. A waiter is registered in the
store within the same step that read the job as live, and the store is read again on every
reconnection, every `POLL` seconds, and when the waiter's time is up.

A call waits for one incarnation (``seq``) of its id and accepts the outcome of no other. Replies and
records name the incarnation that they are about. A reply may even come before the answer of the insert
that registered its waiter; it is kept until the incarnation is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from jobqueue.errors import (
    JobNotFoundError,
    JobQueueError,
    StorageUnavailableError,
    WaitTimeoutError,
    own_copy,
)
from jobqueue.explain import unfinished
from jobqueue.job import ENDED, JobState
from jobqueue.runtime import all_end, apart
from jobqueue.storage.base import Record, Reply, Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.timers import Lane, Timers

__all__ = ["POLL", "TimeIsUpError", "Waiter", "Waiters"]

T = TypeVar("T")

POLL = 5.0
"""Seconds between two reads of a waited-for job: the longest delay that a lost reply can cause."""
LAST_LOOK = 1.0
"""Seconds that the store gets to answer the last read, after a waiter's timeout."""
_CHUNK = 500
_current_task = cast("Callable[[], asyncio.Task[Any]]", asyncio.current_task)
"""The running task; called from coroutines only, so there always is one."""


class Waiter:
    """One call that waits for one job."""

    # Defaults stand in the class: most waiters never change them.
    seq = 0
    """The incarnation of the job, once it is known. It never changes then."""
    due = 0.0
    lane: Lane | None = None
    older: Waiter | None = None
    """The previous waiter for the same id (a linked list, usually of one); set by `Waiters`."""
    newer: Waiter | None = None
    task: asyncio.Task[Any] | None = None
    """The task that makes the call, if the store may be silent; set by `Waiters`."""
    cancels = 0
    """Cancellations of the task before the call; set by `Waiters`."""
    late = False
    """True if the timeout passed before the store had answered at all, so that the task was cancelled."""
    _early: dict[int, Reply] | None = None
    """Replies that came before the incarnation was known, by incarnation."""
    _told: Reply | None = None
    """A reply that says that the job ended, without the result or error."""

    def __init__(self, id: str, future: asyncio.Future[Reply]) -> None:
        self.id = id
        self.future = future

    def bind(self, seq: int) -> bool:
        """Set the incarnation to wait for, once the store has named it; returns as `hear` does."""
        self.seq = seq
        if self._early is None:
            return False
        heard = [self.hear(reply) for reply in self._early.values()]  # in whatever order they came
        return any(heard)

    def hear(self, reply: Reply) -> bool:
        """Receive a reply; return whether the store has to be read for the outcome."""
        if not self.seq:
            self._early = self._early or {}
            self._early[reply.seq] = reply
            return False
        if reply.seq != self.seq:
            return reply.seq > self.seq  # another job has the id: this one has ended unheard
        if reply.data is not None or reply.state is JobState.CANCELLED:
            self.end(reply)
            return False
        self._told = reply
        return True

    def read(self, queue: str, record: Record | None) -> None:
        """Receive the job's record, read after the incarnation was known (or to learn it)."""
        if record is None or record.seq != (self.seq or record.seq):
            self._vanish()
        elif record.state in ENDED:
            data = record.result if record.state is JobState.COMPLETED else record.error
            self.end(Reply(queue, record.id, record.seq, record.state, data, record.attempts))

    def _vanish(self) -> None:
        """End the call: the store has the job no longer, or never had it."""
        if self._told is not None:
            self.end(self._told)
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
        self._told: set[str] = set()
        """Ids to read because of a reply: before all others, as the outcome may soon expire."""
        self._missed: set[str] = set()
        """Ids to read because their reply may have been missed."""
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
            if waiter.older is None and waiter.seq == reply.seq and reply.data is not None:
                # The case of nearly all replies; `hear` would do the same.
                if not waiter.future.done():
                    waiter.future.set_result(reply)
                continue
            while waiter is not None:
                if waiter.hear(reply):
                    self.fetch(waiter)
                waiter = waiter.older

    def cancel(self, queue: str, id: str, fence: int) -> None:  # noqa: ARG002 - the fence says all
        """Pass a cancel request on to the run."""
        if queue == self._queue:
            self._on_cancel(fence)

    def resync(self) -> None:
        """Read the jobs of all waiters again."""
        self._missed.update(self._waiting)
        self._stale.set()

    # -- waiting ----------------------------------------------------------------------------------

    async def subscribe(self) -> None:
        """Subscribe to replies, once, before the first waiter is registered in the store."""
        while not self.subscribed:
            if self._subscribing is None or self._subscribing.done():
                # A task of its own: several callers want it, and any one of them may be cancelled.
                self._subscribing = apart(self._subscribe(), "subscribe")
            subscribing = self._subscribing
            await asyncio.wait([subscribing])
            if not subscribing.cancelled():
                subscribing.result()

    async def _subscribe(self) -> None:
        await self._storage.subscribe(self._queue, self.address, self)
        self.subscribed = True

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
            waiter.older, standing.newer = standing, waiter
        self._waiting[id] = waiter
        self._timers.start(waiter, timeout)
        if self._closed is not None:
            waiter.fail(own_copy(self._closed))
        return waiter

    def fetch(self, waiter: Waiter) -> None:
        """Schedule a read: a reply said that the job ended and did not carry the outcome."""
        self._told.add(waiter.id)
        self._stale.set()

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter."""
        self._timers.stop(waiter)
        if waiter.late:
            waiter.leave()
        older, newer = waiter.older, waiter.newer
        if older is not None:
            older.newer = newer
        if newer is not None:
            newer.older = older
        elif older is not None:
            self._waiting[waiter.id] = older
        else:
            del self._waiting[waiter.id]

    async def last_look(self, waiter: Waiter) -> Reply:
        """Read the store once more for a waiter whose timeout has passed. Raises `WaitTimeoutError`."""
        waiter.future = self._future()  # a reply that comes meanwhile counts, too
        cause: JobQueueError | None = None
        known = ""
        try:
            (record,) = await self._ask(self._storage.get(self._queue, [waiter.id]))
            waiter.read(self._queue, record)
            if record is not None and not waiter.future.done():
                known = unfinished(record, self._queue, attended=await self._is_attended(record))
        except JobQueueError as error:
            known, cause = f"the store cannot be asked: {error}", error
        if waiter.future.done():
            return waiter.future.result()
        raise WaitTimeoutError(f"job {waiter.id!r} has no known outcome in time: {known}") from cause

    async def _is_attended(self, record: Record) -> bool:
        """Return whether a worker of the queue was seen lately; True if that is not known."""
        if record.state is JobState.PROCESSING:
            return True
        try:
            return bool(await self._ask(self._storage.workers(self._queue)))
        except JobQueueError:
            return True

    async def _ask(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call of the store for `LAST_LOOK` seconds. Raises `StorageUnavailableError`."""
        asked = asyncio.create_task(call, name="jobqueue-last-look")
        try:
            if await all_end(self._storage.clock, [asked], LAST_LOOK) and not asked.cancelled():
                return asked.result()
        finally:
            asked.cancel()
        raise StorageUnavailableError("it is silent")

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
            waiter = waiter.older
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
            while self._told or self._missed:
                if ids := self._some_ids():
                    await self._read(ids)

    def _some_ids(self) -> list[str]:
        ids: list[str] = []
        for wanted in (self._told, self._missed):
            while wanted and len(ids) < _CHUNK:
                ids.append(wanted.pop())
        return [id for id in ids if id in self._waiting]

    async def _read(self, ids: list[str]) -> None:
        # Chosen before the call: so no record is older than the incarnation that a waiter knows.
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
