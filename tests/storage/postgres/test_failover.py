"""A server that is killed under load, and one that is replaced by a standby which lacks the last writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import Job, Queue, Reaper
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.values import InsertStatus, NewJob
from tests.storage.postgres.server import PostgresServer
from tests.storage.postgres.support import connection

BOUND = 60.0
RETRY_FOR = 45.0


@pytest_asyncio.fixture(params=["on", "off"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[PostgresServer]:
    """A server whose disk is trusted, with and without ``synchronous_commit``."""
    private = PostgresServer(fsync=True, settings={"synchronous_commit": request.param}).start()
    yield private
    private.remove()


async def test_a_server_that_is_killed_under_load(server: PostgresServer) -> None:
    storage = PostgresStorage(server.url, retry_for=RETRY_FOR)
    await storage.apply_schema()
    queue, ran = Queue[Any, str](storage, name="q", concurrency=10, result_ttl=3600.0), set[str]()
    acknowledged: list[str] = []
    stop = asyncio.Event()

    @queue.execute
    async def run(job: Job[Any]) -> str:
        ran.add(job.id)
        return job.id

    async def produce(lane: int) -> None:
        n = 0
        while not stop.is_set():
            await queue.enqueue(f"{lane}-{n}", None)
            acknowledged.append(f"{lane}-{n}")
            n += 1

    async with asyncio.timeout(2 * BOUND), queue, Reaper(storage.clone(), sweep_interval=0.5):
        lanes = [asyncio.create_task(produce(lane)) for lane in range(8)]
        for _ in range(2):
            before = len(acknowledged)
            while len(acknowledged) < before + 50:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        stop.set()
        await asyncio.gather(*lanes)
        await queue.enqueue_and_wait("last", None, timeout=BOUND)
        if server.settings["synchronous_commit"] == "on":
            results = await asyncio.gather(*(queue.wait(id, timeout=BOUND) for id in acknowledged))
            assert results == acknowledged
            assert ran >= set(acknowledged)
        counts = await storage.counts("q")
        assert counts.completed + counts.queued + counts.processing > 0
    assert await storage.check() == []


class Pair:
    """A server and its standby, at one address."""

    def __init__(self) -> None:
        self.first = PostgresServer().start()
        self.second = PostgresServer()
        ports = f"127.0.0.1:{self.first.port},127.0.0.1:{self.second.port}"
        self.url = f"postgresql://jq@{ports}/postgres?sslmode=disable"

    def attach(self) -> None:
        """Start the standby on a copy of the data."""
        self.first.stop()
        self.second.copy_of(self.first)
        self.second.settings["primary_conninfo"] = f"host=127.0.0.1 port={self.first.port} user=jq"
        (self.second.data / "standby.signal").touch()
        self.first.start()
        self.second.start()

    async def follow(self) -> None:
        """Wait until the standby has all that was written."""
        async with (
            connection(self.first.url) as there,
            connection(self.second.url) as here,
            asyncio.timeout(BOUND),
        ):
            # A record of its own, or nothing may make the server send the end of what it has written.
            await there.execute("select pg_switch_wal()")
            written = await there.fetchval("select pg_current_wal_lsn()::text")
            while not await here.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written):
                await asyncio.sleep(0.02)

    async def fail_over(self) -> None:
        """Kill the server and let the standby, which was stopped, take over without what came since."""
        await asyncio.to_thread(self.first.kill)
        await asyncio.to_thread(self.second.start)
        async with connection(self.second.url) as admin:
            assert await admin.fetchval("select pg_promote(true, 60)")

    def remove(self) -> None:
        self.first.remove()
        self.second.remove()


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    made = await asyncio.to_thread(Pair)
    try:
        await PostgresStorage(made.first.url).apply_schema()
        await asyncio.to_thread(made.attach)
        yield made
    finally:
        made.remove()


async def test_after_a_failover_that_lost_the_last_writes_numbers_have_not_fallen(pair: Pair) -> None:
    store = PostgresStorage(pair.url, retry_for=RETRY_FOR)
    await store.open()
    kept, running = await store.insert("q", [NewJob("kept", b""), NewJob("running", b"")])
    (before,) = (await store.exchange("q", "w", (), 1, 60_000)).jobs
    assert before.id == "kept"
    await pair.follow()
    await asyncio.to_thread(pair.second.stop)
    (lost,) = (await store.exchange("q", "w", (), 1, 60_000)).jobs
    done = Settlement("kept", before.fence, Action.COMPLETE, b"lost", 60_000)
    assert (await store.exchange("q", "w", [done], 0, 60_000)).settled == ["accepted"]
    (gone,) = await store.insert("q", [NewJob("gone", b"")])

    async with asyncio.timeout(2 * BOUND):
        await pair.fail_over()
        (again,) = await store.insert("q", [NewJob("gone", b"")])
    assert again.status is InsertStatus.CREATED
    assert again.seq > max(kept.seq, running.seq, gone.seq)
    late = Settlement("running", lost.fence, Action.COMPLETE, b"late", 60_000)
    assert (await store.exchange("q", "w", [late, done], 0, 60_000)).settled == ["lost", "accepted"]
    claimed = (await store.exchange("q", "w", (), 9, 60_000)).jobs
    assert {job.id for job in claimed} >= {"running", "gone"}
    assert min(job.fence for job in claimed) > max(before.fence, lost.fence)
    assert await store.check() == []
    await store.close()


async def test_workers_and_waiters_go_on_after_a_failover(pair: Pair) -> None:
    storage = PostgresStorage(pair.url, retry_for=RETRY_FOR)
    queue, go = Queue[Any, int](storage, name="q"), asyncio.Event()

    @queue.execute
    async def run(job: Job[Any]) -> int:
        await go.wait()
        return job.attempts

    async with asyncio.timeout(3 * BOUND), queue, Reaper(storage.clone(), sweep_interval=0.5):
        waiting = asyncio.create_task(queue.enqueue_and_wait("a", None, timeout=2 * BOUND))
        while (status := await queue.get_status("a")) is None or status.state != "processing":
            await asyncio.sleep(0.02)
        await pair.follow()
        await asyncio.to_thread(pair.second.stop)
        await pair.fail_over()
        go.set()
        assert await waiting >= 1  # who waited is in a table that is empty after a failover
        assert await queue.enqueue_and_wait("b", None, timeout=BOUND) == 1
