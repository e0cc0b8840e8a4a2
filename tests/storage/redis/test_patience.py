"""Timeouts are about silence: what moves is waited for, what does not is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobqueue.errors import StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.net.connection import BACKLOG
from jobqueue.storage.redis.net.patience import SLOWEST, Patience
from jobqueue.storage.redis.net.transport import SingleTransport
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.proxy import ChaosProxy, chaos_proxy
from tests.storage.redis.support import raw_connection

MB = b"x" * 1_000_000
QUICK = 0.3
"""Seconds of silence that are too many."""


# -- the rule --------------------------------------------------------------------------------------


def test_silence_is_counted_from_the_command() -> None:
    one = Patience()
    assert one.left(now=100.0, sent_at=100.0, limit=5.0) == 5.0
    assert one.left(now=105.0, sent_at=100.0, limit=5.0) == 0.0


def test_bytes_that_come_are_a_sign_of_life() -> None:
    one = Patience()
    for second in range(1, 60):
        one.heard(100.0 + second, 1_000_000, answered=False)
        assert one.left(100.0 + second, 100.0, 5.0) == 5.0
    assert one.left(164.0, 100.0, 5.0) == 0.0


def test_bytes_that_go_out_are_a_sign_of_life() -> None:
    one = Patience()
    one.posted = 60_000_000
    for second in range(1, 60):
        one.look(100.0 + second, 60_000_000 - second * 1_000_000)
        assert one.left(100.0 + second, 100.0, 5.0) == 5.0
    one.look(163.0, 1_000_000)
    assert one.left(164.0, 100.0, 5.0) == 0.0


def test_a_command_that_has_left_is_no_sign_of_life() -> None:
    one = Patience()
    one.posted = 100
    one.look(104.9, 0)
    assert one.left(105.0, 100.0, 5.0) == 0.0


def test_a_trickle_is_given_up() -> None:
    one, now = Patience(), 100.0
    while one.left(now, 100.0, 5.0) > 0:
        now += 1.0
        one.heard(now, SLOWEST // 2, answered=False)
        assert now < 115.0
    assert now >= 109.0


def test_the_command_behind_a_large_one_has_its_time_from_its_turn_on() -> None:
    one = Patience()
    one.heard(130.0, 1_000_000, answered=False)
    one.heard(160.0, 30_000_000, answered=True)
    assert one.left(160.0, 101.0, 5.0) == 5.0
    assert one.left(165.0, 101.0, 5.0) == 0.0


# -- slow links ------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def slow(server: Server) -> AsyncIterator[ChaosProxy]:
    async with chaos_proxy(server.port) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def storage(slow: ChaosProxy) -> AsyncIterator[RedisStorage]:
    # On a busy machine an attempt may be cut off without a reason; one that is right is not, time and again.
    storage = RedisStorage(slow.url, retry_for=5.0, reply_timeout=QUICK)
    await storage.open()
    yield storage
    slow.rate = 0
    await storage.close()


async def test_a_large_reply_over_a_slow_link(storage: RedisStorage, slow: ChaosProxy) -> None:
    await storage.insert("q", [NewJob("a", MB)])
    slow.rate = 1_000_000
    began = SYSTEM_CLOCK.monotonic()
    reading = asyncio.create_task(storage.get("q", ["a"], payload=True))
    await asyncio.sleep(0)
    assert await storage.get("q", ["none"]) == [None], "a small call behind a large one"
    [record] = await reading
    assert record is not None
    assert record.payload == MB
    assert SYSTEM_CLOCK.monotonic() - began > 2 * QUICK


async def test_a_large_command_over_a_slow_link(storage: RedisStorage, slow: ChaosProxy) -> None:
    slow.rate = 2_000_000
    began = SYSTEM_CLOCK.monotonic()
    inserting = asyncio.create_task(storage.insert("q", [NewJob("a", MB + MB)]))
    await asyncio.sleep(0)
    assert await storage.get("q", ["none"]) == [None], "a small call behind a large one"
    await inserting
    assert SYSTEM_CLOCK.monotonic() - began > 2 * QUICK
    slow.rate = 0
    [job] = (await storage.exchange("q", "w", [], 1, LEASE)).jobs
    assert job.attempts == 1


async def test_a_link_that_only_trickles_is_given_up(storage: RedisStorage, slow: ChaosProxy) -> None:
    await storage.insert("q", [NewJob("a", MB)])
    slow.rate = SLOWEST // 5
    with pytest.raises(StorageUnavailableError, match="did not answer in time"):
        await asyncio.wait_for(storage.get("q", ["a"], payload=True), 20)


async def test_callers_wait_for_a_server_that_takes_nothing(server: Server) -> None:
    storage = RedisStorage(server.url)
    await storage.open()
    transport = storage._open_session().transport
    assert isinstance(transport, SingleTransport)
    connection = await transport._link.connected()
    assert connection._transport is not None
    server.pause()
    try:
        calls = [asyncio.create_task(storage.insert("q", [NewJob(f"{i}", MB)])) for i in range(50)]
        await asyncio.sleep(0.1)
        assert connection._transport.get_write_buffer_size() < BACKLOG + 2 * len(MB)
    finally:
        server.resume()
    async with asyncio.timeout(30):
        await asyncio.gather(*calls)
    assert (await storage.counts("q")).queued == 50
    await storage.close()


async def test_a_process_that_was_busy_itself_looks_for_the_reply_first(server: Server) -> None:
    connection = await raw_connection(server.url)
    reply = connection.send(b"PING", timeout=0.05)
    time.sleep(0.3)
    assert connection._timer is not None
    connection._timer.cancel()
    connection._look()  # some event loops call timers before they read
    assert await reply == b"PONG"
    await connection.close("done")
