"""Sends scripts to the server, through faults.

Duties: keep one connection for all commands, which share it without waiting for each other; make a new
one when it is lost; repeat what a fault has interrupted, with pauses of growing random length and for a
bounded time; turn what remains into the errors of the package.

Repeating is safe because every script is idempotent: those that are not by nature take a nonce that names
the call, so that a repeated call gets the answer of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from jobqueue.errors import JobQueueError, StorageError, StorageUnavailableError
from jobqueue.runtime import SYSTEM_CLOCK
from jobqueue.storage.redis.connection import Connection, ReplyError
from jobqueue.storage.redis.faults import ConnectionLostError, Remedy, code_of, error_for, remedy_for
from jobqueue.storage.redis.scripts import Script

__all__ = ["Connector", "Retries", "SingleTransport", "Transport"]


class Transport(Protocol):
    """What the steps need of a client: small, so that it can be another one."""

    async def call(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Run a script. Raises the errors of `jobqueue.errors` only."""

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:
        """Run an idempotent command; ``key`` says which node of a cluster it concerns."""

    async def close(self) -> None:
        """End all connections."""


class Connector(Protocol):
    """Opens connections to wherever the data is now."""

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:
        """Connect for a ``kind`` of use; ``key`` says which node of a cluster is meant."""
        ...


class Retries:
    """How long, and with which pauses, a call is repeated."""

    __slots__ = ("base", "cap", "total")

    def __init__(self, total: float, base: float = 0.02, cap: float = 1.0) -> None:
        self.total = total
        """Seconds until the last fault is reported."""
        self.base = base
        self.cap = cap

    async def run(self, attempt: Callable[[], Awaitable[Any]], where: str) -> Any:
        """Call ``attempt`` until it returns or raises something final.

        Pauses are drawn from 0 to a bound that doubles ("full jitter", Brooker, AWS, 2015), so that
        the clients of a server that comes back do not all come at once.
        """
        give_up = SYSTEM_CLOCK.monotonic() + self.total
        bound = self.base
        while True:
            try:
                return await attempt()
            except ConnectionLostError as error:
                final: JobQueueError = StorageUnavailableError(f"{where}: {error}")
                cause: Exception = error
            except ReplyError as error:
                code = code_of(str(error))
                final, cause = error_for(code, str(error), where), error
                if remedy_for(code) not in {Remedy.PAUSE, Remedy.RECONNECT}:
                    raise final from error
            pause = SYSTEM_CLOCK.uniform(0, bound)
            if SYSTEM_CLOCK.monotonic() + pause > give_up:
                raise final from cause
            await SYSTEM_CLOCK.sleep(pause)
            bound = min(self.cap, bound * 2)


class SingleTransport:
    """A transport to one server, or to the master that the connector finds."""

    def __init__(self, connector: Connector, retries: Retries, where: str, *, flags: bool = True) -> None:
        self._connector = connector
        self._retries = retries
        self._where = where
        self.flags = flags
        """Whether the server understands the first line of a script (7.0 and later do)."""
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False

    async def call(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        sha, text = (script.sha, script.text) if self.flags else (script.plain_sha, script.plain)

        async def attempt() -> Any:
            connection = await self._connected()
            try:
                return await connection.send(b"EVALSHA", sha, len(keys), *keys, *args)
            except ReplyError as error:
                remedy = remedy_for(code_of(str(error)))
                if remedy is Remedy.SEND_SCRIPT:
                    # In full rather than SCRIPT LOAD: no flush can come between.
                    return await connection.send(b"EVAL", text, len(keys), *keys, *args)
                if remedy is Remedy.RECONNECT:
                    connection.abort(str(error))
                raise

        return await self._retries.run(attempt, f"{self._where}: {script.name}")

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:  # noqa: ARG002
        async def attempt() -> Any:
            return await (await self._connected()).send(*command)

        return await self._retries.run(attempt, f"{self._where}: {command[0].decode()}")

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            await self._connection.close("the store was closed")

    async def _connected(self) -> Connection:
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        if self._closed:
            raise StorageError(f"{self._where}: the store was closed")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connector("command"), name="jobqueue-redis-connect")
            self._connecting.add_done_callback(self._arrived)
        # All callers wait for one attempt, and none of them cancels it for the others.
        connecting = self._connecting
        await asyncio.wait([connecting])
        if connecting.cancelled():
            raise StorageError(f"{self._where}: the store was closed")
        return connecting.result()

    def _arrived(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            return
        self._connection = task.result()
        if self._closed:
            self._connection.abort("the store was closed")
