"""A TCP proxy that treats commands and replies badly, those of any server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

MESSAGE = b"$7\r\nmessage\r\n"
SMALL = 65_536


class ChaosProxy:
    """Passes everything on; `drip` cuts replies into single bytes, `cut_replies` resets in mid-reply, `deaf`
    drops pub/sub messages, `rate` makes the link slow, `freeze` leaves a connection half open."""

    def __init__(self, port: int) -> None:
        self.target = port
        """Port of the server to which new connections go."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen: set[int] = set()
        self.port = 0
        self.drip = False
        self.swallow = False
        self.deaf = False
        self.dropped = 0
        """Pieces that were dropped because a pub/sub message was in them."""
        self.cut_replies = 0
        """How many of the next replies are cut."""
        self.cut_every = 0
        """Cut every so many-th piece of a reply, if not 0."""
        self.passed = 0
        self.cut_at = 1
        """Bytes of a cut reply that are still passed on."""
        self.cuts = 0
        self.rate = 0
        """Bytes per second in each direction, if not 0."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        # Small buffers: what a slow link does not take yet stays with the client.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=SMALL)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def freeze(self, port: int) -> None:
        """Let nothing of a connection come back any more; the server sees it come from this port."""
        self._frozen.add(port)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._bridge(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bridge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the server is away
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(up_writer)
        there = asyncio.create_task(self._commands(reader, up_writer))
        port = up_writer.get_extra_info("sockname")[1]
        back = asyncio.create_task(self._replies(up_reader, writer, port))
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, up_writer):
            one.transport.abort()
            self._writers.discard(one)
        await asyncio.wait([there, back])

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(SMALL):
                await self._pass(data, writer)

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write, as slowly as the link is."""
        step = max(1, self.rate // 50) if self.rate else len(data)
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await writer.drain()
            if self.rate:
                await asyncio.sleep(min(len(data), step) / self.rate)

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        with suppress(OSError):
            while data := await reader.read(SMALL):
                if self.swallow or port in self._frozen:
                    continue
                if self.deaf and MESSAGE in data:
                    self.dropped += 1
                    continue
                self.passed += 1
                every = self.cut_every and self.passed % self.cut_every == 0
                if every or self.cut_replies > 0:
                    self.cut_replies = max(0, self.cut_replies - 1)
                    self.cuts += 1
                    writer.write(data[: self.cut_at])
                    await writer.drain()
                    return
                for piece in (data[i : i + 1] for i in range(len(data))) if self.drip else (data,):
                    await self._pass(piece, writer)


@asynccontextmanager
async def chaos_proxy(port: int) -> AsyncIterator[ChaosProxy]:
    proxy = ChaosProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
