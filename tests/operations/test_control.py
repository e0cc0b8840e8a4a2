"""Pause, resume, drain and clear, on every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    InvalidArgumentError,
    Job,
    JobCancelledError,
    JobFilter,
    JobState,
    MemoryStorage,
    NotStartedError,
    Queue,
    Retry,
)
from jobqueue.storage.values import Page
from tests.support import Lab, Recorder, within

S = JobState


async def double(job: Job[Any]) -> Any:
    return job.payload * 2


# -- pause ----------------------------------------------------------------------------------------


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(lab: Lab) -> None:
    worker = await lab.start(double)
    operator = await lab.start()
    await within(operator.pause())
    heard = Recorder(worker)
    ticket = await operator.enqueue("a", 1)
    assert await within(operator.drain(0.2)) is False
    status = await operator.get_status("a")
    assert status is not None
    assert (status.state, status.attempts) == (S.QUEUED, 0)
    assert "processing" not in heard.names
    await within(operator.resume())
    # Woken, and not at the end of the worker's wait of five seconds.
    assert await within(ticket.wait(), 4.0) == 2


async def test_pausing_twice_is_pausing_once(lab: Lab) -> None:
    queue = await lab.start(double)
    for _ in range(2):
        await within(queue.pause())
    assert (await queue.stats()).paused
    for _ in range(2):
        await within(queue.resume())
    assert not (await queue.stats()).paused
    assert await within(queue.enqueue_and_wait("a", 4)) == 8


async def test_running_jobs_go_on_and_a_retry_waits(lab: Lab) -> None:
    going, go = asyncio.Event(), asyncio.Event()

    async def handler(job: Job[Any]) -> str:
        going.set()
        await go.wait()
        if job.payload == "again" and job.attempts == 1:
            raise Retry(0.0)
        return f"attempt {job.attempts}"

    queue = await lab.start(handler, concurrency=2)
    one = await queue.enqueue("one", "once")
    two = await queue.enqueue("two", "again")
    heard = Recorder(queue)
    await within(going.wait())
    while (await queue.stats()).counts[S.PROCESSING] < 2:
        await asyncio.sleep(0.01)
    await within(queue.pause())
    go.set()
    assert await within(one.wait()) == "attempt 1"
    await heard.wait("failing")
    assert await within(queue.drain(0.2)) is False
    status = await queue.get_status("two")
    assert status is not None
    assert status.attempts == 1
    await within(queue.resume())
    assert await within(two.wait()) == "attempt 2"


async def test_a_pause_outlives_the_queues(lab: Lab) -> None:
    queue = await lab.start()
    await within(queue.pause())
    await within(queue.stop())
    worker = await lab.start(double)
    await worker.enqueue("a", 1)
    assert await within(worker.drain(0.2)) is False
    await within(worker.resume())
    assert await within(worker.wait("a")) == 2


async def test_a_pause_is_of_one_queue(lab: Lab) -> None:
    one, other = await lab.start(double), await lab.start(double, name="other")
    await within(one.pause())
    assert await within(other.enqueue_and_wait("a", 1)) == 2
    assert not (await other.stats()).paused


async def test_many_pauses_and_resumes_lose_nothing(lab: Lab) -> None:
    queue = await lab.start(double, concurrency=10)
    tickets = [await queue.enqueue(f"{n}", n) for n in range(50)]
    for _ in range(5):
        await within(asyncio.gather(queue.pause(), queue.resume(), queue.pause()))
        await within(queue.resume())
    assert await within(asyncio.gather(*(ticket.wait() for ticket in tickets))) == [2 * n for n in range(50)]


# -- drain ----------------------------------------------------------------------------------------


async def test_draining_an_empty_queue_is_done_at_once(lab: Lab) -> None:
    queue = await lab.start()
    assert await within(queue.drain(0)) is True
    assert await within(queue.drain()) is True


async def test_draining_waits_for_the_running_and_the_queued(lab: Lab) -> None:
    go = asyncio.Event()

    async def handler(_job: Job[Any]) -> None:
        await go.wait()

    queue = await lab.start(handler)
    await queue.enqueue_many([(f"{n}", n) for n in range(5)])
    assert await within(queue.drain(0.1)) is False
    drained = asyncio.create_task(queue.drain())
    await asyncio.sleep(0.05)
    assert not drained.done()
    go.set()
    assert await within(drained) is True
    assert (await queue.stats()).counts[S.COMPLETED] == 5


async def test_draining_does_not_wait_for_what_is_due_later(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("later", 1, delay=1000.0)
    assert await within(queue.drain(0)) is True


async def test_draining_waits_for_what_is_due_now(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("soon", 1, delay=0.05)
    await asyncio.sleep(0.1)
    assert await within(queue.drain(0.05)) is False
    await within(lab.start(double))
    assert await within(queue.drain()) is True
    assert await queue.get_result("soon") == 2


@pytest.mark.parametrize("timeout", [-1, "1", True, float("nan")])
async def test_a_bad_timeout_is_refused(lab: Lab, timeout: Any) -> None:
    queue = await lab.start()
    with pytest.raises(InvalidArgumentError, match="timeout"):
        await queue.drain(timeout)


# -- clear ----------------------------------------------------------------------------------------


async def test_clearing_cancels_all_that_waits(lab: Lab) -> None:
    go = asyncio.Event()

    async def handler(job: Job[Any]) -> Any:
        await go.wait()
        return job.payload

    worker = await lab.start(handler)
    running = await worker.enqueue("running", 7)
    while (await worker.stats()).counts[S.PROCESSING] < 1:
        await asyncio.sleep(0.01)
    queue = await lab.start()
    heard = Recorder(queue)
    await queue.enqueue_many([(f"w{n}", n) for n in range(450)])
    await queue.enqueue("high", 1, priority=5)
    await queue.enqueue("later", 1, delay=1000.0)
    waiting = asyncio.create_task(queue.wait("w300"))
    await asyncio.sleep(0.05)
    assert await within(queue.clear()) == 452
    with pytest.raises(JobCancelledError):
        await within(waiting)
    assert len(heard.of("cancelled")) == 452
    stats = await queue.stats()
    assert (stats.counts[S.QUEUED], stats.counts[S.SCHEDULED], stats.counts[S.CANCELLED]) == (0, 0, 452)
    go.set()
    assert await within(running.wait()) == 7
    assert await within(queue.clear()) == 0
    assert (await queue.stats()).counts[S.COMPLETED] == 1


async def test_clearing_the_ended_too_deletes_all_but_running_ones(lab: Lab) -> None:
    worker = await lab.start(double)
    assert await within(worker.enqueue_and_wait("done", 1)) == 2
    await within(worker.stop())
    queue = await lab.start()
    await queue.enqueue("a", 1)
    await queue.cancel("a")
    await queue.enqueue_many([(f"w{n}", n) for n in range(250)])
    waiting = asyncio.create_task(queue.wait("w100"))
    await asyncio.sleep(0.05)
    assert await within(queue.clear(ended=True)) == 252
    with pytest.raises(JobCancelledError):
        await within(waiting)
    assert (await queue.stats()).total == 0
    assert await queue.get_status("done") is None
    assert await within(queue.clear(ended=True)) == 0


@pytest.mark.parametrize("call", ["clear", "remove by filter", "remove by ids"])
async def test_others_run_between_the_steps_of_a_long_call(lab: Lab, call: str) -> None:
    queue = await lab.start()
    ids = [f"w{n}" for n in range(1200)]
    await queue.enqueue_many([(id, None) for id in ids])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    turns = 0
    match call:
        case "clear":
            done = await queue.clear()
        case "remove by filter":
            done = await queue.jobs.remove(JobFilter(state=S.QUEUED))
        case _:
            done = await queue.jobs.remove(ids)
    assert turns >= 2
    task.cancel()
    assert done == len(ids)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_clear_reads_on_from_where_it_was(ended: bool) -> None:
    cursors: list[str | None] = []

    class Watched(MemoryStorage):
        async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
            cursors.append(cursor)
            return await super().scan(queue, state, limit, cursor)

    async with Queue[int, Any](Watched(), "q") as queue:
        await queue.enqueue_many([(f"w{n}", n) for n in range(1000)])
        assert await queue.clear(ended=ended) == 1000
    # From the front again, each page would look through all that the pages before have left there.
    assert cursors[0] is None
    assert None not in cursors[1:]


async def test_a_cleared_queue_goes_on(lab: Lab) -> None:
    queue = await lab.start()
    for turn in range(3):
        await queue.enqueue_many([(f"{turn}.{n}", n) for n in range(30)])
        assert await within(queue.clear()) == 30
    await queue.enqueue("last", 4)
    await within(lab.start(double))
    assert await within(queue.wait("last")) == 8


async def test_bad_arguments_clear_nothing(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", 1)
    with pytest.raises(InvalidArgumentError, match="ended"):
        await queue.clear(ended="yes")  # type: ignore[arg-type]
    assert (await queue.stats()).counts[S.QUEUED] == 1


async def test_a_queue_must_be_started(lab: Lab) -> None:
    queue: Queue[Any, Any] = lab.queue()
    for call in (queue.pause, queue.resume, queue.drain, queue.clear, queue.stats, queue.health):
        with pytest.raises(NotStartedError):
            await call()
