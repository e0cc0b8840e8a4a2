"""Enqueueing in a transaction of the caller: the job exists if and only if that commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from jobqueue import EnqueueRequest, JobState, Queue
from jobqueue.errors import InvalidArgumentError, QueueFullError, StorageUnavailableError, UnsupportedError
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.postgres import PostgresStorage
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import postgres_storage

Connect = Callable[[], AbstractAsyncContextManager[Any]]


class Undo(Exception):
    """Rolls a transaction back."""


@asynccontextmanager
async def by_asyncpg() -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(postgres_url())
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def by_asyncpg_pool() -> AsyncIterator[Any]:
    async with asyncpg.create_pool(postgres_url(), min_size=1) as pool, pool.acquire() as connection:
        yield connection


@asynccontextmanager
async def by_psycopg() -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(postgres_url(), autocommit=True) as connection:
        yield connection


@pytest.fixture(params=[by_asyncpg, by_asyncpg_pool, by_psycopg], ids=["asyncpg", "asyncpg-pool", "psycopg"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage(retry_for=8.0) as store:
        yield store


async def test_the_job_exists_if_and_only_if_the_transaction_commits(
    storage: PostgresStorage, connect: Connect
) -> None:
    async with Queue(storage, name="q") as queue, connect() as connection:
        async with connection.transaction():
            kept = await queue.enqueue("kept", {"a": 1}, connection=connection)
            assert (kept.status, kept.state) == ("queued", JobState.QUEUED)
            assert await queue.get_status("kept") is None
        with suppress(Undo):
            async with connection.transaction():
                some = await queue.enqueue_many(
                    [("undone", 1), EnqueueRequest("later", 2, delay=60.0)], connection=connection
                )
                assert [one.state for one in some] == [JobState.QUEUED, JobState.SCHEDULED]
                raise Undo
        assert await queue.get_status("kept") is not None
        assert [await queue.get_status(id) for id in ("undone", "later")] == [None, None]


async def test_an_id_is_known_inside_of_its_transaction_and_outside_after_it(
    storage: PostgresStorage, connect: Connect
) -> None:
    async with Queue[Any, Any](storage, name="q") as queue, connect() as connection:
        await queue.enqueue("live", 1)
        async with connection.transaction():
            first = await queue.enqueue("a", 1, connection=connection)
            again = await queue.enqueue("a", 2, connection=connection)
            live = await queue.enqueue("live", 2, connection=connection)
            twice = await queue.enqueue_many([("b", 1), ("b", 2)], connection=connection)
        statuses = [one.status for one in (first, again, live, *twice)]
        assert statuses == ["queued", "duplicate", "duplicate", "queued", "duplicate"]
        assert (await queue.enqueue("a", 3)).status == "duplicate"


async def test_an_ended_job_is_replayed_or_replaced_inside(storage: PostgresStorage) -> None:
    async with Queue[Any, Any](storage, name="q") as queue, by_asyncpg() as connection:
        queue.execute(lambda job: "x" * job.payload)
        await queue.enqueue_and_wait("small", 3)
        for id in ("large", "larger"):
            await queue.enqueue_and_wait(id, 700_000)
        async with connection.transaction():
            small, *large = await queue.enqueue_many(
                [("small", 0), ("large", 0), ("larger", 0)], connection=connection
            )
            rerun = await queue.enqueue("small", 5, reuse="rerun", connection=connection)
        assert (small.result, rerun.status) == ("xxx", "queued")
        assert [len(one.result) for one in large] == [700_000, 700_000]
        assert await queue.wait("small") == "xxxxx"


async def test_two_transactions_that_race_for_an_id_make_one_job(storage: PostgresStorage) -> None:
    async with Queue(storage, name="q") as queue, by_asyncpg() as one, by_psycopg() as other:
        for commits, expected in ((True, "duplicate"), (False, "queued")):
            id = f"race-{commits}"
            first = one.transaction()
            await first.start()
            await queue.enqueue(id, 1, connection=one)
            async with other.transaction():
                second = asyncio.create_task(queue.enqueue(id, 2, connection=other))
                await _until_it_waits(one)
                await (first.commit() if commits else first.rollback())
                assert (await second).status == expected
            record = await queue.get_status(id)
            assert record is not None


async def _until_it_waits(connection: asyncpg.Connection[Any]) -> None:
    async with asyncio.timeout(4.0):
        while not await connection.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.01)


async def test_an_id_that_a_transaction_holds_leaves_the_other_one_usable(connect: Connect) -> None:
    async with postgres_storage(lock_timeout=0.1) as storage, Queue(storage, name="q") as queue:
        async with by_asyncpg() as one, connect() as other, one.transaction(), other.transaction():
            await queue.enqueue("held", 1, connection=one)
            with pytest.raises(StorageUnavailableError, match="'held' is held"):
                await queue.enqueue("held", 2, connection=other)
            await queue.enqueue("free", 2, connection=other)
        assert await queue.get_status("free") is not None


async def test_workers_hear_of_it_after_the_commit(storage: PostgresStorage, connect: Connect) -> None:
    ran = asyncio.Event()
    async with Queue[Any, None](storage, name="q") as queue, connect() as connection:

        @queue.execute
        async def run(_job: Any) -> None:
            ran.set()

        async with connection.transaction():
            await queue.enqueue("a", 1, connection=connection)
            await queue.enqueue_and_wait("other", 1)
            ran.clear()
            assert (await queue.enqueue("b", 1, connection=connection)).status == "queued"
            assert not ran.is_set()
        async with asyncio.timeout(5):
            await queue.wait("a")
            await queue.wait("b")


async def test_what_commits_late_runs_although_the_line_has_moved_on(storage: PostgresStorage) -> None:
    async with Queue[Any, None](storage, name="q") as queue, by_asyncpg() as connection:
        queue.execute(lambda _job: None)
        async with connection.transaction():
            await queue.enqueue("late", 1, connection=connection)
            for n in range(50):
                await queue.enqueue_and_wait(f"{n}", 1)
            await asyncio.sleep(1.1)  # numbers rise by the clock: claims have passed by
            await queue.enqueue_and_wait("last", 1)
        async with asyncio.timeout(5):
            await queue.wait("late")


async def test_nobody_waits_for_a_transaction_that_has_enqueued(storage: PostgresStorage) -> None:
    async with Queue[Any, None](storage, name="new", max_length=100) as queue, by_asyncpg() as connection:
        queue.execute(lambda _job: None)
        async with connection.transaction():
            await queue.enqueue("a", 1, connection=connection)
            async with asyncio.timeout(4):
                for n in range(8):  # for long enough that numbers have to keep pace with the clock
                    await queue.enqueue_and_wait(f"{n}", 1)
                    await asyncio.sleep(0.3)


async def test_a_full_queue_refuses_inside_too(storage: PostgresStorage, connect: Connect) -> None:
    async with Queue(storage, name="q", max_length=2) as queue, connect() as connection:
        await queue.enqueue("a", 1)
        async with connection.transaction():
            await queue.enqueue("b", 1, connection=connection)
            with pytest.raises(QueueFullError):
                await queue.enqueue("c", 1, connection=connection)
        assert await queue.get_status("b") is not None


async def test_middleware_goes_around_it(storage: PostgresStorage) -> None:
    queue, seen = Queue[Any, Any](storage, name="q"), list[Any]()

    @queue.around_enqueue
    async def note(requests: Any, call_next: Any) -> Any:
        seen.extend(request.id for request in requests)
        return await call_next(requests)

    async with queue, by_asyncpg() as connection:
        with suppress(Undo):
            async with connection.transaction():
                await queue.enqueue("a", 1, connection=connection)
                await queue.enqueue_many([("b", 1)], connection=connection)
                raise Undo
        assert seen == ["a", "b"]
        assert await queue.get_status("a") is await queue.get_status("b") is None


async def test_a_connection_that_does_not_fit_is_refused(storage: PostgresStorage, connect: Connect) -> None:
    async with Queue(storage, name="q") as queue, connect() as connection:
        with pytest.raises(InvalidArgumentError, match="no open transaction"):
            await queue.enqueue("a", 1, connection=connection)
        with pytest.raises(InvalidArgumentError, match="asyncpg"):
            await queue.enqueue_many([("a", 1)], connection="postgresql://")
        assert await queue.get_status("a") is None


async def test_a_transaction_that_psycopg_begins_by_itself_will_do(storage: PostgresStorage) -> None:
    async with (
        Queue(storage, name="q") as queue,
        await psycopg.AsyncConnection.connect(postgres_url()) as connection,
    ):
        await queue.enqueue("a", 1, connection=connection)
        await connection.rollback()
        assert await queue.get_status("a") is None
        await queue.enqueue("a", 1, connection=connection)
        await connection.commit()
        assert await queue.get_status("a") is not None


async def test_other_stores_say_that_they_cannot() -> None:
    async with Queue(MemoryStorage(), name="q") as queue, by_asyncpg() as connection:
        with pytest.raises(UnsupportedError, match="Transactional"):
            await queue.enqueue_many([("a", 1)], connection=connection)
        with pytest.raises(UnsupportedError, match="Transactional"):
            await queue.enqueue("a", 1, connection=connection)
