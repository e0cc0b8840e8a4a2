"""A proxy that counts the commands of its clients and cuts one connection, at one of three places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.storage.redis.proxy import SMALL

PLACES = ("before", "sent", "after")
"""The command never reaches the server; it does, and its reply is lost; both arrive, and then it is over."""
REPLIES_WITHIN = 1.0
"""Seconds that a reply is waited for: a command that blocks has none."""

Splitter = Callable[[bytearray], Iterator[bytes]]
"""Takes complete commands from the front of a buffer."""


def resp_commands(buffer: bytearray) -> Iterator[bytes]:
    """Take complete commands of Redis."""
    while (end := _command_end(buffer)) is not None:
        yield bytes(buffer[:end])
        del buffer[:end]


def _command_end(buffer: bytearray) -> int | None:
    head = buffer.find(b"\r\n")
    if head < 0:
        return None
    at = head + 2
    for _ in range(int(buffer[1:head])):
        size_end = buffer.find(b"\r\n", at)
        if size_end < 0:
            return None
        at = size_end + 2 + int(buffer[at + 1 : size_end]) + 2
    return at if at <= len(buffer) else None


class PostgresSplitter:
    """Takes messages of PostgreSQL up to one that asks for an answer."""

    ASKS = b"QSHpXc"
    """Query, Sync, Flush, a password, the end, the end of a COPY."""

    def __init__(self) -> None:
        self._greeted = False

    def __call__(self, buffer: bytearray) -> Iterator[bytes]:
        """Take complete commands."""
        while (end := self._end(buffer)) is not None:
            yield bytes(buffer[:end])
            del buffer[:end]

    def _end(self, buffer: bytearray) -> int | None:
        if not self._greeted:  # the first message has no letter
            size = int.from_bytes(buffer[:4]) if len(buffer) >= 4 else 0
            self._greeted = bool(size) and len(buffer) >= size
            return size if self._greeted else None
        at = 0
        while len(buffer) >= at + 5:
            end = at + 1 + int.from_bytes(buffer[at + 1 : at + 5])
            if end > len(buffer):
                return None
            if buffer[at] in self.ASKS:
                return end
            at = end
        return None


@dataclass
class Stepper:
    """Counts commands over all connections; at number ``cut_at`` it cuts that connection, once."""

    target: int
    splitter: Callable[[], Splitter]
    cut_at: int = 0
    place: str = "before"
    port: int = 0
    commands: list[bytes] = field(default_factory=list)
    """The first bytes of each command, in the order of arrival."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        self._writers.append(writer)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.append(up_writer)
        answered = asyncio.Event()
        lost = False

        async def there() -> None:
            nonlocal lost
            take, buffer = self.splitter(), bytearray()
            while data := await reader.read(SMALL):
                buffer += data
                for command in take(buffer):
                    self.commands.append(command[:60])
                    if len(self.commands) != self.cut_at:
                        up_writer.write(command)
                        continue
                    if self.place != "before":
                        lost = self.place == "sent"
                        answered.clear()
                        up_writer.write(command)
                        with suppress(TimeoutError):
                            await asyncio.wait_for(answered.wait(), REPLIES_WITHIN)
                    return

        async def back() -> None:
            while data := await up_reader.read(SMALL):
                if not lost:
                    writer.write(data)
                answered.set()

        await _first(there(), back())
        up_writer.transport.abort()
        with suppress(OSError):
            writer.close()  # and not abort: what was passed on arrives

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """End all connections."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # their transports learn of it in the next turn of the loop


async def _first(*coroutines: object) -> None:
    """Run until one of them ends; end the others."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def stepping(
    target: int, splitter: Callable[[], Splitter], cut_at: int, place: str
) -> AsyncGenerator[Stepper]:
    """Run a stepper in front of a server."""
    stepper = Stepper(target, splitter, cut_at, place)
    server = await asyncio.start_server(stepper.accept, "127.0.0.1", limit=SMALL)
    stepper.port = server.sockets[0].getsockname()[1]
    try:
        yield stepper
    finally:
        server.close()
        await stepper.end()
