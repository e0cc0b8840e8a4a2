"""The thread in which heartbeats beat: one for each event loop and store, with one connection.

However many workers an event loop has on one store, their leases are renewed from the same thread. Each
worker has a task of its own there: a call of one that hangs delays no other, and one that breaks breaks no
other. The thread begins with the first worker and ends, with its connection, after the last.

It also notices when the owner's event loop is blocked, and logs where: `loopwatch`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from jobqueue.errors import JobQueueError
from jobqueue.runtime.bounded import within
from jobqueue.runtime.forks import tell_in_child
from jobqueue.runtime.loopwatch import LoopWatch
from jobqueue.runtime.threads import start_loop
from jobqueue.storage.contract import Storage

__all__ = ["Beating", "HeartbeatThread", "thread_for"]

OPEN_WITHIN = 5.0
"""Longest time, in seconds, of an attempt to connect, and between two. Runs are distrusted all the same."""
BLOCKED = 0.3
"""Part of a lease after which an event loop that does not answer counts as blocked.

A little less than the pause between two looks, so that the second one finds it.
"""


class Beating(Protocol):
    """The heartbeat of one worker. All of it is called from the thread."""

    @property
    def lease(self) -> float:
        """Seconds of a lease."""
        ...

    @property
    def worker_label(self) -> str:
        """The worker and its queue, for the log."""
        ...

    def pause(self) -> float:
        """Return the seconds until the next beat."""
        ...

    async def beat(self, storage: Storage) -> None:
        """Renew the leases that are due, in a bounded time."""

    def distrust(self) -> object:
        """Abort the runs whose lease was not confirmed for too long."""

    def failed(self, error: BaseException) -> None:
        """Report a fault that is tried again."""


class HeartbeatThread:
    """Beats for all members, until the last has left or the owner's event loop has ended.

    `add` and `leave` are called in the owner's event loop, and nowhere else.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._clock = storage.clock
        self._owner = asyncio.get_running_loop()
        self._key = _key(storage)
        self._watch = LoopWatch(self._owner, storage.clock)
        self._members: dict[Beating, asyncio.Future[None]] = {}
        self._tasks: dict[Beating, asyncio.Task[None]] = {}  # of the thread, as what follows
        self._connection: Storage | None = None
        self._last = asyncio.Event()
        self._joined = asyncio.Event()
        """Set when a member joins, which may be in more of a hurry than those before it."""
        self.over: asyncio.Future[None] = self._owner.create_future()
        """Done when the thread has ended and its connection is closed."""
        tell_in_child(self)
        self._loop = start_loop(self._serve, self._ended, "jobqueue-heartbeat")

    # -- from the owner's event loop -------------------------------------------------------------------

    def add(self, member: Beating) -> asyncio.Future[None]:
        """Beat for a worker from now on; the future ends with the error that breaks this."""
        broken = self._members[member] = self._owner.create_future()
        self._call(partial(self._begin, member, broken))
        return broken

    def leave(self, member: Beating) -> asyncio.Future[None]:
        """Beat no more for a worker; the future is done when no call in its name is under way any more."""
        ended = self._members.pop(member)
        self._call(partial(self._dismiss, member, ended))
        if self._members:
            return ended
        self._retire()
        self._call(self._last.set)
        return self.over

    def forked(self) -> None:
        """Accept no more members in a forked child, which has no such thread."""
        self._retire()

    def _retire(self) -> None:
        if _threads.get(self._key) is self:
            del _threads[self._key]

    def _call(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the thread has broken: `_end` tells
            self._loop.call_soon_threadsafe(function)

    def _end(self, failure: BaseException | None) -> None:
        self._retire()
        for future in self._members.values():
            _settle(future, failure)
        _settle(self.over)

    # -- in the thread ---------------------------------------------------------------------------------

    def _ended(self, failure: BaseException | None) -> None:
        if self._owner.is_closed():
            self._retire()
        self._tell(partial(self._end, failure))

    async def _serve(self) -> None:
        storage = self._storage.clone()
        connecting = asyncio.create_task(self._connect(storage))
        connecting.add_done_callback(lambda _: None if self._connection is not None else self._last.set())
        try:
            await self._last.wait()
        finally:
            self._last.set()
            tasks = [connecting, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._connection is not None:
                await storage.close()
        if not connecting.cancelled():
            connecting.result()  # raises what broke it

    async def _connect(self, storage: Storage) -> None:
        while True:
            try:
                await within(self._clock, storage.open(), OPEN_WITHIN)
            except (JobQueueError, TimeoutError) as error:
                members = tuple(self._tasks)
                for member in members:
                    member.failed(error)
                self._joined.clear()
                pause = min([OPEN_WITHIN, *(member.pause() for member in members)])
                with suppress(TimeoutError):
                    await within(self._clock, self._joined.wait(), pause)
            else:
                self._connection = storage
                return

    def _begin(self, member: Beating, broken: asyncio.Future[None]) -> None:
        if self._last.is_set():  # the thread breaks off: `_end` tells
            return

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[member]
            if not task.cancelled() and task.exception() is not None:
                self._tell(partial(_settle, broken, task.exception()))

        self._joined.set()
        task = self._tasks[member] = asyncio.create_task(self._beat_forever(member))
        task.add_done_callback(ended)

    def _dismiss(self, member: Beating, left: asyncio.Future[None]) -> None:
        task = self._tasks.get(member)
        if task is None:
            self._tell(partial(_settle, left))
        else:
            task.cancel()
            task.add_done_callback(lambda _: self._tell(partial(_settle, left)))

    async def _beat_forever(self, member: Beating) -> None:
        while True:
            await self._clock.sleep(member.pause())
            if self._owner.is_closed():  # the runs have ended with it
                self._last.set()
                return
            await self._watch.look(member.lease * BLOCKED, member.worker_label)
            if self._connection is None:
                member.distrust()
            else:
                await member.beat(self._connection)

    def _tell(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the owner's loop has closed: it is gone, and so are its runs
            self._owner.call_soon_threadsafe(function)


_threads: dict[tuple[int, int], HeartbeatThread] = {}
"""The threads that accept members, by store and event loop. They keep both alive, so that no id is reused."""


def thread_for(storage: Storage) -> HeartbeatThread:
    """Return the thread for a store in the running event loop; the first call starts it."""
    thread = _threads.get(_key(storage))
    if thread is None:
        thread = _threads[_key(storage)] = HeartbeatThread(storage)
    return thread


def _key(storage: Storage) -> tuple[int, int]:
    return id(storage), id(asyncio.get_running_loop())


def _settle(future: asyncio.Future[None], failure: BaseException | None = None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
