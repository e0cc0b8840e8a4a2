"""Whoever compares is killed at each thing that it sends within a page, and the next one does the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.guard.crash_points import PLACES, every_point
from tests.storage.guard.support import EMPTY, rows
from tests.storage.guard.test_losses import told
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection

LOST = [f"lost-{n}" for n in range(6)]
COMPLETED = 5
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("place", PLACES)
def test_a_comparison_that_is_killed_anywhere_in_a_page_is_done_by_the_next(
    redis: Server, schema: str, place: str
) -> None:
    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    async def prepare() -> None:
        """Lose jobs, one of which has run, and have one end of which the ledger has not heard."""
        redis.command("FLUSHALL")
        async with connection() as admin:
            await admin.execute(EMPTY.format(s=quoted(schema)))
        store = make()
        await store.open()
        await store.insert("q", [NewJob(id, id.encode()) for id in LOST])
        (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
        failing = Settlement(job.id, job.fence, Action.RETRY, b"{}", 0, 0)
        await store.exchange("q", "w", [failing], 0, 60_000)
        await told(store)
        redis.command("FLUSHALL")
        await store.insert("q", [NewJob("ended", b"ended")])
        await store.close()
        inner = RedisStorage(redis.url)
        await inner.open()
        (job,) = (await inner.exchange("q", "w", [], 1, 60_000)).jobs
        assert job.id == "ended"
        await inner.exchange(
            "q", "w", [Settlement("ended", job.fence, Action.COMPLETE, b"r", 60_000)], 0, 60_000
        )
        await inner.close()

    async def compare(begins: Callable[[], None]) -> None:
        store = make()
        await store.open()
        begins()
        await store.guard.reconcile()

    async def check(point: str) -> None:
        store = make()
        await store.open()
        await store.guard.reconcile()
        beat = await store._open_session().ledger.beat()
        assert beat.restored == beat.lost_at, point
        jobs = (await store.exchange("q", "w", [], 100, 60_000)).jobs
        assert sorted((job.id, job.payload) for job in jobs) == [(id, id.encode()) for id in LOST], point
        ends = [Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000) for job in jobs]
        await store.exchange("q", "w", ends, 0, 60_000)
        await told(store)
        assert sorted(await rows(schema)) == [(id, COMPLETED) for id in ["ended", *LOST]], point
        for id in ["ended", *LOST]:
            happened = [event.event for event in await store.guard.history("q", id)]
            assert happened.count("completed") == 1, (point, happened)
        assert (await store.guard.reconcile()).compared == 0, point
        await store.close()

    assert every_point(prepare, compare, check, place) >= 8
