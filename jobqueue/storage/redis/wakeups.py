"""Waiting for work: one blocked connection per queue, shared by all waiters of this process.

The connection waits in ``BLMOVE ready staged``. The moved element is only a wake-up; the next exchange of
any process claims it from ``staged``. This is safe because:

* Nobody owns ``staged``: every exchange, sweep and cancel first puts its elements back in front of
  ``ready``. A process that dies after the move strands no job; at most one wake-up is lost, and the
  others go on sleeping until that next call or until their own timeout.
* Who waits again without an exchange in between first gives that element back: its job may still be ready.
* A cancelled waiter leaves the command running, and the next waiter joins it. An element that arrives
  without a waiter is given back at once, which wakes another process; unless an exchange of this process
  is in flight, which may have claimed it.
* A worker that was busy just now waits and claims in one: the script that claims is sent behind the command,
  and the server runs it in the moment of the wake-up. That saves a round trip: see `_Claim`.
* A process that inserts and waits for work need not wait for the server's wake-up: `hint` wakes the
  waiter, and its exchange follows the insert on the same connection. That saves a fifth of a request's time.
* The first exchange after a wake-up leaves half of a wave of jobs for the next one: see `share`.
* Where the server refuses the command, waiters are woken every second or so, and look themselves.
* On close the command is ended with ``CLIENT UNBLOCK``, so that it is known whether it moved something.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from jobqueue.errors import JobQueueError
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.redis import codec
from jobqueue.storage.redis.keys import QueueKeys
from jobqueue.storage.redis.net.connection import Argument, Connection, ReplyError
from jobqueue.storage.redis.net.faults import REFUSED_FOR, RIGHTS, ConnectionLostError, Remedy, remedy_for
from jobqueue.storage.redis.net.notices import warn_once
from jobqueue.storage.redis.net.transport import Connector
from jobqueue.storage.values import Claimed

__all__ = ["WorkSignal", "resolve", "wake"]

log = get_logger("jobqueue.storage.redis")

_DEAF_INTERVAL = 1.0
"""Seconds between two looks for work where the server refuses to let anybody wait for it."""
_BLOCK = 5.0
"""Seconds that one blocking command waits: long enough to be cheap, short enough to notice a dead server."""
_HALVED = 64
"""Free slots from which on the first claim after a wake-up takes half. Where fewer are claimed, the calls of
the second half cost more than they gain."""


class _Claim:
    """A script that the server runs when the blocked command ends, since it stands behind that command.

    ``reply`` gets the script's reply, or a `ConnectionLostError` or `ReplyError`; ``None`` if the script was
    never sent.
    """

    def __init__(self, script: Sequence[Argument], timeout: float) -> None:
        self.script = script
        self.timeout = timeout
        self.sent: asyncio.Future[Any] | None = None
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def finish(self) -> None:
        """Take what came of it, after the blocked command has ended."""
        assert self.sent is not None
        try:
            self.reply.set_result(await self.sent)
        except (ConnectionLostError, ReplyError) as error:
            self.reply.set_exception(error)
        except asyncio.CancelledError:
            self.reply.set_exception(ConnectionLostError("the store was closed"))
            raise


class WorkSignal:
    """Wakes the waiters of one queue in this process."""

    def __init__(
        self,
        connector: Connector,
        keys: QueueKeys,
        clock: Clock,
        *,
        give_back: Callable[[], Awaitable[None]],
        unblock: Callable[[int], Awaitable[Any]],
        until_resumed: Callable[[float], Awaitable[bool]],
    ) -> None:
        self._connector = connector
        self._keys = keys
        self._clock = clock
        self._give_back = give_back
        self._unblock = unblock
        self._until_resumed = until_resumed
        self.closed = False
        """Whether the last exchange found the queue paused or at its limit: then jobs in the list are no
        reason to ask."""
        self._waiters: set[asyncio.Future[bool]] = set()
        self._connection: Connection | None = None
        self._client_id: int | None = None
        self._blocked = False
        self._unblocking: asyncio.Task[None] | None = None
        self._claim: _Claim | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._exchanging = 0
        self._exchanged: asyncio.Future[None] | None = None
        self._claimed: Sequence[Claimed] = ()
        self._woken = False
        """True from a wake-up to the next claim of many jobs."""
        self._unheeded = False
        """True from a wake-up by an element, which then is in ``staged``, to the next exchange."""
        self._poll_until = 0.0
        self._told = False
        """True while the server is away, after that was logged."""

    async def wait(self, timeout: float) -> bool:
        """Return True early if there may be work, False after ``timeout`` seconds."""
        if self.closed:
            return await self._until_resumed(timeout)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        timer = self._clock.call_later(timeout, lambda: resolve(future, woken=False))
        self._begin()
        try:
            self._woken = await future
        finally:
            timer.cancel()
            self._waiters.discard(future)
        return self._woken

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="jobqueue-redis-work")

    async def claim(self, script: Sequence[Argument], timeout: float) -> Any:
        """Wait as `wait` does, and have a script run in the moment of the wake-up; return its reply.

        ``None``: it was not sent. Raises `ConnectionLostError` or a `ReplyError`, and it may have run. Not to
        be cancelled, since the reply may bring jobs: `end_claim` ends it.
        """
        if self._unheeded:
            return None
        if self._claim is not None or self._polls() or self.closed:
            await self.wait(timeout)
            return None
        claim = self._claim = _Claim(script, timeout)
        timer = self._clock.call_later(timeout, self.end_claim)
        if self._blocked:
            self._send_behind(claim)
        self._begin()
        try:
            reply = await claim.reply
        finally:
            timer.cancel()
        self._woken = True
        return reply

    def end_claim(self) -> None:
        """Have the script run now, unless it is not even sent."""
        claim = self._claim
        if claim is None:
            return
        if claim.sent is None:
            self._claim = None
            claim.reply.set_result(None)
        elif self._client_id is not None and self._unblocking is None:
            self._unblocking = asyncio.create_task(self._unblock_now(self._client_id))

    async def _unblock_now(self, client: int) -> None:
        try:
            with suppress(JobQueueError):  # then the command ends by its own timeout
                await self._unblock(client)
        finally:
            self._unblocking = None

    def _send_behind(self, claim: _Claim) -> None:
        assert self._connection is not None
        claim.sent = self._connection.send(*claim.script, timeout=_BLOCK + self._connection.reply_timeout)

    async def _finish_claim(self) -> bool:
        """Finish the claim whose script stands behind the command that has ended; False if there is none."""
        claim = self._claim
        if claim is None or claim.sent is None:
            return False
        self._claim = None
        await claim.finish()
        return True

    def hint(self) -> None:
        """Wake the waiters since this process is sending jobs; their claims follow on the same connection."""
        if self._waiters:
            wake(self._waiters)

    def share(self, limit: int) -> int:
        """Return how many of ``limit`` jobs the next exchange should claim.

        Callers that wait for results move in waves: all of them get their answers together and ask again
        together, and while the worker has the whole wave, nobody else has anything to do. Once cut in two,
        a wave stays so, and callers, server and worker work at the same time. With 100 callers that is 1.4
        times as many requests from another process, 1.1 times from the worker's own. A worker with a
        backlog is not woken, and claims as many as it can.
        """
        if limit < _HALVED or not self._woken:
            return limit
        self._woken = False
        return limit // 2

    def begin_exchange(self) -> None:
        """Note that an exchange is in flight."""
        self._exchanging += 1
        self._unheeded = False

    def end_exchange(self, claimed: Sequence[Claimed]) -> None:
        """Note its end and what it claimed."""
        self._exchanging -= 1
        self._claimed = claimed
        self._look_again()

    def _look_again(self) -> None:
        if self._exchanged is not None and not self._exchanged.done():
            self._exchanged.set_result(None)

    async def close(self) -> None:
        """End the blocked command and wake all waiters."""
        self._closing = True
        self.end_claim()
        wake(self._waiters)
        self._look_again()
        task = self._task
        if task is not None and not task.done():
            with suppress(JobQueueError, TimeoutError):
                async with asyncio.timeout(1.0):
                    if self._client_id is not None and not self._polls():
                        await self._unblock(self._client_id)
                        await asyncio.wait([task])
            task.cancel()
            await asyncio.wait([task])
        if self._claim is not None:
            self._claim.reply.set_exception(ConnectionLostError("the store was closed"))
        if self._connection is not None:
            await self._connection.close("the store was closed")

    async def _run(self) -> None:
        """Block until an element comes or no waiter is left."""
        pause = 0.05
        while (self._waiters or self._claim is not None) and not self._closing:
            if self._polls():
                await self._poll()
                return
            if self._unheeded:  # the element of the last wake-up, whose job nobody has claimed here
                self._unheeded = False
                await self._pass_on()
            try:
                element = await self._block()
            except (ConnectionLostError, ReplyError) as error:
                await self._finish_claim()
                self._failed(error)
                await SYSTEM_CLOCK.sleep(SYSTEM_CLOCK.uniform(0, pause))
                pause = min(1.0, pause * 2)
                continue
            self._told = False
            if await self._finish_claim() or element is None or await self._is_claimed(element):
                continue
            if self._anybody_waits():
                self._unheeded = True
                wake(self._waiters)
                self.end_claim()
                return
            # Who begins to wait meanwhile finds this task at work: then it goes on.
            await self._pass_on()

    async def _is_claimed(self, element: bytes) -> bool:
        """Return whether an exchange of this process has already claimed the moved element."""
        tick, id = codec.element(element)
        while True:
            if any(job.id == id and job.fence > tick for job in self._claimed):
                return True
            if not self._exchanging or self._closing or self._anybody_waits():
                return False
            self._exchanged = asyncio.get_running_loop().create_future()
            await self._exchanged

    def _anybody_waits(self) -> bool:
        return any(not future.done() for future in self._waiters)

    async def _pass_on(self) -> None:
        try:
            await self._give_back()
        except JobQueueError as error:
            log.warning("a wake-up was not passed on, the others wake at their timeout: %s", error)

    def _failed(self, error: ConnectionLostError | ReplyError) -> None:
        if isinstance(error, ReplyError) and remedy_for(error.code) is Remedy.RAISE:
            # No repetition mends that soon. What is wrong elsewhere too, the exchanges tell.
            self._poll_until = SYSTEM_CLOCK.monotonic() + REFUSED_FOR
            where = "Redis" if self._connection is None else f"Redis at {self._connection.address}"
            warn_once(f"{where}: waiting for work by polling: {error}. {RIGHTS}")
            return
        if isinstance(error, ReplyError) and self._connection is not None:
            self._connection.abort(str(error))
        log.log(logging.DEBUG if self._told else logging.WARNING, "waiting for work by polling: %s", error)
        self._told = True

    def _polls(self) -> bool:
        return SYSTEM_CLOCK.monotonic() < self._poll_until

    async def _poll(self) -> None:
        """Wake the waiters after a pause, of random length so that processes do not look together."""
        await SYSTEM_CLOCK.sleep(_DEAF_INTERVAL * SYSTEM_CLOCK.uniform(0.5, 1.0))
        wake(self._waiters)
        self.end_claim()

    async def _block(self) -> bytes | None:
        connection = self._connection
        if connection is None or connection.closed:
            self._client_id = None
            connection = self._connection = await self._connector("blocking", self._keys.ready)
            with suppress(ReplyError):  # without the right to ask, close() just ends the connection
                self._client_id = await connection.send(b"CLIENT", b"ID")
        claim, keys = self._claim, self._keys
        # Sooner than the claim's timeout, so that no other command need end this one.
        seconds = _BLOCK if claim is None else max(0.01, min(_BLOCK, 0.8 * claim.timeout))
        moved = connection.send(
            b"BLMOVE", keys.ready, keys.staged, b"LEFT", b"RIGHT", seconds,
            timeout=_BLOCK + connection.reply_timeout,
        )  # fmt: skip
        if claim is not None:
            self._send_behind(claim)
        self._blocked = True
        try:
            element: bytes | None = await moved
        finally:
            self._blocked = False
        return element


def wake(waiters: Iterable[asyncio.Future[bool]]) -> None:
    """Make all waiters return True."""
    for future in waiters:
        resolve(future, woken=True)


def resolve(future: asyncio.Future[bool], *, woken: bool) -> None:
    """Make a waiter return, unless it has."""
    if not future.done():
        future.set_result(woken)
