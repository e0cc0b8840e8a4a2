"""What a worker that has nothing to do asks of a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.lifecycle.processes import Start, within
from tests.services import BINARIES, Server

LOOK = 6.0
"""Seconds; more than `block_timeout`, so that it holds what is done once per wait."""


async def commands(server: Server, start: Callable[[], Awaitable[object]]) -> list[str]:
    """Return the commands that clients send within `LOOK`, from the first wait for work on.

    Neither the loading of scripts (EVAL) nor what they call inside the server is counted.
    """
    reader, writer = await asyncio.open_unix_connection(server.socket_path, limit=1 << 20)
    seen: list[str] = []
    try:
        writer.write(b"MONITOR\r\n")
        await reader.readline()
        await start()
        while b'"BLMOVE"' not in await within(reader.readline()):
            pass
        async with asyncio.timeout(LOOK):
            async for line in reader:
                if b" lua]" not in line and b'"EVAL"' not in line:
                    seen.append(line.decode(errors="replace"))
    except TimeoutError:
        return seen
    finally:
        writer.close()
        await writer.wait_closed()
    raise AssertionError("the server ended the connection")


async def test_an_idle_worker_sends_at_most_one_command_per_second(flavour: str) -> None:
    """Its own part: what the reaper in it does is due every few seconds, many queues or none."""
    server = Server(BINARIES[flavour]()).start()
    start = Start(server.url)
    try:
        worker = ("worker", "tasks:calm", "--no-reaper")
        seen = await commands(server, lambda: start.cli(*worker, STORE=server.url))
        assert 0 < len(seen) <= LOOK, seen
    finally:
        await start.end()
        server.remove()
