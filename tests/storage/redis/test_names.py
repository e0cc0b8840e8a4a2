"""The set of queue names: a queue that has dropped out of it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jobqueue.storage.redis import RedisStorage, names
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.meddler import Meddler

Use = Callable[[RedisStorage], Awaitable[object]]


async def enqueue(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("b", b"")])


async def claim(storage: RedisStorage) -> None:
    await storage.exchange("q", "w", [], 1, LEASE)


async def until_listed(storage: RedisStorage) -> None:
    async with asyncio.timeout(10):
        while await storage.queues() != ["q"]:
            await asyncio.sleep(0)


@pytest.mark.parametrize("use", [enqueue, claim])
async def test_a_queue_that_was_lost_is_named_by_the_next_store_that_uses_it(
    server: Server, storage: RedisStorage, use: Use
) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    server.command("SREM", "jq:queues", "q")  # as by a failover of the node that has the set
    other = storage.clone()
    await other.open()
    await use(other)
    await until_listed(storage)
    await other.close()


@pytest.mark.parametrize("use", [enqueue, claim])
async def test_a_queue_that_was_lost_is_named_by_a_store_that_uses_it_for_long(
    server: Server, storage: RedisStorage, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_TRUSTED_FOR", 0.0)
    await storage.insert("q", [NewJob("a", b"")])
    await claim(storage)
    server.command("SREM", "jq:queues", "q")
    await use(storage)
    await until_listed(storage)


@pytest.mark.parametrize("use", [enqueue, claim])
async def test_a_queue_whose_reaper_died_while_it_removed_the_name_is_named_again(
    server: Server, storage: RedisStorage, use: Use
) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    await storage.exchange("q", "w", [], 1, LEASE)
    server.command("DEL", "{jq:q}:jobs", "{jq:q}:running", "{jq:q}:meta")  # all that a purge leaves
    other = storage.clone()
    await other.open()
    await other.insert("q", [NewJob("a", b"")])
    server.command("SREM", "jq:queues", "q")  # what the reaper does next, and its last act
    await use(storage)
    await until_listed(storage)
    await other.close()


async def test_a_producer_is_faster_than_a_reaper_that_removes_a_name(
    server: Server, storage: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    await storage._open_session().names.remove("q")
    assert await storage.queues() == ["q"]


@pytest.mark.parametrize("group", ["", "g"])
async def test_a_queue_is_named_once(storage: RedisStorage, group: str) -> None:
    meddler = Meddler(storage)
    for number in range(3):
        await storage.insert("q", [NewJob(f"{number}", b"", group=group)])
    assert [reply[0] for reply in meddler.replies] == [b"", b"1", b"1"]
