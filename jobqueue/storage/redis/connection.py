"""One connection: RESP over an asyncio transport, replies matched to commands by order.

Duties: connect and log in within a time limit; send commands, several at once without waiting for each
other; give every reply to the command it belongs to, also when the caller of one of them is gone; end the
connection, and with it all commands under way, when a reply is overdue.

A cancelled caller leaves its place in the row behind: the reply that comes for it is dropped and can
never reach another caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from jobqueue.runtime import SYSTEM_CLOCK, Timer
from jobqueue.storage.redis.faults import ConnectionLostError
from jobqueue.storage.redis.sockets import is_self_connected, keep_alive
from jobqueue.storage.redis.url import Address, Target

__all__ = ["Connection", "Login", "ReplyError", "connect"]

_NOTHING = object()
_pack: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command

Argument = bytes | str | int | float


class ReplyError(Exception):
    """The server answered a command with an error."""


class Login:
    """The credentials and the name with which every connection of a store introduces itself."""

    __slots__ = ("db", "password", "tls", "username")

    def __init__(self, target: Target, *, sentinel: bool = False) -> None:
        self.username = target.sentinel_username if sentinel else target.username
        self.password = target.sentinel_password if sentinel else target.password
        self.db = 0 if sentinel else target.db
        self.tls = target.tls


class Connection(asyncio.Protocol):
    """A connection made by `connect`. Belongs to one event loop."""

    def __init__(self, address: Address, reply_timeout: float) -> None:
        self.address = address
        self.reply_timeout = reply_timeout
        self.on_push: Callable[[list[Any]], None] | None = None
        """Called with everything the server sends; once set, replies are no longer matched to commands."""
        self.on_lost: Callable[[], None] | None = None
        """Called once when the connection has ended."""
        self.closed = False
        self.turn = asyncio.Lock()
        """Held while a command blocks this connection, which others share."""
        self._gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING, replyError=ReplyError)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: Timer | None = None
        self._reason = "the connection was lost"

    def __repr__(self) -> str:
        return f"<Connection {self.address} {'closed' if self.closed else 'open'}>"

    # -- sending ----------------------------------------------------------------------------------

    def send(self, *command: Argument, timeout: float | None = None) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply, or a `ReplyError` or `ConnectionLostError`.

        Without a reply ``timeout`` seconds from now (default: the connection's) the connection ends.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.closed:
            future.set_exception(ConnectionLostError(self._reason))
            return future
        limit = self.reply_timeout if timeout is None else timeout
        self._waiting.append((future, SYSTEM_CLOCK.monotonic() + limit))
        if self._timer is None:
            self._timer = SYSTEM_CLOCK.call_later(limit, self._check)
        self.post(*command)
        return future

    def post(self, *command: Argument) -> None:
        """Send a command whose answers are pushes only."""
        if self._transport is not None and not self.closed:
            self._transport.write(_pack(command))

    def _check(self) -> None:
        """End the connection if the oldest command has waited for too long."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][1] - SYSTEM_CLOCK.monotonic()
        if left <= 0:
            self.abort("the server did not answer in time")
        else:
            self._timer = SYSTEM_CLOCK.call_later(left, self._check)

    # -- receiving --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        keep_alive(transport)
        if is_self_connected(transport):
            self.abort("nobody listens there")

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                if self.on_push is not None:
                    self.on_push(reply)
                    continue
                if not waiting:
                    # A server that refuses a connection says why and closes it.
                    self.abort(str(reply) if isinstance(reply, ReplyError) else "an unexpected reply")
                    return
                future = waiting.popleft()[0]
                if future.done():
                    continue
                if isinstance(reply, ReplyError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"not a Redis server, or a broken reply: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = f"the connection was lost: {exc}"
        self._end()
        self._gone.set()

    # -- ending -----------------------------------------------------------------------------------

    def abort(self, reason: str) -> None:
        """End the connection now; all commands under way fail with `ConnectionLostError`."""
        if not self.closed:
            self._reason = reason
            if self._transport is not None:
                self._transport.abort()
            self._end()

    async def close(self, reason: str) -> None:
        """End the connection and wait until the socket is closed."""
        self.abort(reason)
        if self._transport is not None:
            await self._gone.wait()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if not future.done():
                future.set_exception(ConnectionLostError(self._reason))
                future.exception()  # mark as seen: a caller may be gone already
        if self.on_lost is not None:
            self.on_lost()


async def connect(
    address: Address, login: Login, name: str, *, connect_timeout: float, reply_timeout: float
) -> Connection:
    """Open a connection and log in. Raises `ConnectionLostError` or a `ReplyError`."""
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        return Connection(address, connect_timeout)

    connection: Connection | None = None
    try:
        async with asyncio.timeout(connect_timeout):
            if address.port:
                hostname = address.host if login.tls else None
                _, connection = await loop.create_connection(
                    protocol, address.host, address.port, ssl=login.tls, server_hostname=hostname
                )
            else:
                _, connection = await loop.create_unix_connection(protocol, address.host)
            await _introduce(connection, login, name)
    except BaseException as error:
        if connection is not None:
            await connection.close("the login failed")
        if isinstance(error, TimeoutError):
            raise ConnectionLostError(f"no connection within {connect_timeout} s") from None
        if isinstance(error, OSError):
            raise ConnectionLostError(f"cannot connect: {error}") from error
        raise
    connection.reply_timeout = reply_timeout
    return connection


async def _introduce(connection: Connection, login: Login, name: str) -> None:
    """Log in, choose the database and tell the server who this is."""
    steps: list[asyncio.Future[Any]] = []
    if login.password is not None:
        user = () if login.username is None else (login.username,)
        steps.append(connection.send(b"AUTH", *user, login.password))
    if login.db:
        steps.append(connection.send(b"SELECT", login.db))
    named = connection.send(b"CLIENT", b"SETNAME", name)
    try:
        for step in steps:
            await step
    finally:
        for step in (*steps, named):
            step.add_done_callback(_seen)
    try:
        await named
    except ReplyError as error:
        # A name is a courtesy; a user may lack the right to set one. Anything else speaks for itself.
        if not str(error).startswith("NOPERM"):
            raise


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
