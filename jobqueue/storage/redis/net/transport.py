"""Sends scripts to the server, through faults.

Duties: keep one connection for all commands, which share it without waiting for each other; make a new
one when it is lost; repeat calls interrupted by a fault, with pauses of growing random length and for a
bounded time; turn the remaining faults into the errors of the package.

Repeating is safe because every script is idempotent: those that are not by nature take a nonce that names
the call, so that a repeated call gets the answer of the first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from jobqueue.errors import JobQueueError, StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.net.connection import Connection, ReplyError
from jobqueue.storage.redis.net.faults import ConnectionLostError, Remedy, error_for, remedy_for
from jobqueue.storage.redis.net.scripts import Script
from jobqueue.storage.redis.net.shared_connection import SharedConnection, run_confirmed, run_script

__all__ = ["Connector", "Retries", "SingleTransport", "Transport"]


class Transport(Protocol):
    """The client interface that `ScriptedCalls` uses, small enough to replace."""

    flags: bool

    async def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        confirm: Confirm | None = None,
    ) -> Any:
        """Run a script; with ``confirm``, wait for the confirmation and return both answers as a pair.

        Raises the errors of `jobqueue.errors` only.
        """

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:
        """Run an idempotent command; ``key`` selects the node of a cluster."""

    async def everywhere(self, *command: bytes) -> dict[str, Any]:
        """Run an idempotent command at every master; return replies by address, ``None`` where missing."""
        ...

    async def close(self) -> None:
        """End all connections."""


class Connector(Protocol):
    """Opens connections to the present place of the data."""

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:
        """Connect for a ``kind`` of use; ``key`` selects the node of a cluster."""
        ...


class Retries:
    """Repeats calls, with pauses and within a time limit."""

    __slots__ = ("base", "cap", "total")

    def __init__(self, total: float, base: float = 0.02, cap: float = 1.0) -> None:
        self.total = total
        """Seconds after which the last fault is raised."""
        self.base = base
        self.cap = cap

    async def run(self, attempt: Callable[[], Awaitable[Any]], where: str) -> Any:
        """Call ``attempt`` until it returns or raises a final error.

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
                code = error.code
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

    def __init__(self, connector: Connector, retries: Retries, where: str) -> None:
        self._link = SharedConnection(lambda: connector("command"))
        self._confirming = SharedConnection(lambda: connector("confirm"))
        self._retries = retries
        self._where = where
        self.flags = True
        """True if the server understands the first line of a script (7.0 and later do)."""

    async def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        confirm: Confirm | None = None,
    ) -> Any:
        link = self._link if confirm is None else self._confirming

        async def attempt() -> Any:
            connection = await link.connected()
            try:
                if confirm is None:
                    return await run_script(connection, script, keys, args, flags=self.flags)
                return await run_confirmed(connection, script, keys, args, confirm, flags=self.flags)
            except ReplyError as error:
                if remedy_for(error.code) is Remedy.RECONNECT:
                    connection.abort(str(error))
                raise

        return await self._retries.run(attempt, f"{self._where}: {script.name}")

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:  # noqa: ARG002
        async def attempt() -> Any:
            return await (await self._link.connected()).send(*command)

        return await self._retries.run(attempt, f"{self._where}: {command[0].decode()}")

    async def everywhere(self, *command: bytes) -> dict[str, Any]:
        return {self._where: await self.command(*command)}

    async def close(self) -> None:
        await self._link.close()
        await self._confirming.close()
