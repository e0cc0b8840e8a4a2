"""Waking idle workers: what the staging list and the blanks may do, and never do."""

from __future__ import annotations

import asyncio

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.support import raw_connection

READY, STAGED = b"{jq:q}:ready", b"{jq:q}:staged"


async def blocked_clients(server: Server) -> int:
    info = server.command("INFO", "clients")
    assert isinstance(info, bytes)
    return int(dict(line.split(":") for line in info.decode().split() if ":" in line)["blocked_clients"])


async def until_blocked(server: Server, count: int) -> None:
    async with asyncio.timeout(10):
        while await blocked_clients(server) != count:
            await SYSTEM_CLOCK.sleep(0.01)


async def test_a_process_that_dies_after_the_move_strands_nothing(
    server: Server, storage: RedisStorage
) -> None:
    dying = await raw_connection(server.url)
    moved = dying.send(b"BLMOVE", READY, STAGED, b"LEFT", b"RIGHT", 5)
    await storage.insert("q", [NewJob("a", b""), NewJob("b", b"")])
    assert (await moved)[7:] == b"a"
    await dying.close("killed")
    assert (await storage.counts("q")).queued == 2
    assert [j.id for j in (await storage.exchange("q", "w", [], 5, LEASE)).jobs] == ["a", "b"]
    assert await storage.check("q") == []


async def test_a_sweep_passes_a_swallowed_wake_up_on(server: Server, storage: RedisStorage) -> None:
    dying = await raw_connection(server.url)
    moved = dying.send(b"BLMOVE", READY, STAGED, b"LEFT", b"RIGHT", 5)
    await storage.insert("q", [NewJob("a", b"")])
    await moved
    waiting = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await until_blocked(server, 1)
    await storage.sweep("q", 10)
    assert await asyncio.wait_for(waiting, 5)
    await dying.close("done")


async def test_what_is_moved_for_nobody_is_given_back(server: Server, storage: RedisStorage) -> None:
    waiting = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await until_blocked(server, 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    other = storage.clone()
    await other.open()
    also = asyncio.create_task(other.wait_for_work("q", "w2", 30))
    await until_blocked(server, 2)
    await storage.insert("q", [NewJob("a", b"")])
    assert await asyncio.wait_for(also, 5)  # not only at its timeout
    assert [j.id for j in (await other.exchange("q", "w2", [], 1, LEASE)).jobs] == ["a"]
    await other.close()


async def test_waiters_of_a_process_share_one_connection(server: Server, storage: RedisStorage) -> None:
    waiting = [asyncio.create_task(storage.wait_for_work("q", f"w{i}", 30)) for i in range(20)]
    await until_blocked(server, 1)
    await storage.insert("q", [NewJob("a", b"")])
    assert all(await asyncio.wait_for(asyncio.gather(*waiting), 5))
    listed = server.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    assert listed.count(b"name=jobqueue-blocking-") == 1


async def test_blanks_do_not_pile_up(server: Server, storage: RedisStorage) -> None:
    for i in range(50):
        await storage.insert("q", [NewJob(f"p{i}", b"", priority=5), NewJob(f"s{i}", b"", delay=10_000 - i)])
        await storage.cancel("q", [f"p{i}"])
    assert server.command("LLEN", READY) in {0, 1}
    for _ in range(300):
        await storage.insert("q", [NewJob("same", b"")])
        await storage.cancel("q", ["same"])
    assert server.command("LLEN", READY) in {0, 1}
    await storage.insert("q", [NewJob("first", b"")])  # stays in front of all blanks
    for _ in range(20):
        await storage.insert("q", [NewJob("same", b"")])
        await storage.cancel("q", ["same"])
        assert server.command("LLEN", READY) in {1, 2}
    assert await storage.check("q") == []


async def test_cancelling_in_the_middle_of_a_long_list(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{i:05}", b"") for i in range(2000)])
    gone = [f"{i:05}" for i in range(2000) if i % 3 or 500 <= i < 900]
    for i in range(0, len(gone), 100):
        await storage.cancel("q", gone[i : i + 100])
        assert await storage.check("q") == []
    left = [f"{i:05}" for i in range(2000) if not (i % 3 or 500 <= i < 900)]
    assert (await storage.counts("q")).queued == len(left)
    claimed: list[str] = []
    while jobs := (await storage.exchange("q", "w", [], 100, LEASE)).jobs:
        claimed += [job.id for job in jobs]
    assert claimed == left


async def test_closing_while_waiting_loses_nothing(server: Server, storage: RedisStorage) -> None:
    for round in range(20):
        leaving = storage.clone()
        await leaving.open()
        waiting = asyncio.create_task(leaving.wait_for_work("q", "w", 30))
        await until_blocked(server, 1)
        await asyncio.gather(leaving.close(), storage.insert("q", [NewJob(f"j{round}", b"")]))
        assert await asyncio.wait_for(waiting, 5)
        assert server.command("LLEN", STAGED) == 0
        [job] = (await storage.exchange("q", "w", [], 5, LEASE)).jobs
        assert job.id == f"j{round}"
        await storage.exchange("q", "w", [Settlement(job.id, job.fence, Action.COMPLETE)], 0, LEASE)
    assert await storage.check("q") == []


async def test_an_emptied_queue_leaves_no_key(server: Server, storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("a", b"", ttl=0), NewJob("b", b"", priority=3, ttl=0)])
    jobs = (await storage.exchange("q", "w", [], 5, LEASE)).jobs
    await storage.exchange("q", "w", [Settlement(j.id, j.fence, Action.COMPLETE) for j in jobs], 5, LEASE)
    server.command("DEL", "{jq:q}:meta")  # as if nobody had used it for ten minutes
    assert await storage.purge("q", 100) == 2
    assert await storage.queues() == []
    assert server.command("KEYS", "*") == [b"jq:format"]


async def test_records_expire_by_inserts_alone(server: Server, storage: RedisStorage) -> None:
    for i in range(300):
        await storage.insert("q", [NewJob(f"j{i}", b"", ttl=0, dead_letter_ttl=0)])
        jobs = (await storage.exchange("q", "w", [], 1, LEASE)).jobs
        done = [Settlement(j.id, j.fence, (Action.COMPLETE, Action.FAIL, Action.CANCEL)[i % 3]) for j in jobs]
        await storage.exchange("q", "w", done, 0, LEASE)
    left = server.command("HLEN", "{jq:q}:jobs")
    assert isinstance(left, int)
    assert left < 100
    assert await storage.check("q") == []


async def test_the_first_claim_after_a_wake_up_leaves_half_to_the_next(
    server: Server, storage: RedisStorage
) -> None:
    waiting = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await until_blocked(server, 1)
    other = storage.clone()
    await other.open()
    await other.insert("q", [NewJob(f"j{n}", b"") for n in range(100)])
    await other.close()
    assert await asyncio.wait_for(waiting, 5)
    claims = [await storage.exchange("q", "w", [], limit, LEASE) for limit in (0, 100, 50)]
    assert [(len(claim.jobs), claim.more) for claim in claims] == [(0, False), (50, True), (50, False)]
    await storage.insert("q", [NewJob("last", b"")])
    assert [job.id for job in (await storage.exchange("q", "w", [], 100, LEASE)).jobs] == ["last"]
