"""Who compares a queue of RQ or arq is killed at each thing that it sends, and the next one does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobqueue import PostgresLedger
from jobqueue.guard import arq as guard_of_arq
from jobqueue.guard import rq as guard_of_rq
from jobqueue.guard.foreign import ForeignGuard
from jobqueue.storage.postgres.migrations import quoted
from tests.guard.jobs import double, triple
from tests.services import Server
from tests.storage.guard.crash_points import PLACES, every_point
from tests.storage.guard.support import EMPTY, rows
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection

LOST = [f"lost-{n}" for n in range(6)]
COMPLETED = 5
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of arq's use of redis-py
]


@pytest.fixture(autouse=True)
def _nobody_looks_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have guards compare when they are told to only, so that the things they send can be counted."""

    async def idle(_guard: ForeignGuard) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ForeignGuard, "_run", idle)


async def empty(redis: Server, schema: str) -> None:
    redis.command("FLUSHALL")
    async with connection() as admin:
        await admin.execute(EMPTY.format(s=quoted(schema)))


def check_history(id: str, happened: list[str], point: str) -> None:
    """Check that a job ended once, and was enqueued again if it was lost."""
    assert happened[0] == "enqueued", (point, id, happened)
    assert happened.count("completed") == 1, (point, id, happened)
    assert ("requeued" in happened) == (id in LOST), (point, id, happened)


@pytest.mark.parametrize("place", PLACES)
def test_rq(redis: Server, schema: str, place: str) -> None:
    rq: Any = pytest.importorskip("rq")
    redis_py: Any = pytest.importorskip("redis")

    @asynccontextmanager
    async def queue() -> AsyncIterator[Any]:
        with redis_py.Redis(port=redis.port) as client:
            made = guard_of_rq.guard(rq.Queue(connection=client), PostgresLedger(postgres_url(), schema))
            yield made
            made.guard.close()

    def work(made: Any) -> None:
        rq.SimpleWorker([made], connection=made.connection).work(burst=True)

    async def prepare() -> None:
        """Lose jobs, and have one end of which the ledger has not heard."""
        await empty(redis, schema)
        async with queue() as made:
            for number, id in enumerate(LOST):
                made.enqueue(double, number, job_id=id)
            made.guard.reconcile()
            redis.command("FLUSHALL")
            made.enqueue(double, 0, job_id="ended")
            work(made)

    async def compare(begins: Callable[[], None]) -> None:
        async with queue() as made:
            made.guard.start()
            begins()
            made.guard.reconcile()

    async def check(point: str) -> None:
        async with queue() as made:
            made.guard.reconcile()
            assert made.job_ids == LOST, point
            work(made)
            assert [made.fetch_job(id).return_value() for id in LOST] == [0, 2, 4, 6, 8, 10], point
            made.guard.reconcile()
            assert sorted(await rows(schema)) == [(id, COMPLETED) for id in ["ended", *LOST]], point
            for id in ["ended", *LOST]:
                check_history(id, [event.event for event in made.guard.history(id)], point)
            assert made.guard.reconcile().compared == 0, point

    assert every_point(prepare, compare, check, place) >= 8


@pytest.mark.parametrize("place", PLACES)
def test_arq(redis: Server, schema: str, place: str) -> None:
    arq: Any = pytest.importorskip("arq")
    settings = arq.connections.RedisSettings(port=redis.port)

    @asynccontextmanager
    async def pool() -> AsyncIterator[Any]:
        plain = await arq.create_pool(settings)
        made = guard_of_arq.guard(plain, PostgresLedger(postgres_url(), schema))
        await made.guard.start()
        yield made
        await made.guard.close()
        await plain.aclose()

    async def work(jobs: int) -> None:
        worker = arq.Worker(
            [arq.func(triple, name="triple")],
            redis_settings=settings,
            burst=True,
            max_burst_jobs=jobs,
            poll_delay=0.01,
            handle_signals=False,
        )
        await worker.main()
        await worker.close()

    async def prepare() -> None:
        """Lose jobs, and have one end of which the ledger has not heard."""
        await empty(redis, schema)
        async with pool() as made:
            for number, id in enumerate(LOST):
                await made.enqueue_job("triple", number, _job_id=id)
            await made.guard.reconcile()
            redis.command("FLUSHALL")
            await made.enqueue_job("triple", 0, _job_id="ended")
            await work(1)

    async def compare(begins: Callable[[], None]) -> None:
        async with pool() as made:
            begins()
            await made.guard.reconcile()

    async def check(point: str) -> None:
        async with pool() as made:
            await made.guard.reconcile()
            assert sorted(job.job_id for job in await made.queued_jobs()) == LOST, point
            await work(len(LOST))
            results = [await arq.jobs.Job(id, made).result(timeout=5) for id in LOST]
            assert results == [0, 3, 6, 9, 12, 15], point
            await made.guard.reconcile()
            assert sorted(await rows(schema)) == [(id, COMPLETED) for id in ["ended", *LOST]], point
            for id in ["ended", *LOST]:
                check_history(id, [event.event for event in await made.guard.history(id)], point)
            assert (await made.guard.reconcile()).compared == 0, point

    assert every_point(prepare, compare, check, place) >= 8
