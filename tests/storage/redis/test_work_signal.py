"""`WorkSignal`: whom a moved element wakes, and when it is given back."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from jobqueue.storage.redis.keys import queue_keys
from jobqueue.storage.redis.net.connection import Connection
from jobqueue.storage.redis.wakeups import WorkSignal
from jobqueue.storage.values import Claimed
from jobqueue.testing import FakeClock

TICK = 1_800_000_000_000_000


class Server:
    """Answers ``CLIENT ID``; the test answers ``BLMOVE``."""

    closed = False
    reply_timeout = 5.0
    resumed = False

    def __init__(self) -> None:
        self.blocked: asyncio.Queue[asyncio.Future[bytes | None]] = asyncio.Queue()
        self.given_back = asyncio.Event()

    def send(self, *command: Any, timeout: float | None = None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if command[0] == b"BLMOVE":
            self.blocked.put_nowait(future)
        else:
            future.set_result(7)
        return future

    async def connect(self, kind: str, key: bytes | None = None) -> Connection:
        return cast("Connection", self)

    async def give_back(self) -> None:
        self.given_back.set()

    async def until_resumed(self, timeout: float) -> bool:
        await asyncio.sleep(0)
        return self.resumed

    async def unblock(self, client: int) -> None:
        assert client == 7
        if not self.blocked.empty():
            self.blocked.get_nowait().set_result(None)

    async def close(self, reason: str) -> None:
        """Nothing to end."""


def claimed(id: str, fence: int) -> Claimed:
    return Claimed(id, b"", fence, 1, 3, 1000, 0)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def signal(server: Server) -> WorkSignal:
    return WorkSignal(
        server.connect,
        queue_keys("jq", "q"),
        FakeClock(),
        give_back=server.give_back,
        unblock=server.unblock,
        until_resumed=server.until_resumed,
    )


async def waited(signal: WorkSignal, server: Server) -> asyncio.Future[bytes | None]:
    """Return the blocked command of a waiter that has been hinted away."""
    waiting = asyncio.create_task(signal.wait(30))
    blocked = await server.blocked.get()
    signal.hint()
    assert await waiting
    return blocked


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_hint_wakes_without_the_server(signal: WorkSignal, server: Server) -> None:
    blocked = await waited(signal, server)
    assert not blocked.done()


async def test_a_hint_to_nobody_is_nothing(signal: WorkSignal, server: Server) -> None:
    signal.hint()
    waiting = asyncio.create_task(signal.wait(30))
    (await server.blocked.get()).set_result(TICK.to_bytes(7) + b"a")
    assert await waiting


async def test_what_is_moved_for_nobody_is_given_back(signal: WorkSignal, server: Server) -> None:
    (await waited(signal, server)).set_result(TICK.to_bytes(7) + b"a")
    await asyncio.wait_for(server.given_back.wait(), 5)


@pytest.mark.parametrize("told", ["before", "after"])
async def test_what_an_exchange_claimed_is_not_given_back(
    signal: WorkSignal, server: Server, told: str
) -> None:
    blocked = await waited(signal, server)
    signal.begin_exchange()
    if told == "before":
        blocked.set_result(TICK.to_bytes(7) + b"a")
        await settled()
    signal.end_exchange([claimed("b", TICK + 1), claimed("a", TICK + 2)])
    if told == "after":
        blocked.set_result(TICK.to_bytes(7) + b"a")
    await settled()
    assert not server.given_back.is_set()


@pytest.mark.parametrize(
    ("element", "jobs"),
    [
        (TICK.to_bytes(7) + b"a", []),
        (TICK.to_bytes(7) + b"a", [claimed("b", TICK + 1)]),
        # The id was claimed, and came back since: at the back, or released to the front.
        (TICK.to_bytes(7) + b"a", [claimed("a", TICK - 1)]),
        ((2 * 1_750_000_000_000_000 - TICK).to_bytes(7) + b"a", [claimed("a", TICK - 1)]),
        (b"", [claimed("a", TICK)]),
    ],
)
async def test_what_no_exchange_claimed_is_given_back(
    signal: WorkSignal, server: Server, element: bytes, jobs: list[Claimed]
) -> None:
    blocked = await waited(signal, server)
    signal.begin_exchange()
    signal.begin_exchange()
    blocked.set_result(element)
    await settled()
    assert not server.given_back.is_set()
    signal.end_exchange([])
    await settled()
    assert not server.given_back.is_set()
    signal.end_exchange(jobs)
    await asyncio.wait_for(server.given_back.wait(), 5)


async def test_a_store_that_closes_during_an_exchange_gives_back(signal: WorkSignal, server: Server) -> None:
    blocked = await waited(signal, server)
    signal.begin_exchange()
    blocked.set_result(TICK.to_bytes(7) + b"a")
    await settled()
    await signal.close()
    assert server.given_back.is_set()


async def test_who_waits_again_meanwhile_is_woken(signal: WorkSignal, server: Server) -> None:
    blocked = await waited(signal, server)
    signal.begin_exchange()
    blocked.set_result(TICK.to_bytes(7) + b"a")
    await settled()
    waiting = asyncio.create_task(signal.wait(30))
    await settled()
    signal.end_exchange([])
    assert await asyncio.wait_for(waiting, 5)
    assert not server.given_back.is_set()


async def test_who_waits_while_an_element_is_given_back_is_woken_by_the_next(server: Server) -> None:
    given_back = asyncio.Event()

    async def give_back() -> None:
        server.given_back.set()
        await given_back.wait()

    signal = WorkSignal(
        server.connect,
        queue_keys("jq", "q"),
        FakeClock(),
        give_back=give_back,
        unblock=server.unblock,
        until_resumed=server.until_resumed,
    )
    (await waited(signal, server)).set_result(TICK.to_bytes(7) + b"a")
    await asyncio.wait_for(server.given_back.wait(), 5)
    waiting = asyncio.create_task(signal.wait(30))
    await settled()
    given_back.set()
    (await asyncio.wait_for(server.blocked.get(), 5)).set_result(TICK.to_bytes(7) + b"b")
    assert await waiting


async def test_a_claimed_element_leaves_the_next_waiter_waiting(signal: WorkSignal, server: Server) -> None:
    blocked = await waited(signal, server)
    signal.begin_exchange()
    blocked.set_result(TICK.to_bytes(7) + b"a")
    await settled()
    waiting = asyncio.create_task(signal.wait(30))
    signal.end_exchange([claimed("a", TICK + 1)])
    again = await asyncio.wait_for(server.blocked.get(), 5)
    assert not waiting.done()
    again.set_result(TICK.to_bytes(7) + b"b")
    assert await waiting
    await signal.close()


async def test_while_the_queue_is_paused_no_element_is_waited_for(signal: WorkSignal, server: Server) -> None:
    signal.closed = True
    assert await signal.wait(30) is False
    assert await signal.claim([b"EVALSHA"], 30) is None
    server.resumed = True
    assert await signal.wait(30) is True
    assert server.blocked.empty()
