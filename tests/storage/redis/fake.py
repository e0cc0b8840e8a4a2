"""A Redis server inside the test process: fakeredis, with what the Redis store needs and fakeredis lacks.

fakeredis (2.40) runs the store's scripts by Lua 5.1, as Redis does. It lacks:

* ``struct`` and ``redis.sha1hex`` in Lua, and script flags (``#!lua``). It calls itself 6.2, so that the
  store sends none.
* ``INFO``.
* a ``BLMOVE`` that blocks: with nothing to move, fakeredis answers at once.
* a connection that outlives an error: its own TCP server closes it after each, so after ``NOSCRIPT`` too.
  Here an asyncio server stands before fakeredis' sockets instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import redis
from fakeredis import FakeServer
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._command_args_parsing import Timeout
from fakeredis._commands import Signature
from fakeredis._helpers import SimpleError
from fakeredis._socket._async import AsyncFakeSocket

VERSION = (6, 2)
INFO = b"redis_version:6.2.0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\naof_enabled:0\r\n"
_SIZES = {b"B": 1, b"h": 2}


@cache
def _fields(form: bytes) -> list[tuple[int, bool]]:
    """Return the size of each number in a format of ``struct``, and whether it has a sign."""
    kinds = re.findall(rb"I\d|B|h", form)
    assert form == b">" + b"".join(kinds), f"the scripts use more of struct than is here: {form!r}"
    return [(_SIZES.get(kind) or int(kind[1:]), kind == b"h") for kind in kinds]


def _pack(form: bytes, *values: float) -> bytes:
    """``struct.pack`` of Redis' Lua."""
    fields = zip(values, _fields(form), strict=True)
    return b"".join(int(value).to_bytes(size, "big", signed=signed) for value, (size, signed) in fields)


def _unpack(form: bytes, data: bytes, at: int = 1) -> tuple[int, ...]:
    """``struct.unpack`` of Redis' Lua: the numbers, and the place behind them."""
    start, numbers = at - 1, []
    for size, signed in _fields(form):
        if len(data) < start + size:
            raise SimpleError("ERR data string too short")
        numbers.append(int.from_bytes(data[start : start + size], "big", signed=signed))
        start += size
    return (*numbers, start + 1)


def _sha1hex(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()


_MORE = {
    # fakeredis declares its tuples of types too narrowly.
    "info": Signature("info", "info", (), (bytes,)),  # type: ignore[arg-type]
    "blmove": Signature("blmove", "blmove", (bytes, bytes, bytes, bytes, Timeout)),  # type: ignore[arg-type]
}


class _Socket(AsyncFakeSocket):
    """A client as fakeredis sees it; its replies go to a transport."""

    def __init__(self, server: FakeServer, transport: asyncio.Transport) -> None:
        super().__init__(server, 0, client_class=redis.Redis)
        self._transport = transport
        self._blocking_task: asyncio.Task[Any] | None = None

    def _name_to_func(self, cmd_name: str) -> tuple[Callable[..., Any] | None, Signature]:
        if (signature := _MORE.get(cmd_name)) is not None:
            return getattr(self, signature.func_name), signature
        return super()._name_to_func(cmd_name)

    def info(self, *sections: bytes) -> bytes:
        return INFO

    def blmove(self, source: bytes, target: bytes, out: bytes, into: bytes, timeout: float) -> Any:
        lmove, signature = self._name_to_func("lmove")
        move = [source, target, out, into]
        return self._blocking(timeout, lambda first: self._run_command(lmove, signature, move, False))

    async def _async_blocking(self, *args: Any, **kwargs: Any) -> None:
        self._blocking_task = asyncio.current_task()
        await super()._async_blocking(*args, **kwargs)

    def _get_server_runtime(self, server: Any) -> Any:
        new = not hasattr(server, "_lua_runtime")
        lua = super()._get_server_runtime(server)
        if new:
            lua.globals()[b"redis"][b"sha1hex"] = _sha1hex
            lua.globals()[b"struct"] = lua.table_from({b"pack": _pack, b"unpack": _unpack})
            server._lua_expected_globals.add(b"struct")
        return lua

    def _decode_error(self, error: SimpleError) -> Any:
        return error

    def put_response(self, msg: Any) -> None:
        self._transport.write(encode_reply(msg, 2))

    def lost(self) -> None:
        """Forget the client, as a server does when its connection has ended."""
        if self._blocking_task is not None:
            self._blocking_task.cancel()
        with self._server.lock:
            self.kill()


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: FakeServer, clients: set[_Client]) -> None:
        self._server = server
        self._clients = clients
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket = _Socket(self._server, transport)
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        self._socket.sendall(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket.lost()
        self._clients.discard(self)
        self._gone.set()

    async def close(self) -> None:
        self._transport.abort()
        await self._gone.wait()


@asynccontextmanager
async def fake_redis() -> AsyncIterator[str]:
    """Serve an empty fake Redis from this event loop, and give its URL."""
    fake = FakeServer(version=VERSION)
    clients: set[_Client] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(fake, clients), "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for client in tuple(clients):
            await client.close()
        await server.wait_closed()
