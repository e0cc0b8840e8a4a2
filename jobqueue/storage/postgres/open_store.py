"""The resources of an open store: connections, subscriptions, calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Sink
from jobqueue.storage.opening import StoreSession
from jobqueue.storage.postgres import migrations
from jobqueue.storage.postgres.listener import Listener
from jobqueue.storage.postgres.pool import Pool
from jobqueue.storage.postgres.pushes import SinkReceiver
from jobqueue.storage.postgres.statements import Statements
from jobqueue.storage.postgres.target import Connection, Target, Timeouts, connect
from jobqueue.storage.postgres.together import Looks
from jobqueue.storage.postgres.turns import SIZES, Turns
from jobqueue.storage.postgres.wakeups import WakeUp
from jobqueue.storage.values import Exchanged

__all__ = ["OpenStore", "Settings"]

T = TypeVar("T")

MIN_VERSION = (14, 0)
_START_FOR = 3.0
_LAST_CALLS = 1.0
"""Seconds that calls under way get when the store is closed."""
_MOST_WAKE_UPS = 1_000

log = get_logger("jobqueue.storage.postgres")


class Settings(NamedTuple):
    """The arguments of a store's constructor."""

    target: Target
    schema: str
    clock: Clock
    timeouts: Timeouts
    pool_size: int
    retry_for: float


class OpenStore(StoreSession):
    """The connections of an open store, in one event loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._clock = settings.clock
        self.pool = Pool(settings.target, settings.timeouts, settings.pool_size, settings.retry_for)
        # Of their own: handlers keep them for as long as they run, and leases must be renewed meanwhile.
        self.transactions = Pool(
            settings.target, settings.timeouts._replace(statement=0.0), settings.pool_size, settings.retry_for
        )
        self.statements = Statements(self.pool, settings.schema, self._now, settings.timeouts.lock)
        self.looks = Looks(self.statements, self.begin)
        self.listener = Listener(
            partial(connect, settings.target, settings.timeouts),
            self.statements.notify,
            self.pool.where,
            settings.retry_for,
        )
        self._turns = Turns()
        self._wake_ups: dict[tuple[str, str], WakeUp] = {}
        self._channels: dict[tuple[str, str], str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cut_off: set[asyncio.Task[Any]] = set()
        """Claims whose callers were cancelled, until their jobs are given back."""

    def _now(self) -> int | None:
        """Return the time of a call; ``None``: the server's clock decides."""
        return None if self._clock is SYSTEM_CLOCK else int(self._clock.time() * 1000)

    async def start(self) -> None:
        """Connect, and refuse a server or a schema that does not fit."""
        patience, self.pool.retry_for = self.pool.retry_for, min(_START_FOR, self.pool.retry_for)
        # Whoever starts wants to hear soon that the address is wrong.
        await self.pool.run(self._check)
        self.pool.retry_for = patience

    async def _check(self, connection: Connection, _repeated: bool) -> None:  # noqa: FBT001
        version = connection.get_server_version()
        if (version.major, version.minor) < MIN_VERSION:
            raise StorageError(f"{self.pool.where} has version {version.major}: PostgreSQL 14 is needed")
        encoding = await connection.fetchval("show server_encoding")
        if encoding != "UTF8":
            raise StorageError(f"{self.pool.where} stores text as {encoding}: create a database with UTF8")
        await migrations.check(connection, self._settings.schema)

    async def close(self) -> None:
        """End all connections."""
        for wake_up in self._wake_ups.values():
            wake_up.hint()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_CALLS)
        for task in self._tasks:
            task.cancel()
        await self.listener.close()
        await self.transactions.close()
        await self.pool.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_CALLS)

    # -- calls --------------------------------------------------------------------------------------

    def begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Make a call that goes on when its caller is cancelled: what it leaves behind must be known."""
        task = asyncio.create_task(call, name="jobqueue-postgres-call")
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()  # seen: nobody may be there to see it
        if error is not None and not isinstance(error, JobQueueError):
            log.error("a call to the database failed", exc_info=error)

    async def call(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call and return its answer."""
        if self._cut_off:
            await self._give_back_first(call)
        return await asyncio.shield(self.begin(call))

    async def _give_back_first(self, call: Coroutine[Any, Any, Any]) -> None:
        """Let claims that were cut off be given back before a later call, which must not overtake them."""
        try:
            await asyncio.wait(self._cut_off)
        except asyncio.CancelledError:
            call.close()
            raise

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        """Settle and claim; if the caller is cancelled, give back the jobs it would have got."""
        step = self.statements.exchange(queue, worker, settlements, limit, lease)
        if self._cut_off:
            await self._give_back_first(step)
        wake_up = self.work(queue)
        mark = wake_up.mark()
        claiming = self.begin(step)
        try:
            answer = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            if limit:
                task = self.run(self._give_back(claiming, queue, worker, lease), "giving jobs back")
                self._cut_off.add(task)
                task.add_done_callback(self._cut_off.discard)
            raise
        if self._turns.due(len(settlements) + len(answer.jobs), SYSTEM_CLOCK.monotonic()):
            self.run(self._take_turns(), "emptying tables")
        if limit > len(answer.jobs) and not answer.more:
            due = answer.next_due  # of a paused queue nothing else is to be looked for
            wake_up.missed(mark, due if answer.paused else self.statements.lines(queue).due(due))
        return answer

    async def _take_turns(self) -> None:
        for table, size in SIZES.items():
            if await self.statements.take_turn(table, size) == "emptied":
                await self.statements.take_turn(table, size)

    async def _give_back(
        self, claiming: asyncio.Task[Exchanged], queue: str, worker: str, lease: int
    ) -> None:
        jobs = (await claiming).jobs
        if jobs:
            releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in jobs]
            await self.statements.exchange(queue, worker, releases, 0, lease)

    def run(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Run a coroutine in the background; a failure is logged."""

        async def guarded() -> None:
            try:
                await work
            except JobQueueError as error:
                log.warning("%s failed: %s", what, error)

        return self.begin(guarded())

    # -- waiting and messages ---------------------------------------------------------------------

    async def channel(self, kind: str, name: str) -> str:
        """Return the channel of messages of a kind about a name, read once."""
        channel = self._channels.get((kind, name))
        if channel is None:
            channel = await self.call(self.statements.channel(kind, name))
            if len(self._channels) >= _MOST_WAKE_UPS:  # a cache, not a registry
                self._channels.clear()
            self._channels[kind, name] = channel
        return channel

    def work(self, queue: str) -> WakeUp:
        """Return the object that wakes the waiters for work in a queue."""
        return self._wake_up("work", queue, partial(self.statements.work_in, queue))

    def lock(self, lock: str) -> WakeUp:
        """Return the object that wakes the waiters for a lock."""

        async def look() -> int | None:
            return 0 if await self.statements.lock_holder(lock) is None else None

        return self._wake_up("lock", lock, look)

    def _wake_up(self, kind: str, name: str, look: Any) -> WakeUp:
        found = self._wake_ups.get((kind, name))
        if found is None:
            found = WakeUp(self.listener, partial(self.channel, kind, name), look, self._clock)
            self._wake_ups[kind, name] = found
        return found

    def hint(self, queue: str) -> None:
        """Wake this store's own waiters for work: a call of it has just made some."""
        wake_up = self._wake_ups.get(("work", queue))
        if wake_up is not None:
            wake_up.hint()

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        channel = await self.channel("address", address)
        await self.listener.listen(channel, self._receiver(queue, sink))

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        channel = self._channels.get(("address", address))
        if channel is not None:
            self.listener.unlisten(channel, self._receiver(queue, sink))

    def _receiver(self, queue: str, sink: Sink) -> SinkReceiver:
        return SinkReceiver(queue, sink, partial(self.statements.outcomes, queue), self.run)
