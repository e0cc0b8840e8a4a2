"""Connections that are ended or freeze, and rows that others have locked: calls are made again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jobqueue import Job, Queue, Reaper
from jobqueue.errors import StorageUnavailableError
from jobqueue.storage.postgres import PostgresStorage, listener
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import NewJob
from jobqueue.testing.contract.support import Box
from tests.storage.postgres.server import PostgresServer, shared_postgres
from tests.storage.postgres.support import connection, empty_schema, postgres_storage
from tests.storage.redis.proxy import chaos_proxy

BOUND = 60.0


async def test_connections_of_every_kind_are_ended_again_and_again() -> None:
    """Those for calls, notifications, the leases of a worker, transactions of runs, and a reaper."""
    server = await asyncio.to_thread(lambda: PostgresServer().start())
    try:
        storage = PostgresStorage(server.url, retry_for=BOUND)
        await storage.apply_schema()
        worker = Queue[Any, int](storage, name="q", visibility_timeout=2.0, concurrency=4)
        producer = Queue[Any, int](storage.clone(), name="q")
        ended = 0

        @worker.execute
        async def run(job: Job[Any]) -> int:
            await asyncio.sleep(0.2)
            async with job.transaction() as inside:
                return int(await inside.fetchval("select $1::int", job.payload))

        async def end_all() -> None:
            nonlocal ended
            async with connection(server.url) as admin:
                while True:
                    ended += await admin.fetchval(
                        "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity"
                        " where application_name = 'jobqueue'"
                    )
                    await asyncio.sleep(0.4)

        async with asyncio.timeout(2 * BOUND), worker, producer, Reaper(storage.clone(), sweep_interval=0.3):
            ending = asyncio.create_task(end_all())
            for turn in range(4):
                calls = (producer.enqueue_and_wait(f"{turn}-{n}", n, timeout=BOUND) for n in range(4))
                assert await asyncio.gather(*calls) == list(range(4))
            ending.cancel()
            assert await producer.enqueue_and_wait("last", 1, timeout=BOUND) == 1
        assert ended > 10
        assert await storage.check() == []
    finally:
        server.remove()


def test_a_connection_that_hears_nothing_is_given_up_within_ten_seconds() -> None:
    assert listener.BEAT + listener.HEARD_WITHIN < 10.0


async def test_a_connection_that_is_half_open_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "BEAT", 0.3)
    monkeypatch.setattr(
        listener, "TRY_AGAIN", 1.0
    )  # if this machine is so slow that nothing was heard in time
    server = shared_postgres()
    async with empty_schema() as schema, chaos_proxy(server.port) as proxy:
        store = PostgresStorage(server.url.replace(f":{server.port}", f":{proxy.port}"), schema)
        async with connection() as admin, asyncio.timeout(BOUND):
            await store.open()
            box = Box()
            await store.subscribe("q", "me", box)
            heard = box.resyncs
            for port in await _listening(admin):
                proxy.freeze(port)
            while box.resyncs == heard:
                await asyncio.sleep(0.02)
            for n in range(100):
                await store.insert("q", [NewJob(f"{n}", b"", wait=True)], reply_to="me")
                await store.cancel("q", [f"{n}"])
                await asyncio.sleep(0.2)
                if box.replies:
                    break
            assert box.replies
            await store.close()


async def _listening(admin: Any) -> list[int]:
    """Return the ports of the connections that listen, as the server sees them."""
    return [
        row[0]
        for row in await admin.fetch(
            "select client_port from pg_stat_activity"
            " where application_name = 'jobqueue' and query ilike 'listen%'"
        )
    ]


async def test_a_deadlock_with_somebody_else_is_resolved() -> None:
    async with postgres_storage(lock_timeout=30.0, retry_for=BOUND) as store, connection() as other:
        await store.open()
        await store.insert("q", [NewJob("a", b""), NewJob("b", b"")])
        table = f"{quoted(store._settings.schema)}.ready"
        await other.execute("set deadlock_timeout = '60s'")  # so that it is ours that is noticed and undone
        async with asyncio.timeout(BOUND), other.transaction():
            await other.execute(f"select from {table} where id = 'b' for update")
            cancelling = asyncio.create_task(store.cancel("q", ["a", "b"]))
            async with connection() as admin:
                while not await admin.fetchval("select count(*) from pg_locks where not granted"):
                    await asyncio.sleep(0.01)
            await other.execute(
                f"select from {table} where id = 'a' for update"
            )  # now each waits for the other
            assert not cancelling.done()
        assert await asyncio.wait_for(cancelling, BOUND) == ["cancelled", "cancelled"]
        assert await store.check() == []
        await store.close()


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_conflict_in_a_strict_transaction_is_the_callers_to_repeat(isolation: Any) -> None:
    async with postgres_storage(lock_timeout=0.3) as store, connection() as mine:
        await store.open()
        await store.insert("q", [NewJob("there", b"")])
        async with mine.transaction(isolation=isolation):
            await mine.fetch("select 1 from pg_class limit 1")  # its view of the data begins
            await store.insert("q", [NewJob("a", b"")])
            with pytest.raises(StorageUnavailableError):
                await store.inside(mine).insert("q", [NewJob("a", b"")])
            await store.inside(mine).insert("q", [NewJob("b", b"")])
        assert [one is not None for one in await store.get("q", ["a", "b"])] == [True, True]
        await store.close()


async def test_work_that_takes_long_for_a_lock_does_not_keep_others_waiting() -> None:
    """Rows that an operator has locked are left out by claims, and their jobs run when they are free."""
    async with postgres_storage() as store, connection() as other:
        queue, ran = Queue[Any, str](store, name="q"), list[str]()
        queue.execute(lambda job: ran.append(job.id) or job.id)
        await store.open()
        await store.insert("q", [NewJob(id, b"null") for id in "abc"])
        async with asyncio.timeout(BOUND):
            async with other.transaction():
                await other.execute(
                    f"select from {quoted(store._settings.schema)}.ready where id = 'b' for update"
                )
                async with queue:
                    began = time.monotonic()
                    assert await queue.enqueue_and_wait("d", None, timeout=BOUND) == "d"
                    assert time.monotonic() - began < BOUND / 2
                assert sorted(ran) == ["a", "c", "d"]
            async with Queue[Any, str](store, name="q") as again:
                again.execute(lambda job: job.id)
                assert await again.wait("b", timeout=BOUND) == "b"
        await store.close()
