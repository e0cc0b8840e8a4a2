"""Queues in processes that live for one request: process_once, reclaim, cleanup."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    Fatal,
    InvalidArgumentError,
    Job,
    JobQueueError,
    JobState,
    MemoryStorage,
    Processed,
    Queue,
    Storage,
    StorageUnavailableError,
)
from tests.support import Recorder, WireStorage, opened

LIMIT = 30.0


async def within(call: Awaitable[Any]) -> Any:
    async with asyncio.timeout(LIMIT):
        return await call


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(LIMIT):
        while not (seen := await look()):
            await asyncio.sleep(0.02)
        return seen


async def handle(job: Job[Any]) -> Any:
    match job.payload:
        case "fatal":
            raise Fatal("no good")
        case "again":
            raise ValueError("not now")
        case payload:
            return payload


def made(storage: Storage, handler: Callable[..., Any] | None = handle, **options: Any) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue(storage, "q", backoff=Backoff.fixed(600.0), **options)
    if handler is not None:
        queue.execute(handler)
    return queue


async def put(storage: Storage, *payloads: Any, **options: Any) -> None:
    async with made(storage, None) as producer:
        await producer.enqueue_many([(f"{n}", payload) for n, payload in enumerate(payloads)])


async def status(storage: Storage, id: str) -> Any:
    async with made(storage, None) as producer:
        return await producer.get_status(id)


async def test_it_claims_runs_and_returns(storage: Storage) -> None:
    await put(storage, "a", "fatal", "again", "b")
    queue = made(storage)
    events = Recorder(queue)
    assert await within(queue.process_once()) == Processed(4, 2, 1, 1, 0)
    assert await within(queue.process_once()) == Processed(0, 0, 0, 0, 0)
    assert not queue.ready
    states = [(await status(storage, id)).state for id in "0123"]
    assert states == ["completed", "failed", "failing", "completed"]
    assert sorted(event.id for event in events.of("processing")) == ["0", "1", "2", "3"]
    assert len(events.of("completed")) == 2
    assert await storage.workers("q") == []


async def test_no_more_than_the_limit_and_so_many_at_once(storage: Storage) -> None:
    await put(storage, *range(9))
    running: list[int] = []
    most = 0

    async def count(job: Job[Any]) -> None:
        nonlocal most
        running.append(job.payload)
        most = max(most, len(running))
        await asyncio.sleep(0.02)
        running.remove(job.payload)

    queue = made(storage, count)
    assert (await within(queue.process_once(limit=7, concurrency=2))).completed == 7
    assert most == 2
    assert (await within(queue.process_once(limit=7, concurrency=5))).completed == 2


async def test_jobs_that_its_jobs_enqueue_are_its_own(storage: Storage) -> None:
    queue = made(storage, None)

    @queue.execute
    async def chain(job: Job[Any]) -> None:
        if job.payload < 3:
            await queue.enqueue(None, job.payload + 1)

    await put(storage, 0)
    assert (await within(queue.process_once(concurrency=1))).completed == 4


async def test_what_cannot_end_in_time_is_given_back_uncounted(storage: Storage) -> None:
    await put(storage, "quick", "slow", "thread")
    ends = threading.Event()
    queue = made(storage, None)

    @queue.execute
    async def work(job: Job[Any]) -> None:
        if job.payload == "slow":
            await asyncio.sleep(600.0)

    @queue.task
    def stuck() -> None:
        ends.wait(LIMIT)

    async with queue.producer():
        await stuck.using(id="stuck").enqueue()
        done = await within(queue.process_once(limit=3, concurrency=3, timeout=0.5))
        rest = await within(queue.process_once(timeout=0.5))
    ends.set()
    assert (done.claimed, done.completed, done.released) == (3, 2, 1)
    assert rest.released == 2
    for id in ("1", "stuck"):
        left = await status(storage, id)
        assert (left.state, left.attempts) == (JobState.QUEUED, 0)


async def test_leases_are_renewed_while_it_runs(storage: Storage) -> None:
    await put(storage, "long")
    attempts: list[int] = []

    async def long(job: Job[Any]) -> None:
        attempts.append(job.attempts)
        for _ in range(8):
            await asyncio.sleep(0.5)
            assert await storage.sweep("q", 10) == []

    queue = made(storage, long, visibility_timeout=2.0)
    assert (await within(queue.process_once())).completed == 1
    assert attempts == [1]


async def test_a_paused_queue_gives_it_nothing(storage: Storage) -> None:
    await put(storage, "a")
    queue = made(storage)
    async with queue.producer():
        await queue.pause()
        assert await within(queue.process_once()) == Processed(0, 0, 0, 0, 0)
        await queue.resume()
        assert (await within(queue.process_once())).completed == 1


async def test_a_call_that_is_cancelled_gives_back(storage: Storage) -> None:
    await put(storage, "slow")
    began = asyncio.Event()

    async def slow(job: Job[Any]) -> None:
        began.set()
        await asyncio.sleep(600.0)

    call = asyncio.create_task(made(storage, slow).process_once())
    await within(began.wait())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(call)
    left = await status(storage, "0")
    assert (left.state, left.attempts) == (JobState.QUEUED, 0)


async def test_a_lifespan_is_entered_for_each_call(storage: Storage) -> None:
    lived: list[str] = []

    @asynccontextmanager
    async def lifespan(queue: Queue[Any, Any]) -> AsyncIterator[str]:
        lived.append("in")
        yield "pool"
        lived.append("out")

    async def use(job: Job[Any]) -> Any:
        return job.resources

    queue = made(storage, use, lifespan=lifespan)
    for number in range(2):
        async with made(storage, None) as producer:
            await producer.enqueue(f"job:{number}", None)
        assert (await within(queue.process_once())).completed == 1
        assert (await status(storage, f"job:{number}")).result == "pool"
    async with queue.producer():
        assert lived == ["in", "out"] * 2
        await queue.enqueue("job:2", None)
        assert (await within(queue.process_once())).completed == 1
        assert queue.ready
        assert await queue.get_result("job:2") == "pool"
    assert lived == ["in", "out"] * 3


async def test_a_queue_that_works_or_has_no_work_is_refused(storage: Storage) -> None:
    with pytest.raises(JobQueueError, match="neither a handler nor a task"):
        await made(storage, None).process_once()
    queue = made(storage)
    async with queue:
        with pytest.raises(JobQueueError, match="works already"):
            await queue.process_once()
    for argument in ({"limit": 0}, {"concurrency": 0}, {"timeout": 0.0}):
        with pytest.raises(InvalidArgumentError, match=next(iter(argument))):
            await queue.process_once(**argument)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="older_than"):
        await queue.cleanup(older_than=-1.0)


async def test_calls_at_the_same_time_share_one_start(storage: Storage) -> None:
    await put(storage, "slow")
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(job: Job[Any]) -> None:
        began.set()
        await go_on.wait()

    queue = made(storage, slow)
    call = asyncio.create_task(queue.process_once())
    await within(began.wait())
    assert await within(queue.reclaim()) == 0
    with pytest.raises(JobQueueError, match="works already"):
        await queue.process_once()
    go_on.set()
    assert (await within(call)).completed == 1
    assert not queue.ready


async def test_reclaim_recovers_the_jobs_of_the_dead(storage: Storage) -> None:
    await put(storage, "a", "b")
    queue = made(storage)
    events = Recorder(queue)
    assert await queue.reclaim() == 0
    await storage.exchange("q", "dead", [], limit=2, lease=50)
    recovered = await eventually(queue.reclaim)
    while recovered < 2:
        recovered += await eventually(queue.reclaim)
    assert {event.worker_id for event in events.of("stalled")} == {"dead"}
    assert (await within(queue.process_once())).completed == 2
    assert (await status(storage, "0")).stalls == 1


async def test_cleanup_forgets_what_has_ended_long_ago(storage: Storage) -> None:
    await put(storage, "a", "fatal", "again")
    queue = made(storage)
    await within(queue.process_once())
    async with queue.producer():
        await queue.enqueue("cancelled", 1, delay=600.0)
        await queue.cancel("cancelled")
    assert await queue.cleanup() == 0
    assert await queue.cleanup(older_than=3600.0) == 0
    assert await queue.cleanup(older_than=0.0) in {2, 3}  # a store may keep no record of a cancelled job
    assert await queue.cleanup(older_than=0.0) == 0
    assert [await status(storage, id) for id in ("0", "1")] == [None, None]
    assert (await status(storage, "2")).state is JobState.FAILING


async def test_cleanup_deletes_what_has_expired(storage: Storage) -> None:
    async with made(storage, None) as producer:
        await producer.enqueue_many([(f"{n}", n) for n in range(1200)])
    queue = made(storage, result_ttl=600.0)
    assert (await within(queue.process_once(limit=5000, concurrency=100))).completed == 1200
    async with queue.producer():
        await asyncio.gather(*(queue.update_result_ttl(f"{n}", 0.01) for n in range(1200)))
    await asyncio.sleep(0.05)
    assert await queue.cleanup() + await queue.cleanup() == 1200


async def test_a_job_that_runs_again_meanwhile_is_not_forgotten() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        await put(storage, "a")
        queue = made(storage)
        await within(queue.process_once())

        async def rerun() -> None:
            storage.heal("set_ttl")
            async with made(storage.inner, None) as producer:
                await producer.enqueue("0", "b", reuse="rerun")

        storage.fault("set_ttl", before=rerun)
        assert await queue.cleanup(older_than=0.0) == 0
        assert (await status(storage, "0")).state is JobState.QUEUED


async def test_a_store_that_does_not_answer_is_an_error() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        await put(storage, "a", "b")
        queue = made(storage)
        storage.break_down("exchange", times=1)
        with pytest.raises(StorageUnavailableError, match="no connection"):
            await within(queue.process_once())
        assert (await within(queue.process_once())).completed == 2

        async def claimed_then_down(job: Job[Any]) -> str:
            storage.break_down("exchange", times=2)  # what is done is handed in again
            return "done"

        await put(storage, "c", "d", "e", "f")
        again = made(storage, claimed_then_down)
        done = await within(again.process_once(concurrency=1))
        assert (done.claimed, done.completed) == (1, 1)
