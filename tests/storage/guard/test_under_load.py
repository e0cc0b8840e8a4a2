"""Servers are killed, wiped, paused and refuse to write while jobs are made and run: none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jobqueue import StorageUnavailableError
from jobqueue.storage.guard import GuardedStorage, PostgresLedger, outbox
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.guard.load import Load
from tests.storage.postgres.server import PostgresServer
from tests.storage.postgres.support import connection


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "AGAIN", 0.1)


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
