"""Runs that are ended from outside: by their timeout, on request, or because their lease is lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    CancelStatus,
    Job,
    JobCancelledError,
    MaxRetriesError,
)
from jobqueue.testing import FakeClock
from tests.support import (
    DeafStorage,
    Gate,
    Lab,
    Recorder,
    opened,
    until,
    within,
)

# -- job_timeout --------------------------------------------------------------------------------------


async def test_an_attempt_over_its_time_fails_and_is_retried(lab: Lab, clock: FakeClock) -> None:
    reasons: list[Any] = []

    async def handler(job: Job[Any]) -> str:
        if job.attempts == 3:
            return "third time lucky"
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append((job.aborted.is_set(), job.aborted_reason, clock.monotonic()))
        return "unreachable"

    queue = await lab.start(handler, job_timeout=5, backoff=Backoff.fixed(1))
    events = Recorder(queue)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(4.9)
    assert reasons == []
    await clock.advance(15)
    assert await within(call) == "third time lucky"
    assert [(set_, reason) for set_, reason, _ in reasons] == [(True, "timeout")] * 2
    assert [round(when) for _, _, when in reasons] == [5, 11]
    assert [event.error.type for event in events.of("failing")] == ["TimeoutError"] * 2


async def test_the_last_attempt_over_its_time_fails_the_job(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(Gate(), job_timeout=5, max_attempts=1)
    events = Recorder(queue)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(6)
    with pytest.raises(MaxRetriesError) as caught:
        await within(call)
    assert (caught.value.reason, caught.value.error.type) == ("timeout", "TimeoutError")
    assert "job_timeout" in caught.value.error.message
    assert events.of("failed")[0].reason == "timeout"


@pytest.mark.parametrize("ending", ["return", "raise"])
async def test_a_handler_that_swallows_its_cancellation_has_timed_out_all_the_same(
    lab: Lab, clock: FakeClock, ending: str
) -> None:
    async def handler(job: Job[Any]) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ending == "raise":
                raise ValueError("instead") from None
        return "too late"

    queue = await lab.start(handler, job_timeout=5, max_attempts=1)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(6)
    with pytest.raises(MaxRetriesError) as caught:
        await within(call)
    assert caught.value.reason == "timeout"
    assert await lab.finish(queue.stop()) is None


async def test_a_run_within_its_time_is_left_alone(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    queue = await lab.start(gate, job_timeout=5)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(4.9)
    gate.go.set()
    assert await within(call) == "done"
    await clock.advance(10)
    assert gate.cancelled == 0


async def test_a_thread_over_its_time_is_told_and_keeps_its_slot_until_it_ends(
    lab: Lab, clock: FakeClock
) -> None:
    began, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    def handler(job: Job[Any]) -> str:
        if job.id == "b":
            return "b ran"
        began.set()
        assert go.wait(10)
        seen.append((job.aborted.is_set(), job.aborted_reason))
        return "too late"

    queue = await lab.start(handler, job_timeout=5, max_attempts=1)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await until(began.is_set)
    await queue.enqueue("b", 2)
    await clock.advance(6)
    with pytest.raises(MaxRetriesError) as caught:
        await within(call)
    assert caught.value.reason == "timeout"
    assert await lab.state("b") == "queued", "a thread that still runs must not be joined by another"
    go.set()
    assert await within(queue.wait("b")) == "b ran"
    assert seen == [(True, "timeout")]
    assert await lab.state("a") == "failed"


async def test_the_lease_of_a_run_that_does_not_end_is_left_to_expire(lab: Lab, clock: FakeClock) -> None:
    """A hung handler is recovered although its process lives."""
    stuck, go = asyncio.Event(), asyncio.Event()

    async def handler(job: Job[Any]) -> None:
        if job.attempts > 1:
            return
        stuck.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    queue = await lab.start(handler, job_timeout=20, visibility_timeout=9)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(stuck.wait())
    try:
        await clock.advance(19)
        assert (await lab.storage.sweep("q", 10)) == []
        await clock.advance(10.5)
        (swept,) = await lab.storage.sweep("q", 10)
        assert (swept.id, swept.state) == ("a", "queued")
        assert events.of("stalled") == []
    finally:
        go.set()
    await clock.advance(1)
    assert [event.attempts for event in events.of("completed")] == [2]


# -- cancel -----------------------------------------------------------------------------------------


async def test_a_running_job_is_cancelled_wherever_it_runs(lab: Lab) -> None:
    gate = Gate()
    producer, worker = await lab.start(), await lab.start(gate)
    events = Recorder(worker)
    call = asyncio.create_task(producer.enqueue_and_wait("a", 1))
    await within(gate.began.wait())
    assert await producer.cancel("a", running=True) is CancelStatus.CANCELLING
    with pytest.raises(JobCancelledError):
        await within(call)
    (job,) = gate.jobs
    assert (job.aborted.is_set(), job.aborted_reason, gate.cancelled) == (True, "cancelled", 1)
    assert (await events.wait("cancelled")).id == "a"
    assert await lab.state("a") == "cancelled"
    assert (await producer.enqueue("a", 2)).status == "queued"


async def test_a_cancelled_handler_that_returns_all_the_same_is_cancelled(lab: Lab) -> None:
    began = asyncio.Event()

    async def handler(job: Job[Any]) -> str:
        began.set()
        await job.aborted.wait()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "a result"
        return "unreachable"

    queue = await lab.start(handler)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(began.wait())
    await queue.cancel("a", running=True)
    with pytest.raises(JobCancelledError):
        await within(call)
    assert await queue.get_result("a", "none") == "none"


async def test_a_cancelled_thread_reads_that_it_is(lab: Lab) -> None:
    began = threading.Event()
    seen: list[Any] = []

    def handler(job: Job[Any]) -> str:
        if job.id != "a":
            return "next"
        began.set()
        while not job.aborted.is_set():
            threading.Event().wait(0.001)
        seen.append(job.aborted_reason)
        return "ignored"

    queue = await lab.start(handler)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await until(began.is_set)
    await queue.cancel("a", running=True)
    with pytest.raises(JobCancelledError):
        await within(call)
    assert await within(queue.enqueue_and_wait("b", 1)) == "next"
    assert seen == ["cancelled"]


async def test_a_lost_cancel_request_is_found_by_the_renewal(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=9, block_timeout=0.1)
        await queue.enqueue("a", 1)
        await clock.advance(0.2)
        assert gate.began.is_set()
        await queue.cancel("a", running=True)
        await clock.advance(2)
        assert gate.cancelled == 0
        await clock.advance(1)
        assert (gate.cancelled, gate.jobs[0].aborted_reason) == (1, "cancelled")
        assert await lab.state("a") == "cancelled"
        await lab.close()


async def test_a_lost_cancel_request_is_found_by_a_progress_report(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab, began, go = Lab(storage), asyncio.Event(), asyncio.Event()

        async def handler(job: Job[Any]) -> None:
            began.set()
            await go.wait()
            await job.progress(1)
            await asyncio.Event().wait()

        queue = await lab.start(handler, block_timeout=0.1)
        await queue.enqueue("a", 1)
        await clock.advance(0.2)
        assert began.is_set()
        await queue.cancel("a", running=True)
        go.set()
        await clock.settle()
        assert await lab.state("a") == "cancelled"
        await lab.close()


async def test_a_result_that_races_with_a_cancel_request_loses(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, block_timeout=0.1)
        events = Recorder(queue)
        await queue.enqueue("a", 1)
        await clock.advance(0.2)
        await queue.cancel("a", running=True)
        gate.go.set()
        await clock.advance(0.1)
        assert await lab.state("a") == "cancelled"
        assert "completed" not in events.names
        assert len(events.of("cancelled")) == 1
        await lab.close()


async def test_cancel_hits_the_run_that_it_meant_and_no_later_one(lab: Lab) -> None:
    gates = [Gate("one"), Gate("two")]

    async def handler(job: Job[Any]) -> Any:
        return await gates[job.payload](job)

    queue = await lab.start(handler)
    await queue.enqueue("a", 0)
    await within(gates[0].began.wait())
    fence = gates[0].jobs[0].fence
    await queue.cancel("a", running=True)
    with pytest.raises(JobCancelledError):
        await within(queue.wait("a"))
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(gates[1].began.wait())
    assert queue._session is not None
    queue._session.waiters.cancel_requested("q", "a", fence)
    queue._session.waiters.cancel_requested("another queue", "a", gates[1].jobs[0].fence)
    gates[1].go.set()
    assert await within(call) == "two"
