"""Ids that another open transaction holds: who wants one waits, for a bounded time; nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from jobqueue import Queue
from jobqueue.errors import StorageUnavailableError
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import InsertStatus, NewJob, Reuse
from tests.storage.postgres.support import connection, postgres_storage

LIVELY = 4.0
"""Seconds that a call of somebody else may take on a machine that stalls. Waiting takes longer."""
LONG = 15.0


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage(lock_timeout=0.3) as store:
        await store.open()
        yield store
        await store.close()


@pytest_asyncio.fixture
async def other() -> AsyncIterator[asyncpg.Connection[Any]]:
    async with connection() as connected:
        yield connected


async def hold(storage: PostgresStorage, other: asyncpg.Connection[Any], *ids: str) -> None:
    """Enqueue ids in a transaction that is open."""
    await storage.inside(other).insert("q", [NewJob(id, b"theirs") for id in ids])


async def test_all_other_jobs_of_the_batch_exist_and_the_held_id_is_named(
    storage: PostgresStorage, other: asyncpg.Connection[Any]
) -> None:
    async with other.transaction():
        await hold(storage, other, "held", "too")
        batch = [NewJob(id, b"") for id in ("a", "held", "b", "too", "held", "c")]
        with pytest.raises(StorageUnavailableError, match="ids 'held', 'too' are held by a transaction"):
            await storage.insert("q", batch)
        assert [record and record.id for record in await storage.get("q", ["a", "b", "c"])] == ["a", "b", "c"]
        with pytest.raises(StorageUnavailableError, match="id 'held' is held"):
            await storage.insert("q", [NewJob("held", b"")])
        assert [job.id for job in (await storage.exchange("q", "w", (), 9, 1_000)).jobs] == ["a", "b", "c"]
    answers = await storage.insert("q", batch)
    assert {one.status for one in answers} == {InsertStatus.FOUND}
    assert await storage.check() == []


async def test_a_held_id_is_answered_when_the_transaction_ends(other: asyncpg.Connection[Any]) -> None:
    for ends, status in (("commit", InsertStatus.FOUND), ("rollback", InsertStatus.CREATED)):
        async with postgres_storage(lock_timeout=LONG) as storage:
            await storage.open()
            transaction = other.transaction()
            await transaction.start()
            await hold(storage, other, "held")
            waiting = asyncio.create_task(storage.insert("q", [NewJob("held", b""), NewJob("a", b"")]))
            async with asyncio.timeout(LONG):
                while (await storage.get("q", ["a"]))[0] is None:
                    await asyncio.sleep(0.01)
                assert not waiting.done()
                await getattr(transaction, ends)()
                assert [one.status for one in await waiting] == [status, InsertStatus.CREATED]
            await storage.close()


async def test_ids_whose_records_others_delete_or_lock_are_held_too(
    storage: PostgresStorage, other: asyncpg.Connection[Any]
) -> None:
    schema = quoted(storage._settings.schema)
    await storage.insert("q", [NewJob(id, b"") for id in ("deleted", "locked", "ready")])
    await storage.cancel("q", ["deleted", "locked"])
    async with other.transaction():
        await other.execute(f"delete from {schema}.job where id = 'deleted'")
        await other.execute(f"select from {schema}.job where id = 'locked' for update")
        await other.execute(f"select from {schema}.ready for update")
        rerun = [NewJob(id, b"", reuse=Reuse.RERUN, wait=True) for id in ("deleted", "locked", "ready", "a")]
        answers = await storage.insert_free("q", rerun, reply_to="me")
        assert [one and one.status for one in answers] == [None, None, None, InsertStatus.CREATED]


async def test_inside_of_a_transaction_the_others_exist_too(
    storage: PostgresStorage, other: asyncpg.Connection[Any]
) -> None:
    async with connection() as mine, other.transaction(), mine.transaction():
        await hold(storage, other, "held")
        batch = [NewJob(id, b"") for id in ("a", "held", "b")]
        with pytest.raises(StorageUnavailableError, match="id 'held' is held"):
            await storage.inside(mine).insert("q", batch)
    assert [record and record.id for record in await storage.get("q", ["a", "b"])] == ["a", "b"]


async def test_full_is_counted_without_those_that_are_held(
    storage: PostgresStorage, other: asyncpg.Connection[Any]
) -> None:
    async with other.transaction():
        await hold(storage, other, "held")
        answers = await storage.insert_free("q", [NewJob(id, b"") for id in ("held", "a", "b")], max_length=1)
        assert [one and one.status for one in answers] == [None, InsertStatus.CREATED, InsertStatus.FULL]


async def test_callers_that_share_a_batch_do_not_wait_for_the_id_of_one() -> None:
    async with postgres_storage(lock_timeout=LONG) as storage, connection() as other:
        async with Queue[Any, Any](storage, name="q") as queue, other.transaction():
            await hold(storage, other, "held")
            waiting = [asyncio.create_task(queue.enqueue("held", 1)) for _ in range(20)]
            longest = 0.0
            for turn in range(10):
                began = time.monotonic()
                await asyncio.gather(*(queue.enqueue(f"{turn}-{n}", 1) for n in range(20)))
                longest = max(longest, time.monotonic() - began)
                waiting.append(asyncio.create_task(queue.enqueue("held", 1)))
            assert longest < LIVELY
            assert not any(task.done() for task in waiting)
            await other.execute(f"delete from {quoted(storage._settings.schema)}.job")  # as if undone
        answers = await asyncio.gather(*waiting)
        assert [one.status for one in answers].count("queued") == 1
        assert len({one.seq for one in answers}) == 1


async def test_each_caller_waits_for_its_own_time_and_a_cancelled_one_no_more() -> None:
    async with postgres_storage(lock_timeout=1.0) as storage, connection() as other:
        async with Queue[Any, Any](storage, name="q") as queue, other.transaction():
            await hold(storage, other, "held")
            gone, *waiting = [asyncio.create_task(queue.enqueue("held", 1)) for _ in range(3)]
            await queue.enqueue("a", 1)
            gone.cancel()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert {str(one).partition(" held by")[0] for one in answers} == {"id 'held' is"}
            with pytest.raises(StorageUnavailableError, match="'held'"):
                await queue.enqueue_many([("b", 1), ("held", 1), ("c", 1)])
            assert [await queue.get_status(id) is None for id in "abc"] == [False] * 3
        assert gone.cancelled()


async def test_a_queue_that_stops_answers_those_who_wait() -> None:
    async with postgres_storage(lock_timeout=60.0) as storage, connection() as other, other.transaction():
        queue = Queue[Any, Any](storage, name="q")
        await queue.start()
        await hold(storage, other, "held")
        waiting = asyncio.create_task(queue.enqueue("held", 1))
        await queue.enqueue("a", 1)
        await queue.stop()
        with pytest.raises(StorageUnavailableError, match="'held'"):
            await waiting
