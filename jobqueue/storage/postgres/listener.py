"""LISTEN: the one connection of a store that hears notifications.

All that comes here is a hint. The connection is checked every `BEAT` seconds by a notification that is sent
to it through another connection: one that does not hear it is given up within 10 s, and whoever listens is
told to read again. Behind a pooler that hands a connection to others after each statement nothing is ever
heard; then whoever listens is told to read again every `DEAF_INTERVAL` seconds or so, and listening is tried
again now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import asyncpg

from jobqueue.errors import JobQueueError, StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import random_secret
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.postgres.faults import judge
from jobqueue.storage.postgres.target import Connection

__all__ = ["HEARD_WITHIN", "Listener", "Receiver"]

log = get_logger("jobqueue.storage.postgres")

BEAT = 4.0
"""Seconds between two checks of the connection."""
HEARD_WITHIN = 4.0
"""Seconds within which a check must be heard."""
DEAF_INTERVAL = 1.0
"""Seconds between two readings where no notification is heard; half of it is random."""
TRY_AGAIN = 60.0
"""Seconds until listening is tried again where no notification was heard."""
_LONGEST_PAUSE = 2.0


class Receiver(Protocol):
    """Receives what is notified on a channel."""

    def message(self, payload: str) -> None:
        """Receive a notification."""

    def resync(self) -> None:
        """Look at everything again: notifications may have been missed."""


class _Deaf:
    """A receiver that does nothing."""

    def message(self, payload: str) -> None:
        pass

    def resync(self) -> None:
        pass


class Listener:
    """The channels that this store listens to, in one event loop.

    ``connect`` opens a connection; ``notify`` sends an empty notification on a channel, through another one.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        notify: Callable[[str], Awaitable[None]],
        where: str,
        retry_for: float,
    ) -> None:
        self._connect = connect
        self._notify = notify
        self._where = where
        self._retry_for = retry_for
        self._receivers: dict[str, list[Receiver]] = {}
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        """Set while the connection listens to all channels, and while polling takes its place."""
        self._busy = asyncio.Lock()
        self._own = f"jq_{random_secret(16).hex()}"
        self._heard = asyncio.Event()
        self.polls = False
        """Whether no notification is heard through this server's pooler."""

    async def listen(self, channel: str, receiver: Receiver) -> None:
        """Give a receiver what is notified on a channel, from this return on.

        Raises `StorageUnavailableError`.
        """
        receivers = self._receivers.setdefault(channel, [])
        if receiver not in receivers:
            receivers.append(receiver)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jobqueue-postgres-listener")
        elif len(receivers) > 1 and self._ready.is_set():
            return
        try:
            async with asyncio.timeout(self._retry_for):
                while not await self._listen_to(channel):
                    await self._ready.wait()
        except TimeoutError:
            self.unlisten(channel, receiver)
            raise StorageUnavailableError(f"{self._where} does not answer: cannot listen") from None
        except BaseException:
            self.unlisten(channel, receiver)
            raise

    async def _listen_to(self, channel: str) -> bool:
        """Listen to one more channel; whether the connection does, or polling takes its place."""
        if not self._ready.is_set():
            return False
        if self.polls:
            return True
        async with self._busy:
            connection = self._connection
            if connection is None or connection.is_closed():
                # Its end is noticed in a moment. Who waits for the next one must let others run until then.
                self._ready.clear()
                return False
            try:
                await self._add(connection, channel)
            except Exception as error:
                fault = judge(error, self._where)
                if fault is None:
                    raise
                if not fault.again:
                    raise fault.error from error
                connection.terminate()
                self._ready.clear()
                return False
        return True

    async def _add(self, connection: Connection, channel: str) -> None:
        # Adding the same function again does nothing, and listening to the same channel neither.
        await connection.add_listener(channel, self._hear)

    def unlisten(self, channel: str, receiver: Receiver) -> None:
        """Give a receiver no more of a channel. The server is told when the connection is made anew."""
        receivers = self._receivers.get(channel, [])
        if receiver in receivers:
            receivers.remove(receiver)
        if not receivers:
            self._receivers.pop(channel, None)

    def _hear(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        if channel == self._own:
            self._heard.set()
            return
        for receiver in tuple(self._receivers.get(channel, ())):
            receiver.message(str(payload))

    def _resync(self) -> None:
        for receivers in tuple(self._receivers.values()):
            for receiver in tuple(receivers):
                receiver.resync()

    async def _run(self) -> None:
        pause, told = 0.05, False
        while True:
            try:
                connection = await self._open()
            except Exception as error:
                fault = judge(error, self._where)
                if fault is None and not isinstance(error, JobQueueError):
                    raise
                if not told:
                    log.warning(
                        "notifications are not heard now: %s", error if fault is None else fault.error
                    )
                told = True
                await SYSTEM_CLOCK.sleep(SYSTEM_CLOCK.uniform(pause / 2, pause))
                pause = min(_LONGEST_PAUSE, pause * 2)
                continue
            try:
                if await self._is_heard():
                    pause, told, self.polls = 0.05, False, False
                    while await self._is_heard():
                        await self._beat(connection)
                    log.debug("%s: the connection for notifications is given up", self._where)
                else:
                    await self._poll(connection)
            finally:
                self._ready.clear()
                connection.terminate()

    async def _open(self) -> Connection:
        """Connect and listen to all channels. Whoever listens reads again: something may have been missed."""
        connection = await self._connect()
        try:
            async with self._busy:
                for channel in (self._own, *self._receivers):
                    await self._add(connection, channel)
                self._connection = connection
                self._ready.set()
        except BaseException:
            connection.terminate()
            raise
        self._resync()
        return connection

    async def _beat(self, connection: Connection) -> None:
        """Wait until the next check, or until the connection ends."""
        ended = asyncio.Event()

        def end(_connection: object) -> None:
            ended.set()

        connection.add_termination_listener(end)
        try:
            if not connection.is_closed():
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT):
                        await ended.wait()
        finally:
            connection.remove_termination_listener(end)

    async def works(self) -> bool:
        """Return whether notifications are heard, after listening for one if nobody has."""
        receiver = _Deaf()
        await self.listen(self._own, receiver)
        self.unlisten(self._own, receiver)
        return not self.polls and await self._is_heard()

    async def _is_heard(self) -> bool:
        """Send a notification through another connection, and return whether it came."""
        connection = self._connection
        if connection is None or connection.is_closed():
            return False
        self._heard.clear()
        try:
            async with asyncio.timeout(HEARD_WITHIN):
                await self._notify(self._own)
                await self._heard.wait()
        except (TimeoutError, JobQueueError):
            return False
        return True

    async def _poll(self, connection: Connection) -> None:
        """Have everybody read again and again for a while, if the server is there and is not heard."""
        if connection.is_closed():
            return
        if not self.polls:
            log.warning(
                "%s: notifications are not heard, as through a pooler that shares connections: "
                "work and results are looked for every second",
                self._where,
            )
        self.polls = True
        until = SYSTEM_CLOCK.monotonic() + TRY_AGAIN
        while SYSTEM_CLOCK.monotonic() < until:
            await SYSTEM_CLOCK.sleep(DEAF_INTERVAL * SYSTEM_CLOCK.uniform(0.5, 1.0))
            self._resync()

    async def close(self) -> None:
        """End the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, asyncpg.PostgresError, OSError):
                await task
