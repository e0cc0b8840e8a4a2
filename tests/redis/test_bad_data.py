"""What foreign hands write into the store stops nobody: it is left out, and shown by fsck."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue import Job, JobState, Queue, Reaper, RedisStorage
from jobqueue.events import ErrorOccurred
from jobqueue.runtime import unique_id
from jobqueue.storage.base import NewJob
from tests.services import Server, redis_binary, shared_server

GOOD = ["a0", "a2", "b0"]
LIMIT = 20.0


@pytest.fixture(scope="module")
def redis() -> Server:
    return shared_server("redis")


@pytest_asyncio.fixture
async def storage(redis: Server) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(redis.url, f"bad:{unique_id()}")
    await storage.open()
    yield storage
    await storage.close()


class Meddler:
    """Writes into the keys of one queue."""

    def __init__(self, redis: Server, storage: RedisStorage) -> None:
        self.command = redis.command
        self.prefix = storage._settings.prefix
        self.q = f"{{{self.prefix}:q}}:"

    def record(self, id: str, change: Callable[[bytes], bytes], key: str = "jobs") -> None:
        record = self.command("HGET", self.q + key, id)
        assert isinstance(record, bytes)
        self.command("HSET", self.q + key, id, change(record))

    def name(self) -> None:
        self.command("SADD", f"{self.prefix}:queues", b"\xff\xfe")

    def element(self) -> None:
        self.command("LPUSH", self.q + "ready", b"x")

    def worker(self) -> None:
        self.command("HSET", self.q + "meta", b"w\x00t", b"x")


BAD: dict[str, Callable[[Meddler], None]] = {
    "a queue name": Meddler.name,
    "a short element": Meddler.element,
    "a short note of a worker": Meddler.worker,
    "an empty record": lambda m: m.record("a1", lambda _: b""),
    "a cut record": lambda m: m.record("a1", lambda record: record[:20]),
    "a record cut in its core": lambda m: m.record("a1", lambda record: record[:46]),
    "a record of no state": lambda m: m.record("a1", lambda record: b"?" + record[1:]),
    "a cut scheduled record": lambda m: m.record("later", lambda record: record[:30]),
    "a cut running record": lambda m: m.record("runs", lambda record: record[:25], "running"),
    "a running record with sizes that lie": lambda m: m.record(
        "runs", lambda record: record[:73] + b"\xff" * 13 + record[86:], "running"
    ),
}


async def fill(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("runs", b'"runs"')])
    await storage.exchange("q", "dead", [], 1, 50)
    await storage.insert("q", [NewJob(id, b"1") for id in ("a0", "a1", "a2")])
    await storage.insert("q", [NewJob("later", b"1", delay=300)])
    await storage.insert("q", [NewJob("b0", b"1")])


async def serve(storage: RedisStorage, expected: list[str]) -> list[BaseException]:
    """Run a worker and a reaper until the expected jobs have run; return what they reported."""
    ran: set[str] = set()
    done, errors = asyncio.Event(), list[BaseException]()

    async def handler(job: Job[object]) -> None:
        ran.add(job.id)
        if ran.issuperset(expected):
            done.set()

    queue, reaper = Queue(storage, "q", block_timeout=0.2), Reaper(storage, sweep_interval=0.2)
    queue.execute(handler)
    for source in (queue, reaper):
        source.on(ErrorOccurred, lambda event: errors.append(event.error))
    async with queue, reaper:
        async with asyncio.timeout(LIMIT):
            await done.wait()
        for state in JobState:
            await storage.scan("q", state, 100)
        await storage.counts("q")
        await storage.workers("q")
        assert await storage.queues() == ["_reapers", "q"] or await storage.queues() == ["q"]
        assert queue.ready
    return errors


@pytest.mark.parametrize("harm", BAD.values(), ids=BAD)
async def test_everything_else_goes_on(
    harm: Callable[[Meddler], None], redis: Server, storage: RedisStorage
) -> None:
    await fill(storage)
    harm(Meddler(redis, storage))
    assert await serve(storage, GOOD) == []


async def test_a_record_that_cannot_be_read_is_shown_by_fsck_and_replaced(
    redis: Server, storage: RedisStorage
) -> None:
    await fill(storage)
    Meddler(redis, storage).record("a1", lambda record: record[:20])
    await serve(storage, GOOD)
    assert [b.id for b in await storage.check("q") if "cannot be read" in str(b)] == ["a1"]
    assert await storage.get("q", ["a1"]) == [None]
    (answer,) = await storage.insert("q", [NewJob("a1", b"2")])
    assert answer.status == "created"
    assert await serve(storage, ["a1"]) == []


async def test_an_id_that_is_not_text_runs_like_any_other(redis: Server, storage: RedisStorage) -> None:
    await fill(storage)
    meddler = Meddler(redis, storage)
    record = redis.command("HGET", meddler.q + "jobs", "a1")
    redis.command("HSET", meddler.q + "jobs", b"\xff\xfeid", record)  # type: ignore[arg-type]
    redis.command("LPUSH", meddler.q + "ready", b"\x00\x06\x00\x00\x00\x00\x00\xff\xfeid")
    assert await serve(storage, [*GOOD, "a1", "\udcff\udcfeid"]) == []


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["a1", "later", "runs"]),
    st.integers(0, 120),
    st.binary(max_size=16),
    st.booleans(),
)
def test_random_bytes_in_a_record_stop_nobody(
    redis: Server, id: str, at: int, bytes_: bytes, cut: bool
) -> None:
    async def run() -> None:
        storage = RedisStorage(redis.url, f"bad:{unique_id()}")
        await storage.open()
        try:
            await fill(storage)
            meddler = Meddler(redis, storage)
            key = "running" if id == "runs" else "jobs"
            meddler.record(
                id, lambda record: record[:at] + bytes_ + (b"" if cut else record[at + len(bytes_) :]), key
            )
            await serve(storage, GOOD)
        finally:
            await storage.close()

    asyncio.run(run())


async def test_the_command_line_reads_a_damaged_queue() -> None:
    server = Server(redis_binary()).start()
    storage = RedisStorage(server.url)
    try:
        await storage.open()
        await fill(storage)
        for harm in BAD.values():
            harm(Meddler(server, storage))
        await serve(storage, GOOD)
        for arguments in (["stats"], ["status", "a1", "-q", "q"], ["fsck"]):
            command = [sys.executable, "-m", "jobqueue", *arguments, "-s", server.url, "-o", "json"]
            run = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, check=False
            )
            assert "Traceback" not in run.stderr
            assert json.loads(run.stdout)
    finally:
        await storage.close()
        server.remove()
