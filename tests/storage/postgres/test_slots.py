"""Slots take turns and are emptied, and no job is lost, seen twice or told to be lost by that."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.turns import Turns
from jobqueue.storage.values import (
    CancelStatus,
    Claimed,
    InsertStatus,
    LeaseStatus,
    NewJob,
    Renewal,
    SettleStatus,
)
from tests.storage.postgres.support import connection, postgres_storage

TABLES = ("ready", "lease")


@asynccontextmanager
async def opened() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage() as store:
        await store.open()
        try:
            yield store
        finally:
            await store.close()


def jobs(*ids: str, **options: int) -> list[NewJob]:
    return [NewJob(id, b"x", **options) for id in ids]


def complete(job: Claimed) -> Settlement:
    return Settlement(job.id, job.fence, Action.COMPLETE, b"true", 60_000)


async def claim(store: PostgresStorage, limit: int = 100) -> list[Claimed]:
    return list((await store.exchange("q", "w", [], limit, 60_000)).jobs)


async def look(store: PostgresStorage, table: str, size: int = 1) -> str:
    """Have the slots of a table take turns as soon as they have a row, and however short ago they did."""
    async with connection() as admin:
        sequence = f"{quoted(store._settings.schema)}.{table}_next"
        await admin.execute("select setval($1::regclass, 0)", sequence)
    return await store._open_session().statements.take_turn(table, size)


async def turn(store: PostgresStorage, wanted: str, table: str = "ready", size: int = 1) -> None:
    """Look until this comes of it: autovacuum may have locked a slot, and counters come a moment later."""
    found = ""
    async with asyncio.timeout(60):
        while found != wanted:
            found = await look(store, table, size)
            await asyncio.sleep(0.05 if found != wanted else 0)


async def sizes(store: PostgresStorage, table: str) -> list[int]:
    async with connection() as admin:
        return [
            await admin.fetchval(
                "select pg_relation_size($1::regclass)", f"{quoted(store._settings.schema)}.{table}_{slot}"
            )
            for slot in (0, 1)
        ]


async def test_jobs_that_stay_move_on_and_keep_their_order_and_their_leases() -> None:
    async with opened() as store:
        await store.insert("q", jobs("a", "b", "c", "d"))
        await store.insert("q", jobs("first", priority=5))
        first, a = await claim(store, 2)
        for table in TABLES:
            await turn(store, "turned", table)
        await store.insert("q", jobs("e"))
        for table in TABLES:
            await turn(store, "emptied", table, 1 << 30)
        assert min(await sizes(store, "ready")) == 0 == min(await sizes(store, "lease"))
        assert (await store.extend("q", "w", [Renewal(a.id, a.fence)], 60_000)) == [LeaseStatus.HELD]
        answer = await store.exchange("q", "w", [complete(first), complete(a)], 100, 60_000)
        assert answer.settled == [SettleStatus.ACCEPTED] * 2
        assert [job.id for job in answer.jobs] == ["b", "c", "d", "e"]
        assert await store.check() == []


async def test_many_jobs_that_wait_keep_their_slot() -> None:
    async with opened() as store:
        await store.insert("q", jobs(*(str(n) for n in range(1_200))))
        await turn(store, "turned")
        await store.insert("q", jobs("last"))
        assert await look(store, "ready") == "full"
        assert len(await claim(store, 1_000)) == 1_000
        await turn(store, "turned")
        assert [job.id for job in await claim(store, 1_000)] == [
            *(str(n) for n in range(1_000, 1_200)),
            "last",
        ]


async def test_a_slot_that_somebody_has_locked_stays_and_nobody_waits() -> None:
    async with opened() as store, connection() as admin:
        await store.insert("q", jobs("a"))
        await turn(store, "turned")
        async with admin.transaction():
            await admin.execute(f"select 1 from {quoted(store._settings.schema)}.ready")
            assert await look(store, "ready") == "busy"
            assert await store._open_session().statements.take_turn("ready", 1) == "early"
            assert [job.id for job in await claim(store)] == ["a"]
        await store.insert("q", jobs("b"))
        await turn(store, "turned")


async def test_a_transaction_that_is_open_elsewhere_keeps_no_dead_rows() -> None:
    async with opened() as store, connection() as admin, admin.transaction(isolation="repeatable_read"):
        await admin.execute("select pg_current_xact_id(), (select count(*) from pg_class)")
        largest = 0
        for number in range(20):
            await store.insert("q", jobs(*(f"{number}-{n}" for n in range(200))))
            claimed = await claim(store, 200)
            assert len(claimed) == 200
            await store.exchange("q", "w", [complete(job) for job in claimed], 0, 60_000)
            for table in TABLES:
                await look(store, table, 40_000)
            largest = max(largest, *await sizes(store, "ready"), *await sizes(store, "lease"))
        assert (await store.counts("q")).completed == 4_000
        assert largest < 400_000  # of which 4,000 rows take far more


async def test_what_a_transaction_has_inserted_is_found_when_it_commits_late() -> None:
    async with opened() as store, connection() as admin:
        await store.insert("q", jobs("early"))
        assert [job.id for job in await claim(store)] == ["early"]
        async with admin.transaction():
            await store.inside(admin).insert("q", jobs("late", "later"))
            await store.inside(admin).insert("q", jobs("urgent", priority=3))
            await store.insert("q", jobs("other"))
            assert [job.id for job in await claim(store)] == ["other"]
            for _ in range(4):
                for table in TABLES:
                    await look(store, table)
            # As if claims had gone past it for long.
            store._open_session().statements.lines("q")._floors[0] = 2**62
        found: list[Claimed] = []
        while len(found) < 3:
            assert await store.wait_for_work("q", "w", 10.0)
            found += await claim(store)
        assert {job.id for job in found} == {"late", "later", "urgent"}
        assert await store.check() == []


async def test_a_transaction_with_an_older_snapshot_takes_a_job_for_waiting() -> None:
    async with opened() as store, connection() as admin:
        await store.insert("q", jobs("a"))
        async with admin.transaction(isolation="repeatable_read"):
            await admin.execute("select count(*) from pg_class")
            (job,) = await claim(store)
            await store.exchange("q", "w", [complete(job)], 0, 60_000)
            for _ in range(2):
                for table in TABLES:
                    await look(store, table)
            (found,) = await store.inside(admin).insert("q", jobs("a"))
            assert found.status is InsertStatus.FOUND
            assert (found.seq, found.state) == (job.seq, JobState.QUEUED)


async def test_nothing_is_lost_while_slots_take_turns_all_the_time() -> None:
    """Workers settle, retry, release and extend; producers insert, also in transactions, and cancel."""
    ended: Counter[str] = Counter()
    made: set[str] = set()
    cancelled: set[str] = set()
    chosen = random.Random(5)
    async with opened() as store:
        producing = 3

        async def produce(name: str) -> None:
            nonlocal producing
            async with connection() as mine:
                for number in range(25):
                    ids = [f"{name}-{number}-{n}" for n in range(8)]
                    options = {"priority": chosen.choice([0, 0, 3]), "delay": chosen.choice([0, 0, 30])}
                    if number % 3:
                        await store.insert("q", jobs(*ids, **options))
                    else:
                        async with mine.transaction():
                            await store.inside(mine).insert("q", jobs(*ids, **options))
                            await asyncio.sleep(0.02)
                    made.update(ids)
                    (status,) = await store.cancel("q", ids[:1])
                    if status is CancelStatus.CANCELLED:
                        cancelled.add(ids[0])
            producing -= 1

        async def work(name: str) -> None:
            settlements: list[Settlement] = []
            while True:
                answer = await store.exchange("q", name, settlements, 10, 60_000)
                assert set(answer.settled) <= {SettleStatus.ACCEPTED}
                settlements = []
                held = await store.extend(
                    "q", name, [Renewal(job.id, job.fence) for job in answer.jobs], 60_000
                )
                assert set(held) <= {LeaseStatus.HELD}
                for job in answer.jobs:
                    action = (
                        Action.COMPLETE
                        if job.attempts > 1
                        else chosen.choice([Action.COMPLETE, Action.RETRY, Action.RELEASE])
                    )
                    if action is Action.COMPLETE:
                        ended[job.id] += 1
                    settlements.append(Settlement(job.id, job.fence, action, b"{}", 60_000, 10, b"{}"))
                if not settlements:
                    if not producing and len(ended) + len(cancelled) == len(made):
                        return
                    await store.wait_for_work("q", name, 0.2)

        async def take_turns() -> None:
            while True:
                for table in TABLES:
                    results[await look(store, table)] += 1

        results: Counter[str] = Counter()
        turning = asyncio.create_task(take_turns())
        async with asyncio.timeout(120):
            await asyncio.gather(*(produce(f"p{n}") for n in range(3)), *(work(f"w{n}") for n in range(3)))
        turning.cancel()
        await asyncio.wait([turning])
        assert results["turned"] > 0
        assert set(ended.values()) == {1}
        assert not cancelled & set(ended)
        assert await store.check() == []
        counts = await store.counts("q")
        assert (counts.completed, counts.cancelled) == (len(ended), len(cancelled))


def test_a_store_looks_when_it_has_moved_many_rows_and_not_too_often() -> None:
    turns = Turns()
    assert not turns.due(499, 0.0)
    assert turns.due(1, 0.0)
    assert not turns.due(10_000, 0.4)
    assert turns.due(0, 0.5)
    assert not turns.due(0, 9.0)
