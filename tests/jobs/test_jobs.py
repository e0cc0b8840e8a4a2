"""`queue.jobs` on every store: list, read, cancel, run again, delete, watch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import (
    EnqueueRequest,
    FailureReason,
    Fatal,
    InvalidArgumentError,
    Job,
    JobCancelledError,
    JobFilter,
    JobState,
    Queue,
    Storage,
)
from jobqueue.jobs import QueueJobs
from jobqueue.storage.values import NewJob
from tests.support import Lab, Recorder, within

S = JobState


async def several(lab: Lab, **options: Any) -> Queue[Any, Any]:
    """A queue with jobs: w0 to w4 wait, l0 and l1 are scheduled, f0 to f3 have failed, c0 has completed."""

    async def handler(job: Job[Any]) -> Any:
        if job.payload == "fail":
            raise Fatal(f"{job.id} is bad")
        return job.payload

    worker = lab.queue(handler, **options)
    heard = Recorder(worker)
    await within(worker.start())
    for id, payload in (("f0", "fail"), ("f1", "fail"), ("f2", "fail"), ("f3", "fail"), ("c0", 7)):
        await worker.enqueue(id, payload, group="even" if id[1] in "02" else "odd")
    await heard.wait("completed")
    await heard.wait("failed", 4)
    await within(worker.stop())
    queue = await lab.start()
    await queue.enqueue_many(
        [EnqueueRequest(f"w{n}", n, priority=n % 2, group="even" if n % 2 == 0 else "odd") for n in range(5)]
        + [EnqueueRequest(f"l{n}", n, delay=1000.0) for n in range(2)]
    )
    return queue


async def ids(queue: Queue[Any, Any], **given: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await queue.jobs.list(cursor=cursor, **given)
        assert len(page.jobs) <= given.get("limit", 100)
        found += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return sorted(found)


async def test_listing(lab: Lab) -> None:
    queue = await several(lab)
    everything = ["c0", "f0", "f1", "f2", "f3", "l0", "l1", "w0", "w1", "w2", "w3", "w4"]
    for limit in (1, 2, 5, 100):
        assert await ids(queue, limit=limit) == everything
        assert await ids(queue, state="failed", limit=limit) == ["f0", "f1", "f2", "f3"]
        assert await ids(queue, state=S.QUEUED, priority=1, limit=limit) == ["w1", "w3"]
        assert await ids(queue, group="even", limit=limit) == ["c0", "f0", "f2", "w0", "w2", "w4"]
    assert await ids(queue, filter=JobFilter(state="scheduled")) == ["l0", "l1"]
    assert await ids(queue, task="send") == []
    later = datetime.now(UTC) + timedelta(seconds=500)
    assert await ids(queue, run_after=later) == ["l0", "l1"]
    assert await ids(queue, run_before=later, state="queued") == ["w0", "w1", "w2", "w3", "w4"]
    assert await ids(queue, created_before=later - timedelta(days=1)) == []
    assert len(await ids(queue, created_after=later - timedelta(days=1))) == 12
    page = await queue.jobs.list(state="failed")
    assert {(job.state, job.reason, job.payload) for job in page.jobs} == {
        (S.FAILED, FailureReason.FATAL, None)
    }


async def test_reading_one(lab: Lab) -> None:
    queue = await several(lab)
    failed, waiting = await queue.jobs.get("f0"), await queue.jobs.get("w3")
    assert failed is not None
    assert waiting is not None
    assert (failed.payload, failed.group, failed.attempts, failed.reason) == ("fail", "even", 1, "fatal")
    assert [attempt.error.message for attempt in failed.history] == ["f0 is bad"]
    assert (waiting.payload, waiting.state, waiting.priority) == (3, S.QUEUED, 1)
    assert await queue.jobs.get("unknown") is None


async def test_cancelling(lab: Lab) -> None:
    queue = await several(lab)
    assert await queue.jobs.cancel("w0") == 1
    assert await queue.jobs.cancel(["w1", "f0", "unknown"]) == 1
    assert await queue.jobs.cancel(JobFilter(group="even")) == 2
    assert await ids(queue, state="queued") == ["w3"]
    assert await queue.jobs.cancel(JobFilter()) == 3
    assert await ids(queue, state="failed") == ["f0", "f1", "f2", "f3"]


async def test_cancelling_what_runs(lab: Lab) -> None:
    began = asyncio.Event()

    async def handler(job: Job[Any]) -> None:
        began.set()
        await asyncio.sleep(30)

    queue = await lab.start(handler)
    waiting = asyncio.ensure_future(queue.enqueue_and_wait("a", None))
    await within(began.wait())
    assert await queue.jobs.cancel(JobFilter(state="processing")) == 0
    assert await queue.jobs.cancel(JobFilter(state="processing"), running=True) == 1
    with pytest.raises(JobCancelledError):
        await within(waiting)


async def test_retrying(lab: Lab) -> None:
    queue = await several(lab)
    assert await queue.jobs.retry(["f0", "w0", "c0", "unknown"]) == 1
    assert await queue.jobs.retry("f0") == 0, "it waits by now"
    assert await queue.jobs.retry(JobFilter(group="odd"), delay=500.0) == 2
    assert await ids(queue, state="scheduled") == ["f1", "f3", "l0", "l1"]
    assert await queue.jobs.retry("f2", payload="good") == 1
    assert await queue.jobs.retry("w1", payload="good") == 0
    retried = await queue.jobs.get("f0")
    assert retried is not None
    assert (retried.attempts, len(retried.history), retried.payload) == (0, 1, "fail")
    replaced = await queue.jobs.get("f2")
    assert replaced is not None
    assert (replaced.payload, replaced.group, replaced.state) == ("good", "even", S.QUEUED)
    assert len(replaced.history) == 1


async def test_removing(lab: Lab) -> None:
    queue = await several(lab)
    heard = Recorder(queue)
    waiting = asyncio.ensure_future(queue.enqueue_and_wait("x", None))
    await heard.wait("enqueued")
    assert await queue.jobs.remove(["x", "w0", "f0", "c0", "unknown"]) == 4
    with pytest.raises(JobCancelledError):
        await within(waiting)
    assert await queue.jobs.remove(JobFilter(state="failed")) == 3
    assert await queue.jobs.remove(JobFilter()) == 6
    assert await ids(queue) == []


async def test_watching(lab: Lab) -> None:
    go, reported = asyncio.Event(), asyncio.Event()

    async def handler(job: Job[Any]) -> str:
        await job.progress(50)
        reported.set()
        await go.wait()
        return "done"

    producer = await lab.start()
    await producer.enqueue("a", None)
    seen: list[tuple[JobState, Any]] = []
    async with asyncio.timeout(20):
        async for status in producer.jobs.watch("a"):
            seen.append((status.state, status.progress))
            if status.state is S.QUEUED:
                await lab.start(handler)
                await within(reported.wait())
            else:
                go.set()
    assert seen == [(S.QUEUED, None), (S.PROCESSING, 50), (S.COMPLETED, seen[-1][1])]
    assert [status async for status in producer.jobs.watch("unknown")] == []
    await producer.enqueue("b", None, delay=100.0)
    assert [status.state async for status in producer.jobs.watch("b", timeout=0.01)] == [S.SCHEDULED]


async def test_what_is_refused(lab: Lab) -> None:
    queue = await lab.start()
    naive = datetime.now(UTC).replace(tzinfo=None)
    refused: list[dict[str, Any]] = [
        {"limit": 0}, {"limit": 1001}, {"cursor": "nonsense"}, {"cursor": 5}, {"state": "asleep"},
        {"task": 5}, {"priority": "a"}, {"created_before": naive}, {"nonsense": 1},
        {"filter": {"state": "failed"}},
    ]  # fmt: skip
    for given in refused:
        with pytest.raises(InvalidArgumentError, match=next(iter(given))):
            await queue.jobs.list(**given)
    with pytest.raises(InvalidArgumentError, match="cursor"):
        await queue.jobs.list(state="failed", cursor="queued:")
    for which in (5, ["a", 5], "", [""]):
        with pytest.raises(InvalidArgumentError, match="which"):
            await queue.jobs.cancel(which)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="delay"):
        await queue.jobs.retry("a", delay=-1.0)
    with pytest.raises(InvalidArgumentError, match="payload"):
        await queue.jobs.retry(["a"], payload=1)


async def test_jobs_that_fail_again_are_retried_once(lab: Lab) -> None:
    runs: list[str] = []

    async def handler(job: Job[Any]) -> None:
        runs.append(job.id)
        raise Fatal("again")

    queue = lab.queue(handler, concurrency=100)
    heard = Recorder(queue)
    await within(queue.start())
    await queue.enqueue_many([(f"{n}", None) for n in range(700)])
    await heard.wait("failed", 700, 60.0)
    assert await within(queue.jobs.retry(JobFilter(state="failed")), 60) == 700
    await heard.wait("failed", 1400, 60.0)
    assert len(runs) == 1400


async def test_a_value_that_cannot_be_read_hides_nothing_else(lab: Lab, storage: Storage) -> None:
    queue = await lab.start()
    await storage.insert("q", [NewJob("a", b"{not json")])
    status = await queue.jobs.get("a")
    assert status is not None
    assert (status.state, status.payload) == (S.QUEUED, None)


async def test_a_search_takes_few_calls_and_pages_end_where_they_are_full(storage: Storage) -> None:
    """With many jobs of another kind, fewer, or none between those that are meant."""
    jobs = [NewJob(f"j{n:04}", b"1", group="a" if n % 7 == 0 or n > 1_900 else "b") for n in range(2_000)]
    queue: Queue[Any, Any] = Queue(storage, "mail")
    async with queue.producer():
        for start in range(0, len(jobs), 500):
            await storage.insert("mail", jobs[start : start + 500])
        meant = sorted(job.id for job in jobs if job.group == "a")
        for limit in (1_000, 90, 7):
            assert await ids(queue, group="a", limit=limit) == meant
        scan, calls = storage.scan, list[int]()

        async def counted(name: str, state: JobState, limit: int, cursor: str | None = None) -> Any:
            calls.append(limit)
            return await scan(name, state, limit, cursor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "scan", counted)
            page = await queue.jobs.list(task="nothing", limit=50)
    assert (page.jobs, page.cursor) == ([], None)
    assert len(calls) < 15


async def test_a_search_ends_its_page_in_time_and_goes_on_with_the_next(lab: Lab) -> None:
    queue = await several(lab)
    view = queue.jobs._view
    hasty = QueueJobs(replace(view, patience=0.0))
    seen: list[str] = []
    cursor, pages = None, 0
    while True:
        page = await hasty.list(group="even", limit=2, cursor=cursor)
        seen += [job.id for job in page.jobs]
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break
    assert sorted(seen) == ["c0", "f0", "f2", "w0", "w2", "w4"]
    assert pages > 7
