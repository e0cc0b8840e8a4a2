"""`job.transaction()`: a handler's writes and the completion of its job commit together, or neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import Backoff, Job, JobFailedError, MaxRetriesError, Queue
from jobqueue.errors import UnsupportedError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import NewJob, SettleStatus
from jobqueue.testing import make_job
from tests.storage.postgres.support import connection, postgres_storage


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage() as store:
        yield store


@pytest_asyncio.fixture
async def table() -> AsyncIterator[str]:
    """A table of the user, in which each job may write one row."""
    async with connection() as admin:
        await admin.execute(
            "create table effect (id text, constraint once unique (id) deferrable initially deferred)"
        )
        yield "effect"
        await admin.execute("drop table effect")


class LosesAnswer:
    """A transaction whose commit is carried out, and not answered."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    async def commit(self) -> None:
        await self._transaction.commit()
        raise ConnectionResetError("the answer was lost")


async def effects() -> list[str]:
    async with connection() as admin:
        return [row[0] for row in await admin.fetch("select id from effect order by id")]


@pytest.mark.usefixtures("table")
async def test_what_the_handler_wrote_is_there_when_its_result_is(storage: PostgresStorage) -> None:
    queue, completed = Queue[int, int](storage, name="q", concurrency=20), list[str]()
    queue.on("completed", lambda event: completed.append(event.id))

    @queue.execute
    async def run(job: Job[int]) -> int:
        async with job.transaction() as conn:
            await conn.execute("insert into effect values ($1)", job.id)
        await asyncio.sleep(0)
        assert await effects_of(job.id) == 0  # stays open until the handler has returned
        return job.payload * 2

    async def effects_of(id: str) -> int:
        async with connection() as admin:
            return int(await admin.fetchval("select count(*) from effect where id = $1", id))

    async with queue:
        results = await asyncio.gather(*(queue.enqueue_and_wait(f"{n}", n) for n in range(12)))
        assert results == [n * 2 for n in range(12)]
        assert await effects() == sorted(f"{n}" for n in range(12))
        assert (await queue.get_status("3")).state == "completed"  # type: ignore[union-attr]
    assert sorted(completed) == sorted(f"{n}" for n in range(12))


@pytest.mark.usefixtures("table")
async def test_a_handler_that_raises_rolls_all_back(storage: PostgresStorage) -> None:
    queue = Queue[str, None](storage, name="q", max_attempts=1)

    @queue.execute
    async def run(job: Job[str]) -> None:
        if job.payload == "inside":
            async with job.transaction() as conn:
                await conn.execute("insert into effect values ($1)", job.id)
                raise ValueError("no")
        async with job.transaction() as conn:
            await conn.execute("insert into effect values ($1)", job.id)
        raise ValueError("no")

    async with queue:
        for payload in ("inside", "behind"):
            with pytest.raises(JobFailedError, match="no"):
                await queue.enqueue_and_wait(payload, payload)
    assert await effects() == []


@pytest.mark.usefixtures("table")
async def test_what_the_database_refuses_at_the_commit_fails_the_attempt(storage: PostgresStorage) -> None:
    queue, attempts = (
        Queue[None, None](storage, name="q", max_attempts=2, backoff=Backoff.fixed(0.01)),
        list[int](),
    )

    @queue.execute
    async def run(job: Job[None]) -> None:
        attempts.append(job.attempts)
        async with job.transaction() as conn:
            await conn.execute("insert into effect values ('same')")

    async with queue:
        await queue.enqueue_and_wait("a", None)
        with pytest.raises(MaxRetriesError, match="once"):
            await queue.enqueue_and_wait("b", None)
    assert (attempts, await effects()) == ([1, 1, 2], ["same"])


@pytest.mark.usefixtures("table")
async def test_a_run_that_lost_its_lease_writes_nothing_and_is_told(storage: PostgresStorage) -> None:
    queue, lost = Queue[None, str](storage, name="q", concurrency=2), asyncio.Event()
    fences: list[int] = []
    queue.on("stalled", lambda _event: lost.set())

    @queue.execute
    async def run(job: Job[None]) -> str:
        fences.append(job.fence)
        async with job.transaction() as conn:
            await conn.execute("insert into effect values ($1)", f"{job.id}-{job.fence}")
        if len(fences) == 1:
            name = quoted(storage._settings.schema)
            async with connection() as admin:  # it is taken away, as from a worker that was frozen
                await admin.execute(f"update {name}.lease set until = 0")
            await storage.sweep("q", 10)
            return "stale"
        return "fresh"

    async with queue:
        assert await queue.enqueue_and_wait("a", None) == "fresh"
        async with asyncio.timeout(5):
            await lost.wait()
    (effect,) = await effects()
    assert effect.endswith(f"-{fences[-1]}")


@pytest.mark.usefixtures("table")
async def test_a_run_that_was_cancelled_writes_nothing(storage: PostgresStorage) -> None:
    queue = Queue[None, None](storage, name="q")

    @queue.execute
    async def run(job: Job[None]) -> None:
        async with job.transaction() as conn:
            await conn.execute("insert into effect values ($1)", job.id)
            name = quoted(storage._settings.schema)
        async with connection() as admin:  # as if the request were still on its way here
            await admin.execute(f"update {name}.lease set cancelling = true")

    async with queue:
        await queue.enqueue("a", None)
        async with asyncio.timeout(5):
            while (status := await queue.get_status("a")) is None or status.state != "cancelled":
                await asyncio.sleep(0.02)
    assert await effects() == []


@pytest.mark.usefixtures("table")
async def test_a_connection_that_ends_rolls_back_and_the_job_runs_again(storage: PostgresStorage) -> None:
    queue = Queue[None, int](storage, name="q", max_attempts=3, backoff=Backoff.fixed(0.01))

    @queue.execute
    async def run(job: Job[None]) -> int:
        async with job.transaction() as conn:
            await conn.execute("insert into effect values ($1)", job.id)
            if job.attempts == 1:
                async with connection() as admin:
                    await admin.fetch("select pg_terminate_backend($1)", conn.get_server_pid())
        return job.attempts

    async with queue:
        assert await queue.enqueue_and_wait("a", None) == 2
    assert await effects() == ["a"]


@pytest.mark.usefixtures("table")
async def test_a_commit_whose_answer_is_lost_is_looked_up(storage: PostgresStorage) -> None:
    await storage.open()
    try:
        await storage.insert("q", [NewJob("a", b"")])
        (claimed,) = (await storage.exchange("q", "w", (), 1, 60_000)).jobs
        opened = await storage.begin()
        await opened.connection.execute("insert into effect values ('a')")
        opened._transaction = LosesAnswer(opened._transaction)  # type: ignore[assignment]
        done = Settlement("a", claimed.fence, Action.COMPLETE, b"r", 60_000)
        assert await opened.settle("q", done) is SettleStatus.ACCEPTED
    finally:
        await storage.close()
    assert await effects() == ["a"]


async def test_more_handlers_than_connections_take_turns(table: str) -> None:
    async with postgres_storage(pool_size=2) as storage:
        queue = Queue[None, None](storage, name="q", concurrency=12, visibility_timeout=3.0)

        @queue.execute
        async def run(job: Job[None]) -> None:
            async with job.transaction() as conn:
                await conn.execute(f"insert into {table} values ($1)", job.id)
                await asyncio.sleep(0.05)

        async with queue, asyncio.timeout(20):
            await asyncio.gather(*(queue.enqueue_and_wait(f"{n}", None) for n in range(12)))
    assert len(await effects()) == 12


async def test_settings_of_a_handler_stay_with_it(storage: PostgresStorage) -> None:
    queue = Queue[None, str](storage, name="q")

    @queue.execute
    async def run(job: Job[None]) -> str:
        async with job.transaction() as conn:
            found = await conn.fetchval(
                "select current_setting('search_path') || current_setting('lock_timeout')"
            )
            await conn.execute("set search_path = pg_temp; set lock_timeout = 1")
        return str(found)

    async with queue:
        assert await queue.enqueue_and_wait("a", None) == await queue.enqueue_and_wait("b", None)


async def test_a_second_transaction_and_other_stores_are_refused(storage: PostgresStorage) -> None:
    for store, message in ((storage, "already"), (MemoryStorage(), "Transactional")):
        queue = Queue[None, None](store, name="q", max_attempts=1)

        @queue.execute
        async def run(job: Job[None]) -> None:
            async with job.transaction(), job.transaction():
                pass

        async with queue:
            with pytest.raises(JobFailedError, match=message):
                await queue.enqueue_and_wait("a", None)
    with pytest.raises(UnsupportedError):
        make_job(None).transaction()
