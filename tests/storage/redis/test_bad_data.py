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
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.values import NewJob
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


async def claim_all(storage: RedisStorage) -> list[str]:
    claimed: list[str] = []
    while jobs := (await storage.exchange("q", "w", [], 1, 60_000)).jobs:
        claimed += [job.id for job in jobs]
    return claimed


LEFT_IN: dict[str, list[NewJob]] = {
    "ready": [NewJob("x", b"1")],
    "prio": [NewJob("x", b"1", priority=-5)],
    "scheduled": [NewJob("x", b"1", delay=50)],
}


@pytest.mark.parametrize("old", LEFT_IN.values(), ids=LEFT_IN)
@pytest.mark.parametrize("new", [{}, {"priority": 9}], ids=["the same priority", "a higher one"])
async def test_what_is_left_of_an_unreadable_job_does_not_claim_its_successor(
    redis: Server, storage: RedisStorage, old: list[NewJob], new: dict[str, int]
) -> None:
    await storage.insert("q", [NewJob("before", b"1"), *old, NewJob("behind", b"1")])
    Meddler(redis, storage).record("x", lambda record: record[:20])
    (answer,) = await storage.insert("q", [NewJob("x", b"2", **new)])
    assert answer.status == "created"
    assert await storage.check("q") == []
    await asyncio.sleep(0.1)  # longer than the delay
    assert sorted(await claim_all(storage)) == ["before", "behind", "x"]
    assert await storage.check("q") == []


@pytest.mark.parametrize("action", [Action.COMPLETE, Action.FAIL, Action.CANCEL, Action.RETRY])
async def test_what_is_left_of_an_unreadable_job_does_not_delete_its_successor(
    redis: Server, storage: RedisStorage, action: Action
) -> None:
    await storage.insert("q", [NewJob("x", b"1", ttl=50), NewJob("y", b"1", ttl=50)])
    jobs = (await storage.exchange("q", "w", [], 2, 60_000)).jobs
    await storage.exchange(
        "q", "w", [Settlement(job.id, job.fence, action, b"", 50, 50) for job in jobs], 0, 1
    )
    Meddler(redis, storage).record("x", lambda record: record[:20])
    (answer,) = await storage.insert("q", [NewJob("x", b"2")])
    assert answer.status == "created"
    await asyncio.sleep(0.1)
    await storage.purge("q", 100)
    assert "x" in await claim_all(storage)
    assert [record.id for record in (await storage.scan("q", JobState.PROCESSING, 9)).records].count("x") == 1
    assert await storage.check("q") == []


async def test_a_running_job_whose_waiting_record_is_cut_is_found(
    redis: Server, storage: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("x", b"1")])
    (job,) = (await storage.exchange("q", "w", [], 1, 60_000)).jobs
    Meddler(redis, storage).record("x", lambda record: record[:20])
    (answer,) = await storage.insert("q", [NewJob("x", b"2")])
    assert (answer.status, answer.state) == ("found", JobState.PROCESSING)
    done = Settlement("x", job.fence, Action.COMPLETE, b"r", 60_000)
    assert (await storage.exchange("q", "w", [done], 0, 60_000)).settled == ["accepted"]
    assert await storage.check("q") == []


def set_size(record: bytes, at: int, size: int) -> bytes:
    return record[:at] + size.to_bytes(4) + record[at + 4 :]


EXTRAS_AT, BODY_AT = 17, 47
BAD_EXTRAS: dict[str, Callable[[bytes], bytes]] = {
    "extras longer than the record": lambda record: set_size(record, EXTRAS_AT, 1 << 31),
    "extras that end within a field": lambda record: set_size(record, EXTRAS_AT, 7),
    "extras that end within the head of a field": lambda record: set_size(record, EXTRAS_AT, 3),
    "a field longer than the extras": lambda record: set_size(record, BODY_AT + 1, 10_000),
    "a time of another size": lambda record: record[:BODY_AT] + b"d" + record[BODY_AT + 1 :],
    "a time to start of another size": lambda record: record[:BODY_AT] + b"x" + record[BODY_AT + 1 :],
    "an attempt that is cut": lambda record: record[:BODY_AT] + b"a" + record[BODY_AT + 1 :],
}


@pytest.mark.parametrize("harm", BAD_EXTRAS.values(), ids=BAD_EXTRAS)
async def test_extras_that_do_not_fit_are_left_out(
    redis: Server, storage: RedisStorage, harm: Callable[[bytes], bytes]
) -> None:
    extras = {"headers": b"headers", "task": "task"}
    jobs = [NewJob(id, b"1", **extras) for id in ("a0", "a1", "a2")]  # type: ignore[arg-type]
    await storage.insert("q", [*jobs, NewJob("later", b"1", delay=100, **extras)])  # type: ignore[arg-type]
    meddler = Meddler(redis, storage)
    for id in ("a1", "later"):
        meddler.record(id, harm)
    assert sorted({b.id for b in await storage.check("q") if "cannot be read" in b.text}) == ["a1", "later"]
    assert await storage.get("q", ["a1", "later"]) == [None, None]
    await asyncio.sleep(0.15)
    jobs_run = (await storage.exchange("q", "w", [], 9, 60_000)).jobs
    assert [(job.id, job.headers, job.task) for job in jobs_run] == [
        ("a0", b"headers", "task"), ("a2", b"headers", "task"),
    ]  # fmt: skip


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
