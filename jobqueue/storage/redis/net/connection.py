"""One connection: RESP over an asyncio transport, replies matched to commands by order.

Duties: send commands, several at once without waiting for each other; give every reply to the command it
belongs to, also when the caller of one of them is gone; end the connection, and with it all commands under
way, when a reply is overdue; make callers wait while the server does not take what was sent. Opening one
is the duty of `jobqueue.storage.redis.net.login`.

A cancelled caller leaves its place in the row behind: the reply that comes for it is dropped and can
never reach another caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from jobqueue.runtime.clock import SYSTEM_CLOCK, Timer
from jobqueue.storage.redis.net.faults import ConnectionLostError, code_of
from jobqueue.storage.redis.net.patience import UPLOAD, Patience
from jobqueue.storage.redis.net.sockets import is_self_connected, unsent
from jobqueue.storage.redis.net.target import Address

__all__ = ["LOGIN_OVER", "Argument", "Connection", "ReplyError"]

BACKLOG = 1_048_576
"""Most bytes that wait to be sent; above that, callers wait instead."""
LOGIN_OVER = "the server has ended the login"
_LATE = 0.1
_NOTHING = object()
_pack: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command

Argument = bytes | str | int | float


class ReplyError(Exception):
    """The server answered a command with an error."""

    def __init__(self, message: str) -> None:
        # The arguments of an unknown command follow: a password, if it is AUTH.
        text = message.partition(", with args beginning with")[0]
        super().__init__(text if text.isprintable() else ascii(text)[1:-1])

    @property
    def code(self) -> str:
        """The error code; see `code_of`."""
        return code_of(str(self))


class Connection(asyncio.Protocol):
    """A connection made by `login.connect`. Belongs to one event loop."""

    def __init__(self, address: Address, reply_timeout: float) -> None:
        self.address = address
        self.reply_timeout = reply_timeout
        self.on_push: Callable[[list[Any]], None] | None = None
        """Called with everything the server sends; once set, replies are no longer matched to commands."""
        self.on_lost: Callable[[], None] | None = None
        """Called once when the connection has ended."""
        self.received = 0
        """Bytes that have come so far."""
        self.closed = False
        self.logged_in = False
        """Set when the login is over: from then on a server that asks for one has forgotten it."""
        self.full: asyncio.Future[None] | None = None
        """Set while more than `BACKLOG` bytes wait to be sent: await `room`."""
        self.turn = asyncio.Lock()
        """Held while a command blocks this connection, which others share."""
        self._gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING, replyError=ReplyError)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], float, float]] = deque()
        """Commands without a reply: when each was sent, and how long the server may be silent before it."""
        self._patience = Patience()
        self._timer: Timer | None = None
        self._look_at = 0.0
        self._reason = "the connection was lost"

    def __repr__(self) -> str:
        return f"<Connection {self.address} {'closed' if self.closed else 'open'}>"

    # -- sending ----------------------------------------------------------------------------------

    def send(self, *command: Argument, timeout: float | None = None) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply, or a `ReplyError` or `ConnectionLostError`.

        The connection ends if the server is silent for ``timeout`` seconds (default: the connection's) before
        the reply; see `jobqueue.storage.redis.net.patience`. A large command gets more.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.closed:
            future.set_exception(ConnectionLostError(self._reason))
            return future
        limit = (self.reply_timeout if timeout is None else timeout) + self.post(*command) / UPLOAD
        now = SYSTEM_CLOCK.monotonic()
        self._waiting.append((future, now, limit))
        if self._timer is None or now + limit < self._look_at:
            self._look_in(limit)
        return future

    def post(self, *command: Argument) -> int:
        """Send a command whose answers are pushes only; return its size in bytes."""
        if self._transport is None or self.closed:
            return 0
        data = _pack(command)
        self._transport.write(data)
        self._patience.posted += len(data)
        return len(data)

    async def room(self) -> None:
        """Wait for room for another command, or for the end of the connection."""
        while self.full is not None:
            await asyncio.wait([self.full])

    def pause_writing(self) -> None:
        self.full = self._loop.create_future()

    def resume_writing(self) -> None:
        full, self.full = self.full, None
        if full is not None:
            full.set_result(None)

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = SYSTEM_CLOCK.monotonic() + seconds
        self._timer = SYSTEM_CLOCK.call_later(seconds, self._look)

    def _look(self) -> None:
        """End the connection if the oldest command has waited for too long."""
        self._timer = None
        if not self._waiting or self._transport is None:
            return
        now, backlog = SYSTEM_CLOCK.monotonic(), unsent(self._transport)
        self._patience.look(now, backlog)
        _, sent_at, limit = self._waiting[0]
        left = self._patience.left(now, sent_at, limit)
        if backlog:  # whether it shrinks shows only to those who look more than once
            left = min(left, limit / 4)
        if left > 0:
            self._look_in(left)
        elif now - self._look_at > _LATE:  # this process was busy or asleep, and a reply may be there
            self._look_in(_LATE)
        else:
            self.abort("the server did not answer in time")

    # -- receiving --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(BACKLOG)
        if is_self_connected(transport):
            self.abort("nobody listens there")

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        standing = len(waiting)
        self.received += len(data)
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
                    self._fail(future, reply)
                else:
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"not a Redis server, or a broken reply: {error}")
        if waiting:
            self._patience.heard(SYSTEM_CLOCK.monotonic(), len(data), answered=len(waiting) < standing)

    def _fail(self, future: asyncio.Future[Any], error: ReplyError) -> None:
        if self.logged_in and error.code == "NOAUTH":
            self.abort(LOGIN_OVER)
            future.set_exception(ConnectionLostError(LOGIN_OVER))
        else:
            future.set_exception(error)

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
        self.resume_writing()
        for future, *_ in waiting:
            if not future.done():
                future.set_exception(ConnectionLostError(self._reason))
                future.exception()  # mark as seen: a caller may be gone already
        if self.on_lost is not None:
            self.on_lost()
