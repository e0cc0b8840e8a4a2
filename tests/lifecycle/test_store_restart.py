"""A server that is killed and started again, while workers idle and while they are busy.

Redis keeps its data by its append-only file: `docs/guides/redis.md` says how. The file store has no server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import PostgresStorage, Queue, Reaper, open_storage
from jobqueue.model.names import REAPER_LOCK
from tests.lifecycle.conftest import SERVERS
from tests.lifecycle.processes import BOUND, Start, eventually, state_of
from tests.lifecycle.test_election import waiting
from tests.services import BINARIES, Server
from tests.storage.postgres.server import PostgresServer

AnyServer = Server | PostgresServer


@pytest.fixture(params=[*SERVERS, "postgres"])
def durable(request: pytest.FixtureRequest) -> Iterator[AnyServer]:
    server: AnyServer
    if request.param == "postgres":
        server = PostgresServer(fsync=True).start()
        asyncio.run(PostgresStorage(server.url).apply_schema())
    else:
        options = ("--appendonly", "yes", "--appendfsync", "always")
        server = Server(BINARIES[request.param](), *options).start()
    yield server
    server.remove()


@pytest_asyncio.fixture
async def starter(durable: AnyServer) -> AsyncIterator[Start]:
    made = Start(durable.url)
    yield made
    await made.end()


@pytest_asyncio.fixture
async def producer(durable: AnyServer, starter: Start) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue[Any, Any](open_storage(durable.url), "q") as made:
        yield made


async def restart(server: AnyServer, *, crash: bool) -> None:
    await asyncio.to_thread(server.kill if crash else server.stop)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("crash", [True, False], ids=["killed", "stopped"])
async def test_idle_workers_go_on(
    durable: AnyServer, producer: Queue[Any, Any], starter: Start, crash: bool
) -> None:
    worker = await starter.worker()
    assert await producer.enqueue_and_wait("before", None, timeout=BOUND)
    await restart(durable, crash=crash)
    assert (await producer.enqueue_and_wait("after", None, timeout=BOUND))["pid"] == worker.pid
    assert await state_of(producer, "before") == ("completed", 1)


async def test_busy_workers_keep_their_jobs(
    durable: AnyServer, producer: Queue[Any, Any], starter: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    worker = await starter.worker(lease=60.0)
    ids = [f"job-{number}" for number in range(12)]
    await producer.enqueue_many([(id, {"until": str(go)}) for id in ids])
    waits = [asyncio.create_task(producer.wait(id, timeout=BOUND)) for id in ids]
    for _ in range(4):
        await worker.expect("^run")
    await producer.enqueue("one more", {"until": str(go)})  # once it is on the disk, the claims before it are
    async with Reaper(open_storage(durable.url), sweep_interval=0.2):
        await asyncio.to_thread(durable.kill)
        go.touch()  # the runs end while nobody can be told
        await asyncio.to_thread(durable.start)
        results = await asyncio.gather(*waits)
    assert [result["attempt"] for result in results] == [1] * len(ids)
    assert all(worker.count(f"^run {id} ") == 1 for id in ids)


async def test_leader_and_follower_agree_again(durable: AnyServer, starter: Start) -> None:
    election = ("--leader-election", "--lock-ttl", "2", "--health-port", "0")
    reapers = [await starter.reaper(*election), await starter.reaper(*election)]
    for process in reapers:
        await process.expect("health on")
        await waiting(process)  # one that comes while the server is away gives up
    storage = open_storage(durable.url)
    await storage.open()

    async def owner() -> str | None:
        holder = await storage.lock_holder(REAPER_LOCK)
        return None if holder is None else holder.owner

    try:
        await eventually(owner)
        await restart(durable, crash=True)
        leads = [process for process in reapers if process.count(f"reaper {await eventually(owner)} leads")]
        assert len(leads) == 1
        await leads[0].kill()
        (follower,) = (process for process in reapers if process is not leads[0])
        await follower.expect("leads, term")
    finally:
        await storage.close()
