"""Behind a pooler in transaction mode: nothing is heard, and all works, within a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import Job, Queue
from jobqueue.storage.findings import Severity
from jobqueue.storage.postgres import PostgresStorage, listener
from tests.storage.postgres.pooler import Pooler
from tests.storage.postgres.server import shared_postgres
from tests.storage.postgres.support import empty_schema

SETTINGS = {
    "refuses settings": {},
    "drops settings": {
        "ignore_startup_parameters": "extra_float_digits,statement_timeout,lock_timeout,jit,plan_cache_mode,"
        "idle_in_transaction_session_timeout"
    },
}


@pytest_asyncio.fixture(params=SETTINGS)
async def storage(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresStorage]:
    monkeypatch.setattr(listener, "HEARD_WITHIN", 0.5)
    pooler = await asyncio.to_thread(lambda: Pooler(shared_postgres(), **SETTINGS[request.param]).start())
    try:
        async with empty_schema() as schema:
            yield PostgresStorage(pooler.url, schema)
    finally:
        pooler.remove()


async def test_requests_are_answered(storage: PostgresStorage) -> None:
    worker, producer = (Queue[int, int](store, name="q") for store in (storage, storage.clone()))

    @worker.execute
    async def run(job: Job[int]) -> int:
        async with job.transaction() as connection:
            return int(await connection.fetchval("select $1::int + 1", job.payload))

    async with worker, producer, asyncio.timeout(30):
        for turn in range(2):
            calls = (producer.enqueue_and_wait(f"{turn}-{n}", n) for n in range(20))
            assert await asyncio.gather(*calls) == [n + 1 for n in range(20)]


async def test_many_stores_share_few_connections(storage: PostgresStorage) -> None:
    stores = [storage.clone() for _ in range(4)]
    queues = [Queue[Any, Any](store, name=f"q{n}") for n, store in enumerate(stores)]
    async with asyncio.timeout(30):
        for queue in queues:
            await queue.start()
        for _ in range(5):  # statements of one must not be carried out for another
            await asyncio.gather(*(queue.enqueue(f"{n}", n) for queue in queues for n in range(10)))
        counts = await asyncio.gather(*(store.counts(f"q{n}") for n, store in enumerate(stores)))
        assert [one.queued for one in counts] == [10] * 4
        for queue in queues:
            await queue.stop()


async def test_the_doctor_says_that_nothing_is_heard(storage: PostgresStorage) -> None:
    await storage.open()
    found = {finding.name: finding for finding in await storage.diagnose()}
    await storage.close()
    assert found["notifications"].severity is Severity.WARNING
    assert "pooler" in found["notifications"].text
