"""The calls of this process that wait for a job to end.

Replies are pushed, and losing all of them costs only time. A waiter is registered in the
store within the same step that read the job as live, and the store is read again on every
reconnection, every `REREAD_INTERVAL` seconds, and when the waiter's time is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from jobqueue.client.explain import unfinished
from jobqueue.client.waiter import TimeIsUpError, Waiter
from jobqueue.errors import (
    JobQueueError,
    StorageUnavailableError,
    WaitTimeoutError,
    own_copy,
)
from jobqueue.model.states import JobState
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.runtime.bounded import all_end
from jobqueue.runtime.tasks import apart
from jobqueue.runtime.timers import Timers
from jobqueue.storage.capabilities import AnswersAtOnce
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Record, Reply

__all__ = ["REREAD_INTERVAL", "Waiters"]

T = TypeVar("T")

REREAD_INTERVAL = 5.0
"""Seconds between two reads of a waited-for job: the longest delay that a lost reply can cause."""
_HAIR = 1e-3
"""Seconds that a timer may come early. To wait for less could take for ever: it may round to no time."""
LAST_LOOK = 1.0
"""Seconds that the store gets to answer the last read, after a waiter's timeout."""
_current_task = cast("Callable[[], asyncio.Task[Any]]", asyncio.current_task)
"""The running task; called from coroutines only, so there always is one."""


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
        # To ask for the running task takes 0.2 µs on Python 3.11, a fiftieth of a call on such a store.
        self._may_be_silent = not (isinstance(storage, AnswersAtOnce) and storage.answers_at_once)
        self._stale = asyncio.Event()
        self._told: set[str] = set()
        """Ids to read because of a reply: before all others, as the outcome may soon expire."""
        self._missed: set[str] = set()
        """Ids to read because their reply may have been missed."""
        self._subscribing: asyncio.Task[None] | None = None
        self._closed: BaseException | None = None
        self.subscribed = False

    def __len__(self) -> int:
        """Return how many calls wait. For tests."""
        return sum(len(self._standing(id)) for id in self._waiting)

    # -- the sink ---------------------------------------------------------------------------------

    def deliver(self, replies: Sequence[Reply]) -> None:
        """Hand replies to their waiters."""
        waiting = self._waiting
        for reply in replies:
            queue, id, seq, _, data, _ = reply
            waiter = waiting.get(id)
            if waiter is None or queue != self._queue:
                continue
            if waiter.older is None and waiter.seq == seq and data is not None:
                # The case of nearly all replies; `hear` would do the same.
                if not waiter.future.done():
                    waiter.future.set_result(reply)
                continue
            while waiter is not None:
                if waiter.hear(reply):
                    self.fetch(waiter)
                waiter = waiter.older

    def cancel_requested(self, queue: str, id: str, fence: int) -> None:  # noqa: ARG002 - the fence says all
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
        future = self._future  # called so, as in `Timers.start`
        waiter = Waiter(id, future())
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

    def waiting(self, id: str, timeout: float, late: Callable[[], str]) -> Waiting:
        """Return the context of a waiting call.

        It raises `WaitTimeoutError` with the message ``late()`` if the timeout passes before the call waits
        for nothing but the outcome.
        """
        return Waiting(self, id, timeout, late)

    def bind(self, waiter: Waiter, seq: int) -> None:
        """Set the incarnation that a waiter waits for. The last one counts, where the store named several."""
        future = waiter.future
        if waiter.seq not in {0, seq} and future.done() and future.exception() is None:
            waiter.future = self._future()  # it was about the one before
        if waiter.bind(seq):
            self.fetch(waiter)

    async def reply(self, waiter: Waiter) -> Reply:
        """Wait for the outcome of a waiter's job. Raises `WaitTimeoutError`."""
        try:
            return await waiter.future
        except TimeIsUpError:
            return await self.last_look(waiter)

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
        """Read the scheduled jobs as they come, and all every `REREAD_INTERVAL` seconds, until cancelled."""
        clock = self._storage.clock
        due = clock.monotonic() + REREAD_INTERVAL * clock.uniform(0.8, 1.0)
        while True:
            if not self._told and not self._missed:
                timer = clock.call_later(max(0.0, due - clock.monotonic()), self._stale.set)
                try:
                    await self._stale.wait()
                finally:
                    timer.cancel()
                self._stale.clear()
            # Looked at before each read: where single jobs are read all the time, nothing else would come.
            now = clock.monotonic()
            if due - now < _HAIR:
                self._missed.update(self._waiting)
                due = now + REREAD_INTERVAL * clock.uniform(0.8, 1.0)
            if ids := self._some_ids():
                await self._read(ids)

    def _some_ids(self) -> list[str]:
        ids: list[str] = []
        for wanted in (self._told, self._missed):
            while wanted and len(ids) < MOST_ITEMS:
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


class Waiting:
    """Adds a waiter, and removes it. `Queue.enqueue_and_wait`, the hot path, spells this out."""

    __slots__ = ("_id", "_late", "_timeout", "_waiter", "_waiters")
    _waiter: Waiter

    def __init__(self, waiters: Waiters, id: str, timeout: float, late: Callable[[], str]) -> None:
        self._waiters = waiters
        self._id = id
        self._timeout = timeout
        self._late = late

    def __enter__(self) -> Waiter:
        self._waiter = waiter = self._waiters.add(self._id, self._timeout)
        if waiter.task is None:
            waiter.watch(_current_task())
        return waiter

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                self._waiter.check_late(self._late())
        finally:
            self._waiters.remove(self._waiter)
