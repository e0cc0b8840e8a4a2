"""The connection that notifications come through, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest_asyncio

from jobqueue.storage.postgres.listener import Listener
from jobqueue.storage.postgres.target import Connection

MOST_LOOKS = 1_000
"""Looks at one connection that has ended; a loop that lets nobody run makes more."""


class Line:
    """A connection of a server that passes on what is notified, until it is cut."""

    def __init__(self) -> None:
        self._ends: list[Callable[[Any], None]] = []
        self._cut = False
        self._looks = 0
        self.heard: dict[str, Callable[..., None]] = {}

    def is_closed(self) -> bool:
        self._looks += self._cut
        assert self._looks < MOST_LOOKS
        return self._cut

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        self.heard[channel] = callback

    def add_termination_listener(self, end: Callable[[Any], None]) -> None:
        self._ends.append(end)

    def remove_termination_listener(self, end: Callable[[Any], None]) -> None:
        self._ends.remove(end)

    def cut(self) -> None:
        """End it. Whoever listens for that hears of it in the loop's next turn."""
        self._cut = True
        for end in self._ends:
            asyncio.get_running_loop().call_soon(end, self)

    def terminate(self) -> None:
        self._cut = True


class Server:
    def __init__(self) -> None:
        self.lines: list[Line] = []

    async def connect(self) -> Connection:
        self.lines.append(Line())
        return cast("Connection", self.lines[-1])

    async def notify(self, channel: str) -> None:
        line = self.lines[-1]
        if not line.is_closed():
            asyncio.get_running_loop().call_soon(line.heard[channel], line, 1, channel, "")


class Receiver:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, payload: str) -> None:
        self.messages.append(payload)

    def resync(self) -> None:
        self.messages.append("read again")


@pytest_asyncio.fixture
async def server() -> Server:
    return Server()


@pytest_asyncio.fixture
async def listener(server: Server) -> AsyncIterator[Listener]:
    listener = Listener(server.connect, server.notify, "a server", 5.0)
    yield listener
    await listener.close()


async def test_who_listens_while_the_connection_ends_gets_the_next_one(
    listener: Listener, server: Server
) -> None:
    await listener.listen("one", Receiver())
    server.lines[-1].cut()
    receiver = Receiver()
    await listener.listen("two", receiver)  # in the same turn of the loop: nobody has noticed the end
    assert len(server.lines) == 2
    server.lines[-1].heard["two"](None, 1, "two", "a message")
    assert receiver.messages[-1] == "a message"
