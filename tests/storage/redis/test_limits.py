"""Limits and groups in Lua: the numbers are those of Python, and what is kept of groups fits together."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from jobqueue.model.limits import Limit, Rate
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.contract import Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.keys import resumed_channel
from jobqueue.storage.rules import pack_rules
from jobqueue.storage.values import Claimed, Conflict, NewJob, Rules, Usage
from jobqueue.testing import FakeClock
from tests.model.limit_vectors import vectors
from tests.services import Server
from tests.storage.redis.support import raw_connection, run

LIB = Path(__file__).parents[3] / "lua" / "lib"
VECTORS, BATCH = 10_000, 1_000
GOLDEN = """
local stored = false
{base}
{limits}
local answer = {{}}
for i = 2, #ARGV do
  local case = cjson.decode(ARGV[i])
  now = case.now
  local limit = limit_of(case.limit)
  local granted, tat = admit(limit, case.running, case.tat, case.want)
  local at = opens_at(limit, case.running, tat)
  answer[#answer + 1] = string.format('%.0f %.0f %.0f', granted, tat, at or -1)
end
return answer
"""
RULES = Rules(queue=Limit(running=20), group=Limit(running=2))


async def test_lua_comes_to_the_numbers_of_python(server: Server) -> None:
    source = GOLDEN.format(base=(LIB / "base.lua").read_text(), limits=(LIB / "limits.lua").read_text())
    cases = vectors(VECTORS)
    for start in range(0, VECTORS, BATCH):
        batch = cases[start : start + BATCH]
        packed: list[str] = []
        for limit, running, tat, now, want, *_ in batch:
            stored: dict[str, Any] = json.loads(pack_rules(Rules(queue=limit)) or "{}").get("queue", {})
            case = {"limit": stored, "running": running, "tat": tat, "now": now, "want": want}
            packed.append(json.dumps(case))
        answers = await run(server.url, "EVAL", source, "0", "0", *packed)
        for case, answer in zip(batch, answers, strict=True):
            granted, after, opens = (int(number) for number in answer.split())
            assert (granted, after, None if opens < 0 else opens) == case[5:], case


async def test_a_rule_that_a_script_does_not_know_closes_the_queue(
    server: Server, storage: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    for rules in (
        '{"later":1}',
        '{"queue":{"later":1}}',
        '{"group":3}',
        '{"queue":{"rate":{"count":1}}}',
        "nonsense",
    ):
        await run(server.url, "HSET", "{jq:q}:meta", "rules", rules)
        answer = await storage.exchange("q", "w", [], 1, 1_000)
        assert (answer.jobs, answer.paused) == ([], True), rules
    await run(server.url, "HDEL", "{jq:q}:meta", "rules")
    assert len((await storage.exchange("q", "w", [], 1, 1_000)).jobs) == 1


async def test_a_clock_that_is_set_back_keeps_no_group_waiting(server: Server) -> None:
    clock = FakeClock()
    storage = RedisStorage(server.url, clock=clock)
    await storage.open()
    rules = Rules(queue=Limit(rate=Rate(10)), group=Limit(rate=Rate(1)))
    assert await storage.set_rules("q", rules)
    await storage.insert("q", [NewJob(f"{n}", b"", group="g") for n in range(2)])
    assert len((await storage.exchange("q", "w", [], 5, 1_000)).jobs) == 1
    assert (await storage.exchange("q", "w", [], 5, 1_000)).jobs == []
    clock.step(-3_600)
    answer = await storage.exchange("q", "w", [], 5, 1_000)
    assert answer.jobs == []
    assert answer.next_due is not None
    assert answer.next_due <= 1_001
    clock.move(1.1)
    assert (await storage.exchange("q", "w", [], 5, 1_000)).jobs == []
    clock.move(1.1)
    assert len((await storage.exchange("q", "w", [], 5, 1_000)).jobs) == 1
    await storage.close()


@pytest.mark.parametrize("group", ["", "g"])
async def test_the_end_of_a_run_is_announced_where_the_queue_was_at_its_limit(
    server: Server, storage: RedisStorage, group: str
) -> None:
    assert await storage.set_rules("q", Rules(queue=Limit(running=1)))
    await storage.insert("q", [NewJob("a", b"", group=group), NewJob("b", b"", group=group)])
    (job,) = (await storage.exchange("q", "w", [], 1, 60_000)).jobs
    pushed: asyncio.Queue[list[bytes]] = asyncio.Queue()
    listener = await raw_connection(server.url)
    listener.on_push = pushed.put_nowait
    channel = resumed_channel("jq", "q")
    try:
        listener.post("SUBSCRIBE", channel)
        async with asyncio.timeout(10):
            assert (await pushed.get())[:2] == [b"subscribe", channel]
            done = [Settlement(job.id, job.fence, Action.COMPLETE, b"")]
            await storage.exchange("q", "w", done, 0, 60_000)
            assert await pushed.get() == [b"message", channel, b""]
    finally:
        await listener.close("done")


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("left", [b"", b"short"])
async def test_a_job_that_nobody_can_run_takes_no_slot(
    server: Server, storage: RedisStorage, weight: int, left: bytes
) -> None:
    assert await storage.set_rules("q", Rules(group=Limit(running=1)))
    await storage.insert("q", [NewJob(id, b"", group="g", weight=weight) for id in "abc"])
    for id in "ab":
        await run(server.url, "HSET", "{jq:q}:jobs", id, left)
    assert [job.id for job in (await storage.exchange("q", "w", [], 5, 60_000)).jobs] == ["c"]
    assert await storage.usage("q", ["g"]) == [Usage(1, None)]


async def test_a_job_that_has_started_is_not_looked_for_among_those_that_are_late(
    server: Server, storage: RedisStorage
) -> None:
    await storage.insert("q", [NewJob(id, b"", group=group, expires=60_000) for id, group in ("a ", "bg")])
    assert await run(server.url, "ZCARD", "{jq:q}:expiring") == 2
    assert len((await storage.exchange("q", "w", [], 2, 60_000)).jobs) == 2
    assert await run(server.url, "ZCARD", "{jq:q}:expiring") == 0
    assert await breaches(storage) == []


async def breaches(storage: RedisStorage) -> list[str]:
    other = storage.clone()
    return [found.text for found in await other.check()]


async def test_what_is_kept_of_groups_fits_together(server: Server, storage: RedisStorage) -> None:
    assert await storage.set_rules("q", RULES)
    jobs = [NewJob(f"{n}", b"", group=f"g{n % 7}", priority=n % 3, weight=1 + n % 2) for n in range(60)]
    await storage.insert("q", jobs)
    runs = (await storage.exchange("q", "w", [], 30, 60_000)).jobs
    assert len(runs) == 14
    await storage.cancel("q", [f"{n}" for n in range(20, 40)])
    assert await breaches(storage) == []
    await run(server.url, "HSET", "{jq:q}:groups", "g1", "short")
    (found,) = await breaches(storage)
    assert "g1 cannot be read" in found


async def test_fsck_finds_what_does_not_fit(server: Server, storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("a", b"", group="g"), NewJob("b", b"", group="g")])
    (ring,) = await run(server.url, "ZRANGE", "{jq:q}:ring", "0", "-1")
    await run(server.url, "ZREM", "{jq:q}:ring", ring)
    assert any("is missing" in text for text in await breaches(storage))
    await run(server.url, "ZADD", "{jq:q}:ring", "0", ring)
    assert await breaches(storage) == []
    await storage.insert("q", [NewJob("c", b"", group="g")])
    assert [job.id for job in (await storage.exchange("q", "w", [], 1, 60_000)).jobs] == ["a"]
    assert await breaches(storage) == []
    member, _ = await run(server.url, "ZRANGE", "{jq:q}:lines", "0", "-1")
    await run(server.url, "ZREM", "{jq:q}:lines", member)
    assert any("are others than is known" in text for text in await breaches(storage))
    assert any("not in the index ready" in text for text in await breaches(storage))


async def test_no_key_is_left_of_groups_that_are_done(server: Server, storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{n}", b"", group=f"g{n}") for n in range(9)])
    assert await run(server.url, "EXISTS", "{jq:q}:groups", "{jq:q}:ring", "{jq:q}:lines") == 3
    claimed = (await storage.exchange("q", "w", [], 5, 60_000)).jobs
    done = [Settlement(job.id, job.fence, Action.COMPLETE, b"") for job in claimed]
    await storage.exchange("q", "w", done, 0, 60_000)
    await storage.cancel("q", [f"{n}" for n in range(9)])
    keys = ("groups", "ring", "lines", "opens")
    assert await run(server.url, "EXISTS", *(f"{{jq:q}}:{key}" for key in keys)) == 0


def moved(chance: random.Random, store: Storage) -> Awaitable[object]:
    """Change one thing about the waiting jobs of a queue, the same one on each store for the same chance."""
    id, group = f"{chance.randrange(200)}", f"g{chance.randrange(3)}"
    if chance.random() < 0.4:
        return store.cancel("q", [id])
    conflict, weight, priority = Conflict.REPLACE, chance.randint(1, 20), chance.randrange(3) // 2
    return store.insert(
        "q", [NewJob(id, b"", group=group, weight=weight, priority=priority, conflict=conflict)]
    )


@pytest.mark.parametrize("seed", range(12))
async def test_long_lines_are_in_the_order_of_the_reference(storage: RedisStorage, seed: int) -> None:
    memory = MemoryStorage()
    await memory.open()
    chance = random.Random(seed)
    rules = Rules(group=Limit(running=chance.choice([2, 9, 100])))
    jobs = [
        NewJob(
            f"{n}",
            b"x" * 30_000 if chance.random() < 0.3 else b"",
            group=f"g{n % 3}",
            weight=1 + n % 3 * (seed % 2),
        )
        for n in range(200)
    ]
    seen: list[list[str]] = []
    for store in (memory, storage):
        chance = random.Random(seed)
        assert await store.set_rules("q", rules)
        await store.insert("q", jobs)
        order: list[str] = []
        held: list[Claimed] = []
        for _ in range(60):
            some = [held.pop(chance.randrange(len(held))) for _ in range(chance.randint(0, len(held)))]
            actions = [Action.RELEASE if chance.random() < 0.2 else Action.COMPLETE for _ in some]
            ends = [
                Settlement(job.id, job.fence, action, b"") for job, action in zip(some, actions, strict=True)
            ]
            claimed = (await store.exchange("q", "w", ends, chance.randint(1, 12), 60_000)).jobs
            order += [job.id for job in claimed] + [""]
            held += claimed
            if chance.random() < 0.5:
                await moved(chance, store)
        seen.append(order)
    assert seen[0] == seen[1]
    assert await breaches(storage) == []
    await memory.close()


@pytest.mark.parametrize("weight", [1, 3])
async def test_an_answer_that_becomes_large_leaves_turns_as_they_are(
    storage: RedisStorage, weight: int
) -> None:
    memory = MemoryStorage()
    await memory.open()
    jobs = [
        NewJob(f"{n}", b"x" * (10 if n < 60 else 150_000), group=f"g{n % 20}", weight=weight)
        for n in range(120)
    ]
    seen: list[list[str]] = []
    for store in (memory, storage):
        await store.insert("q", jobs)
        order: list[str] = []
        while claimed := (await store.exchange("q", "w", [], 100, 60_000)).jobs:
            order += [job.id for job in claimed]
        seen.append(order)
        assert len(order) == len(jobs)
    assert seen[0] == seen[1]
    assert await breaches(storage) == []
    await memory.close()


@pytest.mark.parametrize("groups", [0, 1, 20])
@pytest.mark.parametrize("priority", [0, 3])
async def test_an_answer_is_bounded_where_large_jobs_follow_small_ones(
    storage: RedisStorage, groups: int, priority: int
) -> None:
    size, most = 100_000, 1 << 20
    jobs = [
        NewJob(
            f"{n:03}",
            b"x" * (size if n >= 100 else 10),
            group=f"g{n % groups}" if groups else "",
            priority=priority,
        )
        for n in range(200)
    ]
    await storage.insert("q", jobs)
    claimed: list[str] = []
    while some := (await storage.exchange("q", "w", [], 300, 60_000)).jobs:
        claimed += [job.id for job in some]
        assert sum(len(job.payload) for job in some) < most + size
    assert claimed == [job.id for job in jobs]
    assert await breaches(storage) == []


@pytest.mark.parametrize("group", ["", "g"])
async def test_few_large_jobs_are_read_together_where_only_small_ones_were_known(
    server: Server, storage: RedisStorage, group: str
) -> None:
    await storage.insert("q", [NewJob(f"small-{n}", b"x", group=group) for n in range(128)])
    assert len((await storage.exchange("q", "w", [], 128, 60_000)).jobs) == 128
    await storage.insert("q", [NewJob(f"{n}", b"x" * (1 << 20), group=group) for n in range(100)])
    assert (await storage.exchange("q", "w", [], 128, 60_000)).jobs
    told = str(server.command("INFO", "memory"))
    (used,) = {int(size) for size in re.findall(r"used_memory_lua:(\d+)", told)}
    assert used < 40 << 20
