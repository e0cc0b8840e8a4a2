# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Tasks are typed from the function to the result."""

from __future__ import annotations

from typing import assert_type

from jobqueue import (
    Depends,
    EnqueueRequest,
    EnqueueResult,
    Job,
    JobPage,
    JobStatus,
    Processed,
    Queue,
    SyncEnqueueResult,
    SyncQueue,
)
from jobqueue.testing import Enqueued, JobQueueFixture

queue = Queue("memory://")


def get_pool() -> list[int]:
    return []


@queue.task
async def send(to: str, subject: str = "hi", *, pool: list[int] = Depends(get_pool)) -> int:
    return len(to) + len(subject) + len(pool)


def sized(path: str, width: int) -> str:
    return f"{path}@{width}"


@queue.task(name="resize", id=sized, timeout=5.0)
def resize(path: str, width: int) -> bytes:
    return path.encode() * width


@queue.task
async def report(job: Job[None], day: str) -> None:
    print(job.id, day)


@queue.task()
def count(job: Job[None], *words: str) -> dict[str, int]:
    return dict.fromkeys(words, job.attempts)


async def use() -> None:
    assert_type(await send("a@b"), int)
    ticket = await send.enqueue("a@b", subject="x")
    assert_type(ticket, EnqueueResult[int])
    assert_type(await ticket.wait(timeout=3.0), int)
    assert_type(ticket.result, int | None)
    assert_type(await send.enqueue_and_wait("a@b"), int)
    assert_type(await send.using(delay=5.0, id="a").enqueue_and_wait("a@b"), int)
    assert_type(send.request("a@b"), EnqueueRequest)
    assert_type(await resize.enqueue_and_wait("a", 5), bytes)
    assert_type(await resize("a", 5), bytes)
    assert_type(await report.enqueue_and_wait("today"), None)
    assert_type(await count.enqueue_and_wait("a", "b"), dict[str, int])
    await queue.enqueue_many([send.request("a@b"), resize.using(priority=5).request("a", 1)])
    assert_type(await queue.process_once(limit=5, timeout=3.0), Processed)
    assert_type(await queue.cleanup(older_than=3600.0), int)

    await send.enqueue(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await send.enqueue()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await resize.enqueue("a", "b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await send.using(expires=5.0, on_full="wait").enqueue_and_wait("a@b"), int)
    send.using(expires="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    send.using(delays=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    send.using(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


numbers: Queue[int, str] = Queue("memory://")


def use_without_asyncio() -> None:
    assert_type(numbers.sync, SyncQueue[int, str])
    assert_type(numbers.sync.enqueue("a", 5, delay=1.0), SyncEnqueueResult[str])
    assert_type(numbers.sync.enqueue("a", 5).wait(timeout=3.0), str)
    assert_type(numbers.sync.enqueue_many([("a", 5)]), list[SyncEnqueueResult[str]])
    assert_type(numbers.sync.enqueue_and_wait("a", 5, priority=3), str)
    assert_type(numbers.sync.wait("a"), str)
    assert_type(numbers.sync.get_result("a"), str | None)
    assert_type(numbers.sync.get_result("a", 5), str | int)
    assert_type(numbers.sync.get_status("a"), JobStatus[str] | None)
    assert_type(numbers.sync.jobs.list(state="failed"), JobPage)
    assert_type(send.sync.enqueue("a@b").wait(), int)
    assert_type(send.sync.using(delay=5.0).enqueue_and_wait("a@b"), int)
    assert_type(send.using(delay=5.0).sync.enqueue_and_wait("a@b"), int)

    numbers.sync.enqueue("a", "b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    numbers.sync.enqueue("a", 5, delays=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    numbers.sync.enqueue_and_wait("a", 5, connection=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    send.sync.enqueue(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    send.sync.using(delays=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_signup(jobqueue: JobQueueFixture) -> None:
    jobqueue.use(queue, numbers)
    assert_type(jobqueue.assert_enqueued(send.request("a@b"), count=1), list[Enqueued])
    jobqueue.assert_not_enqueued(resize)
    assert_type(jobqueue.drain_sync(), Processed)
