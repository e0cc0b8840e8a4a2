"""Claiming on arrival: a script that waits behind the blocking command."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import Exchanged, NewJob
from jobqueue.testing import FakeClock
from tests.services import Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.proxy import chaos_proxy
from tests.storage.redis.support import run
from tests.storage.redis.test_hints import blocked_clients, until_blocked

Waiting = asyncio.Task[Exchanged | None]


def arrival(storage: RedisStorage, limit: int = 1, timeout: float = 4.0) -> Waiting:
    return asyncio.create_task(storage.claim_on_arrival("q", "w", limit, LEASE, timeout))


async def ids(waiting: Waiting) -> list[str]:
    answer = await asyncio.wait_for(waiting, 10)
    return [] if answer is None else [job.id for job in answer.jobs]


async def put(server: Server, *ids: str) -> None:
    """Insert as another process does."""
    storage = RedisStorage(server.url)
    await storage.open()
    await storage.insert("q", [NewJob(id, b"") for id in ids])
    await storage.close()


def calls(server: Server, command: str) -> int:
    info = server.command("INFO", "commandstats")
    assert isinstance(info, bytes)
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", info.decode())
    return int(found[1]) if found else 0


async def kill_blocked(server: Server) -> None:
    clients = await run(server.url, "CLIENT", "LIST")
    (blocked,) = re.findall(r"^id=(\d+) .*cmd=blmove", clients.decode(), re.MULTILINE)
    await run(server.url, "CLIENT", "KILL", "ID", blocked)


async def test_a_job_is_claimed_in_the_moment_of_its_insertion(server: Server, storage: RedisStorage) -> None:
    waiting = arrival(storage)
    await until_blocked(server, 1)
    await put(server, "a")
    assert await ids(waiting) == ["a"]
    assert await storage.check("q") == []


async def test_a_plain_wait_that_has_begun_is_joined(server: Server, storage: RedisStorage) -> None:
    plain = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await until_blocked(server, 1)
    waiting = arrival(storage)
    plain.cancel()
    await asyncio.wait([plain])
    await put(server, "a")
    assert await ids(waiting) == ["a"]
    assert calls(server, "blmove") == 1


async def test_who_only_waits_goes_on_waiting(server: Server, storage: RedisStorage) -> None:
    plain = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await until_blocked(server, 1)
    waiting = arrival(storage)
    await put(server, "a")
    assert await ids(waiting) == ["a"]
    await until_blocked(server, 1)
    assert not plain.done()
    await put(server, "b")
    assert await asyncio.wait_for(plain, 5)


async def test_a_wake_up_that_nobody_has_followed_asks_for_an_exchange(
    server: Server, storage: RedisStorage
) -> None:
    plain = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await until_blocked(server, 1)
    await put(server, "a")
    assert await asyncio.wait_for(plain, 5)
    assert await storage.claim_on_arrival("q", "w", 1, LEASE, 30) is None
    assert [job.id for job in (await storage.exchange("q", "w", [], 1, LEASE)).jobs] == ["a"]
    waiting = arrival(storage)
    await until_blocked(server, 1)
    await put(server, "b")
    assert await ids(waiting) == ["b"]


async def test_a_second_one_waits_for_a_wake_up(server: Server, storage: RedisStorage) -> None:
    first, second = arrival(storage), arrival(storage)
    await until_blocked(server, 1)
    await put(server, "a")
    assert await ids(first) == ["a"]
    await until_blocked(server, 1)
    await put(server, "b")
    assert await asyncio.wait_for(second, 5) is None


async def test_a_connection_that_is_killed_claims_nothing(server: Server, storage: RedisStorage) -> None:
    waiting = arrival(storage)
    await until_blocked(server, 1)
    await kill_blocked(server)
    assert await ids(waiting) == []
    await put(server, "a")
    assert [job.id for job in (await storage.exchange("q", "w", [], 1, LEASE)).jobs] == ["a"]


async def test_jobs_of_a_lost_reply_come_with_the_next(server: Server) -> None:
    async with chaos_proxy(server.port) as proxy:
        storage = RedisStorage(proxy.url)
        await storage.open()
        waiting = arrival(storage, limit=2)
        await until_blocked(server, 1)
        proxy.cut_replies = 1
        await put(server, "a", "b")
        assert await ids(waiting) == ["a", "b"]
        assert proxy.cuts == 1
        assert (await storage.counts("q")).processing == 2
        await storage.close()


async def test_a_server_that_has_forgotten_the_script_is_told_it_again(
    server: Server, storage: RedisStorage
) -> None:
    waiting = arrival(storage)
    await until_blocked(server, 1)
    server.command("SCRIPT", "FLUSH")
    await put(server, "a")
    assert await ids(waiting) == ["a"]


async def test_one_that_is_cancelled_wakes_another_process(server: Server, storage: RedisStorage) -> None:
    waiting = arrival(storage)
    await until_blocked(server, 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    await until_blocked(server, 0)
    other = storage.clone()
    await other.open()
    another = arrival(other)
    await until_blocked(server, 1)
    await put(server, "a")
    assert await ids(another) == ["a"]
    await other.close()


async def test_a_store_that_closes_keeps_no_job(server: Server, storage: RedisStorage) -> None:
    other = storage.clone()
    await other.open()
    waiting = arrival(other)
    await until_blocked(server, 1)
    waiting.cancel()
    await other.close()
    assert await blocked_clients(server) == 0
    await put(server, "a")
    assert [job.id for job in (await storage.exchange("q", "w", [], 1, LEASE)).jobs] == ["a"]


async def test_a_store_that_closes_under_it_ends_it(server: Server, storage: RedisStorage) -> None:
    other = storage.clone()
    await other.open()
    assert not (await other.exchange("q", "w", [], 1, LEASE)).jobs  # the server knows the script now
    waiting = arrival(other)
    await until_blocked(server, 1)
    await other.close()
    assert await ids(waiting) == []


@pytest.mark.parametrize("blocked", [False, True])
async def test_it_ends_by_its_timeout(server: Server, blocked: bool) -> None:
    clock = FakeClock()
    storage = RedisStorage(server.url, clock=clock)
    await storage.open()
    if blocked:  # the command has begun, with a timeout of its own
        plain = asyncio.create_task(storage.wait_for_work("q", "w", 1000))
        await until_blocked(server, 1)
        plain.cancel()
    waiting = arrival(storage, timeout=1000)
    await until_blocked(server, 1)
    await clock.advance(1000)
    assert await ids(waiting) == []
    await storage.close()


async def test_a_server_that_refuses_to_wait_has_it_asked(server: Server) -> None:
    server.command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-blmove")
    storage = RedisStorage(server.url.replace("redis://", "redis://poor:secret@"))
    await storage.open()
    waiting: list[Any] = [await storage.claim_on_arrival("q", "w", 1, LEASE, 0.2) for _ in range(2)]
    assert all(answer is None or not answer.jobs for answer in waiting)
    await put(server, "a")
    assert [job.id for job in (await storage.exchange("q", "w", [], 1, LEASE)).jobs] == ["a"]
    await storage.close()
