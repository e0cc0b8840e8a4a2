"""An arq pool that is guarded, with arq's own worker.

arq 0.28 asks for an older redis-py than jobqueue, so that both are only installed together against its word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobqueue import InvalidArgumentError, PostgresLedger, StorageError
from jobqueue.guard.arq import guard
from jobqueue.storage.postgres.migrations import quoted
from tests.guard.jobs import triple
from tests.services import Server
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection

arq: Any = pytest.importorskip("arq")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its use of redis-py


@pytest.fixture
async def pool(redis: Server, schema: str) -> AsyncIterator[Any]:
    settings = arq.connections.RedisSettings(port=redis.port)
    plain = await arq.create_pool(settings)
    guarded = guard(plain, PostgresLedger(postgres_url(), schema), interval=0.1)
    yield guarded
    await guarded.guard.close()
    await plain.aclose()


async def work(redis: Server) -> None:
    settings = arq.connections.RedisSettings(port=redis.port)
    functions = [arq.func(triple, name="triple")]
    worker = arq.Worker(
        functions,
        redis_settings=settings,
        burst=True,
        max_burst_jobs=1,
        poll_delay=0.05,
        handle_signals=False,
    )
    await worker.main()
    await worker.close()


async def events(pool: Any, id: str) -> list[str]:
    return [event.event for event in await pool.guard.history(id)]


async def has(pool: Any, id: str, event: str) -> None:
    async with asyncio.timeout(15):
        while event not in await events(pool, id):
            await asyncio.sleep(0.05)


async def test_lost_jobs_are_enqueued_again_under_their_ids_and_run(pool: Any, redis: Server) -> None:
    done = await pool.enqueue_job("triple", 1)
    await work(redis)
    assert await done.result(timeout=5) == 3
    await has(pool, done.job_id, "completed")
    waits = await pool.enqueue_job("triple", 5, _job_id="waits")
    await pool.enqueue_job("triple", 6, _job_id="later", _defer_by=3600)
    assert await pool.enqueue_job("triple", 7, _job_id="waits") is None, "its id is taken"
    redis.command("FLUSHALL")
    await has(pool, "waits", "requeued")
    await has(pool, "later", "requeued")
    await work(redis)
    assert await waits.result(timeout=5) == 15
    await has(pool, "waits", "completed")
    assert await arq.jobs.Job("later", pool).status() == arq.jobs.JobStatus.deferred
    assert await arq.jobs.Job(done.job_id, pool).status() == arq.jobs.JobStatus.not_found
    assert [event.event for event in await pool.guard.history("waits")].count("enqueued") == 1


async def test_what_cannot_be_guarded_is_refused(pool: Any, schema: str) -> None:
    with pytest.raises(InvalidArgumentError, match="_queue_name"):
        await pool.enqueue_job("triple", 1, _queue_name="other")
    with pytest.raises(InvalidArgumentError, match="pool"):
        guard(object(), PostgresLedger(postgres_url(), schema))


async def test_a_process_that_starts_after_a_loss_brings_jobs_back(
    pool: Any, redis: Server, schema: str
) -> None:
    await pool.enqueue_job("triple", 5, _job_id="a")
    await pool.guard.reconcile()
    await pool.guard.close()
    with pytest.raises(StorageError, match="closed"):
        await pool.enqueue_job("triple", 6, _job_id="unguarded")
    redis.command("FLUSHALL")
    later = guard(pool, PostgresLedger(postgres_url(), schema), interval=0.1)
    await later.guard.start()
    assert (await later.guard.reconcile()).requeued == 1
    await work(redis)
    await has(later, "a", "completed")
    await later.guard.close()


@pytest.mark.parametrize("payload", [b"", b"short", b"\xff" * 40])
async def test_a_row_that_was_edited_by_hand_holds_up_no_other(
    pool: Any, redis: Server, schema: str, payload: bytes
) -> None:
    for id in ("a", "edited", "z"):
        await pool.enqueue_job("triple", 5, _job_id=id)
    await pool.guard.reconcile()
    async with connection() as admin:
        await admin.execute(f"update {quoted(schema)}.job set payload = $1 where id = 'edited'", payload)
    redis.command("FLUSHALL")
    async with asyncio.timeout(15):
        while sorted(job.job_id for job in await pool.queued_jobs()) != ["a", "z"]:
            await asyncio.sleep(0.05)
    assert (await pool.guard.reconcile()).requeued == 0


async def test_the_pool_of_the_guide_is_guarded(redis: Server, schema: str) -> None:
    """The lines of the guide, with a pool of these tests."""
    plain = await arq.create_pool(arq.connections.RedisSettings(port=redis.port))
    guarded = guard(plain, PostgresLedger(postgres_url(), schema))
    await guarded.enqueue_job("hello")
    await guarded.guard.close()
    assert len(await plain.queued_jobs()) == 1
    await plain.aclose()
