"""Servers are killed, wiped, paused and refuse to write while jobs are made and run: none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from jobqueue import Job, JobQueueError, Queue, Reaper, StorageUnavailableError
from jobqueue.storage.guard import GuardedStorage, PostgresLedger, outbox
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.guard.support import EMPTY
from tests.storage.postgres.server import PostgresServer
from tests.storage.postgres.support import connection

CALLERS = 8
ENDS_WITHIN = 40.0


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    made = PostgresServer(settings={"synchronous_commit": "on", "full_page_writes": "on"}).create()
    made.start()
    yield made
    made.remove()


@pytest.fixture
async def postgres(database: PostgresServer) -> AsyncIterator[PostgresServer]:
    """A PostgreSQL of these tests' own, with an empty ledger."""
    if database.process is None:
        database.start()
    await PostgresLedger(database.url).apply_schema()
    async with connection(database.url) as admin:
        await admin.execute(EMPTY.format(s="jobqueue_ledger"))
    yield database
    if database.process is None:
        database.start()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "AGAIN", 0.1)


class Load:
    """Callers that enqueue, a worker that runs, and whoever compares."""

    def __init__(self, redis: Server, postgres: PostgresServer) -> None:
        self._redis = redis
        self._postgres = postgres
        self.enqueued: list[str] = []
        """Jobs whose enqueue has returned."""
        self.ran: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def store(self) -> GuardedStorage:
        """Return a store on both servers."""
        ledger = PostgresLedger(self._postgres.url, retry_for=0.1, connect_timeout=1.0, statement_timeout=1.0)
        redis = RedisStorage(self._redis.url)
        return GuardedStorage(redis, ledger, interval=1.0, breaker_failures=2, breaker_reset=0.3)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Have jobs made and run; in the end all of them have to have run."""
        worker: Queue[Any, Any] = Queue(self.store(), "q", concurrency=8, visibility_timeout=2.0)

        @worker.execute
        async def handle(job: Job[Any]) -> None:
            await asyncio.sleep(0.005)
            self.ran[job.id] += 1

        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(Queue[Any, Any](self.store(), "q"))
            await stack.enter_async_context(worker)
            await stack.enter_async_context(Reaper(self.store(), sweep_interval=0.2))
            callers = [asyncio.create_task(self._call(producer, n)) for n in range(CALLERS)]
            await self.more(100)
            yield
            await self.more(100)
            self._stopping.set()
            await asyncio.gather(*callers)
            async with asyncio.timeout(ENDS_WITHIN):
                while any(not self.ran[id] for id in self.enqueued):
                    await asyncio.sleep(0.05)
                while not await self._all_completed():
                    await asyncio.sleep(0.1)

    async def _call(self, queue: Queue[Any, Any], caller: int) -> None:
        number = 0
        while not self._stopping.is_set():
            id = f"{caller}-{number}"
            try:
                await queue.enqueue(id, number)
            except JobQueueError:
                await asyncio.sleep(0.05)  # again, under the same id
                continue
            self.enqueued.append(id)
            number += 1
            await asyncio.sleep(0.01)

    async def more(self, jobs: int) -> None:
        """Wait until so many more jobs have been enqueued."""
        until = len(self.enqueued) + jobs
        async with asyncio.timeout(ENDS_WITHIN):
            while len(self.enqueued) < until:
                await asyncio.sleep(0.01)

    async def _all_completed(self) -> bool:
        async with connection(self._postgres.url) as admin:
            rows = await admin.fetch("select id, state from jobqueue_ledger.job where state <> 8")
        states = {row["id"]: row["state"] for row in rows}
        return all(states.get(id) == 5 for id in self.enqueued)


async def test_redis_is_killed_and_wiped_again_and_again(redis: Server, postgres: PostgresServer) -> None:
    load = Load(redis, postgres)
    async with load.going_on():
        for _ in range(6):
            redis.kill()
            await asyncio.sleep(0.05)
            redis.start()
            await load.more(60)


async def terminated(postgres: PostgresServer, _load: Load) -> None:
    for _ in range(5):
        async with connection(postgres.url) as admin:
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
        await asyncio.sleep(0.1)


async def killed(postgres: PostgresServer, load: Load) -> None:
    postgres.kill()
    await load.more(50)
    await asyncio.to_thread(postgres.start)


async def paused(postgres: PostgresServer, load: Load) -> None:
    postgres.pause()
    await load.more(50)
    postgres.resume()


async def full(postgres: PostgresServer, load: Load) -> None:
    """Have the server say what it says when its disk is full."""
    async with connection(postgres.url) as admin:
        await admin.execute(
            "create function jobqueue_ledger.full() returns trigger language plpgsql as"
            " $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$;"
            "create trigger full_disk before insert or update on jobqueue_ledger.job"
            " for each row execute function jobqueue_ledger.full()"
        )
        await load.more(50)
        await admin.execute("drop function jobqueue_ledger.full() cascade")


@pytest.mark.parametrize("fault", [terminated, killed, paused, full])
async def test_postgresql_is_away_and_then_redis_is_wiped(
    redis: Server, postgres: PostgresServer, fault: Callable[[PostgresServer, Load], Awaitable[None]]
) -> None:
    load = Load(redis, postgres)
    async with load.going_on():
        await fault(postgres, load)
        redis.kill()
        redis.start()


async def test_both_are_killed(redis: Server, postgres: PostgresServer) -> None:
    load = Load(redis, postgres)
    async with load.going_on():
        postgres.kill()
        redis.kill()
        store = GuardedStorage(
            RedisStorage(redis.url, retry_for=0.1), PostgresLedger(postgres.url, retry_for=0.0)
        )
        with pytest.raises(StorageUnavailableError):
            await store.open()
        await asyncio.to_thread(postgres.start)
        redis.start()


async def test_a_job_that_was_taken_without_the_ledger_survives_a_wipe(
    redis: Server, postgres: PostgresServer
) -> None:
    store = Load(redis, postgres).store()
    await store.open()
    postgres.kill()
    await store.insert("q", [NewJob("a", b"only in memory")])
    redis.kill()
    redis.start()
    await asyncio.to_thread(postgres.start)
    async with asyncio.timeout(20):
        while store.guard.buffered or store.guard.breaker != "closed":
            await asyncio.sleep(0.05)
    assert (await store.guard.reconcile()).requeued == 1
    assert [job.payload for job in (await store.exchange("q", "w", [], 9, 60_000)).jobs] == [
        b"only in memory"
    ]
    await store.close()
