"""Limits and groups in SQL: the numbers are those of Python, and what is kept of groups fits together."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from jobqueue import Limits, Queue, ReasonKind
from jobqueue.model.limits import Limit, Rate
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.rules import pack_rules
from jobqueue.storage.values import Claimed, Conflict, NewJob, Rules, Usage
from jobqueue.testing import FakeClock
from tests.model.limit_vectors import vectors
from tests.storage.postgres.support import connection, postgres_storage
from tests.support import within

VECTORS = 10_000
GOLDEN = """
select a.granted, a.tat, {s}.opens_at(l.running, l.pause, l.tolerance, t.held, a.tat)
from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    with ordinality t(stored, held, tat, now, want, n)
cross join lateral {s}.read_limit(t.stored::jsonb) l
cross join lateral {s}.admit(l.running, l.pause, l.tolerance, t.held, t.tat, t.now, t.want) a
order by t.n
"""
LEASE = 60_000


def schema_of(store: PostgresStorage) -> str:
    return quoted(store._settings.schema)


async def run(store: PostgresStorage, sql: str, *args: Any) -> list[Any]:
    """Run a statement on the tables of a store, whose schema is written as ``{s}``."""
    async with connection() as admin:
        return await admin.fetch(sql.replace("{s}", schema_of(store)), *args)


def done(run: Claimed) -> Settlement:
    return Settlement(run.id, run.fence, Action.COMPLETE, b"true", LEASE)


async def ids(store: PostgresStorage, count: int = 10) -> list[str]:
    return [job.id for job in (await store.exchange("q", "w", [], count, LEASE)).jobs]


async def test_sql_comes_to_the_numbers_of_python() -> None:
    cases = vectors(VECTORS)
    columns: list[list[Any]] = [
        [json.dumps(json.loads(pack_rules(Rules(queue=c.limit)) or "{}").get("queue", {})) for c in cases],
        [c.running for c in cases],
        [c.tat for c in cases],
        [c.now for c in cases],
        [c.want for c in cases],
    ]
    async with postgres_storage() as store:
        answers = await run(store, GOLDEN, *columns)
    assert len(answers) == VECTORS
    for case, answer in zip(cases, answers, strict=True):
        assert tuple(answer) == case[5:], case


@pytest.mark.parametrize(
    "rules",
    [
        '{"later":1}', '{"queue":{"later":1}}', '{"group":3}', '{"queue":{"rate":{"count":1}}}', "3", "null",
        '{"queue":{"running":0}}', '{"queue":{"running":1e400}}', '{"group":{"running":"3"}}',
        '{"group":{"rate":{"count":1.5,"per":1000,"burst":1}}}', '{"queue":null}',
        '{"group":{"rate":{"count":1,"per":1e15,"burst":1e15}}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("group", ["", "g"])
async def test_a_rule_that_a_function_does_not_know_closes_the_queue(rules: str, group: str) -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob("a", b"", group=group)])
        await run(store, "update {s}.queue set rules = $1::text::jsonb", rules)
        answer = await store.exchange("q", "w", [], 1, LEASE)
        assert (answer.jobs, answer.paused) == ([], True)
        await run(store, "update {s}.queue set rules = null")
        assert await ids(store) == ["a"]
        await store.close()


async def test_a_clock_that_is_set_back_keeps_no_group_waiting() -> None:
    clock = FakeClock()
    async with postgres_storage(clock) as store:
        await store.open()
        assert await store.set_rules("q", Rules(queue=Limit(rate=Rate(10)), group=Limit(rate=Rate(1))))
        await store.insert("q", [NewJob(f"{n}", b"", group="g") for n in range(2)])
        assert await ids(store) == ["0"]
        assert await ids(store) == []
        clock.step(-3_600)
        answer = await store.exchange("q", "w", [], 5, LEASE)
        assert answer.jobs == []
        assert answer.next_due is not None
        assert answer.next_due <= 1_001
        clock.move(1.1)
        assert await ids(store) == []
        clock.move(1.1)
        assert await ids(store) == ["1"]
        await store.close()


async def test_leases_from_before_a_limit_count() -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob(f"{n}", b"") for n in range(5)])
        assert len(await ids(store, 2)) == 2
        assert await store.set_rules("q", Rules(queue=Limit(running=3)))
        assert await store.usage("q", [""]) == [Usage(2, 0)]
        assert len(await ids(store)) == 1
        await store.close()


async def test_a_claim_that_is_cut_short_by_bytes_keeps_turns_and_rates() -> None:
    async with postgres_storage() as store:
        await store.open()
        assert await store.set_rules(
            "q", Rules(queue=Limit(rate=Rate(1, per=3_600.0, burst=9)), group=Limit(running=2))
        )
        large = b"x" * 400_000
        for group in "abc":
            await store.insert("q", [NewJob(f"{group}{n}", large, group=group) for n in range(3)])
        first = await store.exchange("q", "w", [], 9, LEASE)
        assert ([job.id for job in first.jobs], first.more) == (["a0", "b0"], True)
        second = await store.exchange("q", "w", [], 9, LEASE)
        assert ([job.id for job in second.jobs], second.more) == (["c0", "a1"], True)
        third = await store.exchange("q", "w", [], 9, LEASE)
        assert ([job.id for job in third.jobs], third.more) == (["b1", "c1"], False)
        answer = await store.exchange("q", "w", [done(job) for job in first.jobs], 9, LEASE)
        assert [job.id for job in answer.jobs] == ["a2", "b2"]
        assert await store.check() == []
        await store.close()


async def test_the_limit_that_is_in_the_way_is_named_with_the_instant_at_which_it_opens() -> None:
    clock = FakeClock()
    async with postgres_storage(clock) as store:
        hour = Rate(1, per=3600.0)
        async with Queue[int, None](
            store, "q", limits=Limits(running=2, group_rate=hour)
        ).producer() as queue:
            for id, group in (("a", "g"), ("b", "g"), ("c", ""), ("d", "")):
                await queue.enqueue(id, 1, group=group)
            assert await ids(store, 2) == ["c", "a"]
            reasons = (await queue.jobs.explain("d")).reasons
            assert ReasonKind.QUEUE_LIMIT in [one.kind for one in reasons]
            await queue.limits.set(running=5, group_rate=hour)
            reasons = (await queue.jobs.explain("b")).reasons
            (reason,) = [one for one in reasons if one.kind is ReasonKind.RATE]
            assert reason.until is not None
            assert 3599 < reason.until.timestamp() - clock.time() <= 3600
            assert (await queue.stats()).limits == Limits(running=5, group_rate=hour)


# -- transactions of a caller ----------------------------------------------------------------------


async def test_an_open_transaction_of_a_caller_holds_no_group() -> None:
    async with postgres_storage() as store, connection() as mine:
        await store.open()
        transaction = mine.transaction()
        await transaction.start()
        inside = store.inside(mine)
        await inside.insert("q", [NewJob("mine", b"", group="g"), NewJob("later", b"", group="h", delay=1)])
        await within(store.insert("q", [NewJob("a", b"", group="g"), NewJob("b", b"", group="new")]))
        assert await within(ids(store)) == ["a", "b"]
        await within(store.insert("q", [NewJob("c", b"", group="g")]))
        assert await within(ids(store)) == ["c"]
        assert await store.cancel("q", ["a"]) == ["processing"]
        await transaction.commit()
        assert sorted(await ids(store)) == ["later", "mine"]
        assert await store.check() == []
        await store.close()


async def test_what_a_caller_inserts_takes_turns_from_its_commit_on() -> None:
    async with postgres_storage() as store, connection() as mine:
        await store.open()
        async with mine.transaction():
            await store.inside(mine).insert("q", [NewJob(f"g{n}", b"", group="g") for n in range(3)])
        async with mine.transaction():
            await store.inside(mine).insert("q", [NewJob(f"h{n}", b"", group="h") for n in range(2)])
        assert (await store.counts("q")).queued == 5
        assert await store.cancel("q", ["h0"]) == ["cancelled"]
        assert await ids(store) == ["g0", "h1", "g1", "g2"]
        assert await store.check() == []
        await store.close()


async def test_a_job_that_a_caller_moves_to_another_group() -> None:
    async with postgres_storage() as store, connection() as mine:
        await store.open()
        await store.insert("q", [NewJob(f"{n}", b"", group="g") for n in range(2)])
        async with mine.transaction():
            moved = NewJob("0", b"new", group="h", conflict=Conflict.REPLACE)
            (answer,) = await store.inside(mine).insert("q", [moved])
            assert answer.status == "replaced"
            assert await within(ids(store)) == ["1"]
        (job,) = (await store.exchange("q", "w", [], 5, LEASE)).jobs
        assert (job.id, job.group, job.payload) == ("0", "h", b"new")
        assert await store.check() == []
        await store.close()


# -- races -----------------------------------------------------------------------------------------


async def test_no_job_is_lost_between_those_who_insert_claim_and_cancel() -> None:
    """Groups begin and end all the time: each job is claimed once or cancelled, and limits hold."""
    dice = random.Random(5)
    rules = Rules(queue=Limit(running=12), group=Limit(running=2))
    running: list[str] = []
    ended: set[str] = set()
    total = 360
    async with postgres_storage() as store:
        other = store.clone()
        await store.open()
        await other.open()
        assert await store.set_rules("q", rules)

        async def insert(part: int) -> None:
            for n in range(0, total, 12):
                jobs = [
                    NewJob(f"{n + at}", b"", group=f"g{dice.randrange(8)}", priority=dice.randrange(2))
                    for at in range(12)
                    if at % 3 == part
                ]
                await (store, other)[part % 2].insert("q", jobs)

        async def work(store: PostgresStorage, name: str) -> None:
            while len(ended) < total:
                jobs = (await store.exchange("q", name, [], 5, LEASE)).jobs
                running.extend(job.group for job in jobs)
                assert len(running) <= 12
                assert all(running.count(group) <= 2 for group in set(running))
                await asyncio.sleep(0.001)
                assert not ended & {job.id for job in jobs}
                ended.update(job.id for job in jobs)
                for job in jobs:  # counted here for no longer than in the store
                    running.remove(job.group)
                await store.exchange("q", name, [done(job) for job in jobs], 0, LEASE)

        async def cancel() -> None:
            while len(ended) < total:
                for id in dice.sample(range(total), 5):
                    if await other.cancel("q", [f"{id}"]) == ["cancelled"]:
                        if (record := (await other.get("q", [f"{id}"]))[0]) is not None:
                            assert record.state is JobState.CANCELLED
                        ended.add(f"{id}")
                await asyncio.sleep(0.002)

        workers = [work((store, other)[n % 2], f"w{n}") for n in range(4)]
        await asyncio.wait_for(asyncio.gather(*(insert(part) for part in range(3)), *workers, cancel()), 60)
        assert (await store.counts("q")).queued == 0
        assert await store.check() == []
        await store.purge("q", 10)
        assert await run(store, "select * from {s}.line where group_name <> ''") == []
        await other.close()
        await store.close()


# -- after foreign hands ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("delete from {s}.line", "takes no turns"),
        ("update {s}.line set opens = 9007199254740992", "has none"),
        ("update {s}.lease set counted = false", "not counted"),
        ("update {s}.lease set group_name = 'other'", "not counted"),
        ("update {s}.queue set grouped = false", "does not know of"),
        ("update {s}.ready set slot = 0 where group_name <> ''", "not that of its group"),
        ("update {s}.job set group_name = 'x' where id = 'b'", "another group"),
    ],
)
async def test_a_check_finds_what_does_not_fit_together(damage: str, found: str) -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob(id, b"", group=id) for id in "ab"])
        await store.insert("q", [NewJob("plain", b"")])
        assert await ids(store, 2) == ["plain", "a"]
        assert await store.check() == []
        await run(store, damage)
        assert found in " ".join(finding.text for finding in await store.check())
        await store.close()


async def test_lines_that_are_missing_are_made_again() -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob(id, b"", group=id) for id in "ab"])
        await run(store, "delete from {s}.line where group_name = 'a'")
        assert await ids(store) == ["b"]
        await run(store, "select {s}.mend('q')")
        assert await ids(store) == ["a"]
        assert await store.check() == []
        await store.close()
