"""Workers that serve some tasks of a queue, or some queues of an app; apps that end when all is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from jobqueue import (
    App,
    InvalidArgumentError,
    Job,
    JobFailing,
    JobState,
    MemoryStorage,
    NotStartedError,
    Queue,
    Storage,
)
from jobqueue.testing import FakeClock
from tests.support import until, within


def typed(storage: Any, ran: list[str], **options: Any) -> Queue[Any, Any]:
    queue = Queue[Any, Any](storage, "q", concurrency=4, max_attempts=1, **options)

    @queue.task
    async def mail(to: str) -> str:
        ran.append(f"mail {to}")
        return to

    @queue.task
    async def report(month: int) -> int:
        ran.append(f"report {month}")
        return month

    @queue.execute
    async def plain(job: Job[Any]) -> str:
        ran.append(f"plain {job.payload}")
        return "plain"

    return queue


async def test_a_worker_of_one_task_leaves_all_others_to_others(storage: Storage) -> None:
    ran: list[str] = []
    only, others = typed(storage, ran), typed(storage, ran)
    only.configure(tasks=["mail"])
    failing: list[JobFailing] = []
    only.on(JobFailing, failing.append)
    async with only:
        await only.enqueue("plain", 1)
        await only.task["report"].using(id="report").enqueue(2)
        assert await only.task["mail"].enqueue_and_wait("a") == "a"
        await until(lambda: {event.id for event in failing} == {"plain", "report"})
        assert ran == ["mail a"]
        waiting = await only.jobs.get("report")
        assert waiting is not None
        assert (waiting.state, waiting.attempts) == (JobState.FAILING, 0)
        why = (await only.jobs.explain("report")).reasons[0]
        assert (why.kind, "left it to others: this worker serves only 'mail'" in why.detail) == (
            "retrying",
            True,
        )
        if isinstance(storage.clock, FakeClock):
            await only.stop()  # where all is woken in one order, it would come first each time
        async with others:
            assert await in_time(storage, others.wait("plain", timeout=300.0)) == "plain"
            assert await in_time(storage, others.wait("report", timeout=300.0)) == 2
            done = await others.get_status("report")
    assert done is not None
    assert (done.attempts, done.max_attempts) == (1, 1)
    assert sorted(ran) == ["mail a", "plain 1", "report 2"]


async def in_time(storage: Storage, call: Awaitable[Any]) -> Any:
    """Await something for which time has to pass."""
    task = asyncio.ensure_future(call)
    while isinstance(storage.clock, FakeClock) and not task.done():
        await storage.clock.advance(1.0)
    return await within(task, 60.0)


async def test_what_is_left_to_others_never_fails(clock: FakeClock, storage: Storage) -> None:
    only = typed(storage, [], handler_patience=5.0)
    only.configure(tasks=["mail"])
    async with only:
        await only.enqueue("plain", 1)
        for _ in range(600):
            await clock.advance(1.0)
        known = await only.jobs.get("plain")
    assert known is not None
    assert (known.state, known.attempts) in {(JobState.FAILING, 0), (JobState.QUEUED, 0)}
    assert len(known.history) == 20


async def test_tasks_that_there_are_not() -> None:
    queue = typed(MemoryStorage(), [])
    with pytest.raises(InvalidArgumentError, match="'sms' is no task of queue 'q', which has mail, report"):
        queue.configure(tasks=["mail", "sms"])
    for wrong in ("mail", [], 7, [7]):
        with pytest.raises(InvalidArgumentError, match="tasks"):
            queue.configure(tasks=wrong)  # type: ignore[arg-type]
    app = App(queue.storage, [queue])
    with pytest.raises(InvalidArgumentError, match="'sms' is none of the tasks here: mail, report"):
        app.configure(tasks=["sms"])
    with pytest.raises(InvalidArgumentError, match="'x' is none of q"):
        app.configure(queues=["x"])


async def test_a_handler_that_comes_later_is_left_out_too(storage: Storage) -> None:
    queue = Queue[Any, Any](storage, "q")

    @queue.task
    async def mail() -> str:
        return "sent"

    queue.configure(tasks=["mail"])
    ran: list[str] = []
    async with queue:
        queue.execute(lambda job: ran.append(job.id))
        await queue.enqueue("a", 1)
        assert await mail.enqueue_and_wait() == "sent"
    assert ran == []


async def test_queues_that_do_not_work_here_still_produce(storage: Storage) -> None:
    ran: list[str] = []
    here, elsewhere = Queue[Any, Any](storage, "here"), Queue[Any, Any](storage, "elsewhere")

    @here.execute
    async def run_here(job: Job[Any]) -> None:
        ran.append(job.id)
        await elsewhere.enqueue("next", 1)

    @elsewhere.execute
    async def run_elsewhere(job: Job[Any]) -> None:
        ran.append(job.id)

    app = App(storage, [here, elsewhere], reaper=False)
    app.configure(queues=["here"])
    assert app.working == (here,)
    async with app:
        await here.enqueue_and_wait("first", 1)
        assert (await storage.counts("elsewhere")).queued == 1
    assert ran == ["first"]
    with pytest.raises(NotStartedError):
        await elsewhere.enqueue("x", 1)


async def test_an_app_is_empty_once_all_that_its_jobs_enqueue_has_run(storage: Storage) -> None:
    first, second = Queue[int, None](storage, "first"), Queue[int, None](storage, "second")
    ran: list[str] = []

    def passing(to: Queue[int, None]) -> Any:
        async def run(job: Job[int]) -> None:
            ran.append(f"{job.queue} {job.payload}")
            if job.payload:
                await to.enqueue(None, job.payload - 1)

        return run

    first.execute(passing(second))
    second.execute(passing(first))
    app = App(storage, [first, second], reaper=False)
    async with app:
        await first.enqueue(None, 9)
        await first.enqueue(None, 0, delay=3600.0)
        await within(app.until_empty())
        assert len(ran) == 10
        assert ran[0] == "first 9"
        assert ran[-1] == "second 0"
        await within(app.until_empty())
    await within(app.until_empty())


async def test_an_app_is_not_empty_while_a_job_runs(clock: FakeClock, storage: Storage) -> None:
    queue = Queue[Any, None](storage, "q", concurrency=2)
    go = asyncio.Event()

    @queue.execute
    async def wait(job: Job[Any]) -> None:
        await go.wait()

    async with App(storage, [queue], reaper=False) as app:
        await queue.enqueue("a", 1)
        empty = asyncio.create_task(app.until_empty())
        for _ in range(5):
            await clock.advance(1.0)
        assert not empty.done()
        go.set()
        await within(empty)
