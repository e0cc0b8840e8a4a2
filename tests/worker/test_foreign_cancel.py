"""Runs that are cancelled by other code than the queue: attempts that failed, like any other error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobqueue import AfterExecution, Backoff, Job, MaxRetriesError
from jobqueue.testing import FakeClock
from tests.support import Gate, Lab, Recorder, within


def cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancels_itself() -> None:
    cancel_this_task()
    await asyncio.sleep(0)


async def cancels_itself_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.Event().wait())
        cancel_this_task()


async def awaits_what_is_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def uses_a_timeout_that_leaves_its_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise asyncio.CancelledError from None


HANDLERS = [
    cancels_itself,
    cancels_itself_in_a_group,
    awaits_what_is_cancelled,
    uses_a_timeout_that_leaves_its_cancellation,
]


@pytest.mark.parametrize("handle", HANDLERS)
async def test_a_run_that_something_cancels_is_an_attempt(
    lab: Lab, handle: Callable[[], Awaitable[None]]
) -> None:
    began: list[tuple[str, int]] = []

    async def handler(job: Job[Any]) -> str:
        began.append((job.id, job.attempts))
        if job.id == "poison":
            await handle()
        return "ran"

    queue = await lab.start(handler, max_attempts=2, backoff=Backoff.fixed(0.01))
    events = Recorder(queue)
    await queue.enqueue("poison", 1)
    assert await lab.finish(queue.enqueue_and_wait("other", 2)) == "ran"
    with pytest.raises(MaxRetriesError) as caught:
        await lab.finish(queue.wait("poison"))
    assert (caught.value.reason, caught.value.attempts) == ("error", 2)
    assert caught.value.error.type == "asyncio.exceptions.CancelledError"
    assert "not by its queue" in caught.value.error.message
    assert [attempt for id, attempt in began if id == "poison"] == [1, 2]
    assert events.of("requeued") == []


async def test_a_cancellation_that_says_why_is_stored_so(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> None:
        raise asyncio.CancelledError("the pool is closed")

    queue = await lab.start(handler, max_attempts=1)
    with pytest.raises(MaxRetriesError) as caught:
        await within(queue.enqueue_and_wait("a", 1))
    assert caught.value.error.message == "the pool is closed"


async def test_a_stop_still_gives_back_what_it_cuts_off(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    await within(queue.stop(timeout=0))
    assert [event.id for event in events.of("requeued")] == ["a"]
    record = await lab.record("a")
    assert (record.state, record.attempts) == ("queued", 0)


@pytest.mark.parametrize("pending", [True, False], ids=["pending", "raised"])
async def test_after_execution_is_not_hit_by_the_handlers_cancellation(lab: Lab, *, pending: bool) -> None:
    async def handler(job: Job[Any]) -> str:
        cancel_this_task()
        if not pending:
            await asyncio.sleep(0)
        return "made it"

    seen: list[Any] = []

    async def hook(context: AfterExecution) -> None:
        try:
            async with asyncio.TaskGroup() as group:  # which would take a cancellation left over for its own
                group.create_task(fail())
        except* ValueError:
            seen.append(context.error)
        context.result = "seen"

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    queue = await lab.start(handler, max_attempts=1, after_execution=hook)
    if pending:
        assert await within(queue.enqueue_and_wait("a", 1)) == "seen"
    else:
        with pytest.raises(MaxRetriesError):
            await within(queue.enqueue_and_wait("a", 1))
    assert len(seen) == 1


def cancel_runs() -> None:
    for task in asyncio.all_tasks():
        if "perform" in repr(task.get_coro()):
            task.cancel()


async def test_a_run_that_is_cancelled_before_it_begins_still_begins(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    queue = await lab.start(gate, visibility_timeout=9)
    queue.on("processing", lambda _: asyncio.get_running_loop().call_soon(cancel_runs))
    await queue.enqueue("a", 1)
    await clock.settle()
    assert not gate.began.is_set()
    gate.go.set()
    await clock.advance(4)
    assert [job.attempts for job in gate.jobs] == [1]
    assert await queue.get_result("a") == "done"


async def test_a_stop_ends_although_a_run_was_cancelled_before_it_began(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    gate.go.set()
    queue = await lab.start(gate)
    queue.on("processing", lambda _: asyncio.get_running_loop().call_soon(cancel_runs))
    await queue.enqueue("a", 1)
    await clock.settle()
    await within(queue.stop())
    assert await lab.state("a") == "completed"
