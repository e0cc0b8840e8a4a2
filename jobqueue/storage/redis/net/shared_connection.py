"""One shared connection that is replaced when it is lost, and the sending of scripts on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from jobqueue.errors import StorageError
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.net.connection import Connection, ReplyError
from jobqueue.storage.redis.net.faults import Remedy, remedy_for
from jobqueue.storage.redis.net.scripts import Script

__all__ = ["SharedConnection", "run_confirmed", "run_script"]


class SharedConnection:
    """A connection for all callers at once. The first caller connects; the others wait for it."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False

    @property
    def in_use(self) -> bool:
        """Whether it is connected or connecting."""
        return self._connecting is not None or (self._connection is not None and not self._connection.closed)

    async def connected(self) -> Connection:
        """Return the connection; make it if there is none. Raises `ConnectionLostError` or a `ReplyError`."""
        connection = self._connection
        if connection is not None and not connection.closed:
            if connection.full is not None:
                await connection.room()
            return connection
        if self._closed:
            raise StorageError("the store was closed")
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._make())
            self._connecting.add_done_callback(self._arrived)
        # None of the callers cancels it for the others.
        connecting = self._connecting
        await asyncio.wait([connecting])
        if connecting.cancelled():
            raise StorageError("the store was closed")
        return connecting.result()

    async def close(self) -> None:
        """End the connection; calls under way fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            await self._connection.close("the store was closed")

    async def _make(self) -> Connection:
        return await self._connect()

    def _arrived(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            return
        self._connection = task.result()
        if self._closed:
            self._connection.abort("the store was closed")


async def run_script(
    connection: Connection,
    script: Script,
    keys: Sequence[bytes],
    args: Sequence[bytes],
    *,
    flags: bool = True,
    asking: bool = False,
) -> Any:
    """Run a script by its hash, or in full if the server does not know it.

    In full rather than by ``SCRIPT LOAD``: so no ``SCRIPT FLUSH`` can come between. ``asking`` precedes it
    with ``ASKING``, for a slot that is about to move. ``flags``: the server knows script flags.
    """
    sha, text = (script.sha, script.text) if flags else (script.plain_sha, script.plain)
    if asking:
        connection.send(b"ASKING").add_done_callback(_ignore)
    try:
        return await connection.send(b"EVALSHA", sha, len(keys), *keys, *args)
    except ReplyError as error:
        if remedy_for(error.code) is not Remedy.SEND_SCRIPT:
            raise
    if asking:
        connection.send(b"ASKING").add_done_callback(_ignore)
    return await connection.send(b"EVAL", text, len(keys), *keys, *args)


async def run_confirmed(
    connection: Connection,
    script: Script,
    keys: Sequence[bytes],
    args: Sequence[bytes],
    confirm: Confirm,
    *,
    flags: bool = True,
    asking: bool = False,
) -> tuple[Any, Any]:
    """Run a script, then wait on the same connection until its writes are confirmed.

    Not sent at once: behind a script that fails, the server would wait all the same. One caller at a time,
    since the connection is blocked meanwhile.
    """
    async with connection.turn:
        answer = await run_script(connection, script, keys, args, flags=flags, asking=asking)
        timeout = connection.reply_timeout + confirm.timeout
        try:
            return answer, await connection.send(*confirm.command, timeout=timeout)
        except asyncio.CancelledError:
            # The server goes on waiting, and the next caller would wait for that.
            connection.abort("a confirmation was given up")
            raise


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # the command behind it fails for the same reason, and reports it
