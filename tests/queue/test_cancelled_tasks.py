"""Background tasks that other code cancels: noticed, never missing without a word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import Job, JobQueueError, LeaderElection, StorageUnavailableError
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import (
    Gate,
    Hold,
    Lab,
    Reapers,
    Recorder,
    WireStorage,
    echo,
    opened,
    until,
    within,
)


def cancel_tasks(*names: str) -> None:
    found = [task for task in asyncio.all_tasks() if task.get_name() in names]
    assert found, sorted(task.get_name() for task in asyncio.all_tasks())
    for task in found:
        task.cancel()


TASKS = ("jobqueue-claimer", "jobqueue-heartbeat", "jobqueue-waiters", "jobqueue-hint", "jobqueue-supervisor")


@pytest.mark.parametrize("names", [*((name,) for name in TASKS), TASKS], ids=[*TASKS, "all"])
async def test_a_queue_breaks_and_ends_its_runs(lab: Lab, clock: FakeClock, names: tuple[str, ...]) -> None:
    gate = Gate()
    queue = await lab.start(gate, concurrency=2)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    waiting = asyncio.create_task(queue.wait("a"))
    await clock.settle()
    cancel_tasks(*names)
    with pytest.raises(JobQueueError, match="cancelled by other code"):
        await within(queue.until_broken())
    assert not queue.ready
    with pytest.raises(JobQueueError, match="must be restarted"):
        await within(waiting)
    with pytest.raises(JobQueueError, match="must be restarted"):
        await queue.enqueue("b", 2)
    await clock.settle()
    assert gate.cancelled == 1, "a run went on although nothing renewed its lease"
    await within(queue.stop())
    assert [event.doing for event in events.of("error")] == ["running the queue's background tasks"]
    assert gate.jobs[0].aborted_reason == "lease_lost"
    assert (await lab.record("a")).state == "processing"
    await clock.advance(30)
    (swept,) = await lab.storage.sweep("q", 10)
    assert (swept.state, swept.stalls) == ("queued", 1)
    gate.go.set()
    await within(queue.start())
    assert await within(queue.wait("a")) == "done"


async def test_a_job_that_breaks_its_worker_each_time_ends(lab: Lab, clock: FakeClock) -> None:
    runs: list[int] = []

    async def handler(job: Job[Any]) -> None:
        runs.append(job.attempts)
        cancel_tasks("jobqueue-claimer")
        await asyncio.Event().wait()

    queue = lab.queue(handler, max_stalls=2)
    for _ in range(5):
        await within(queue.start())
        if len(runs) == 0:
            await queue.enqueue("a", 1)
        await clock.settle()
        await within(queue.stop())
        await clock.advance(30)
        await lab.storage.sweep("q", 10)
    assert len(runs) == 3
    assert await lab.state("a") == "failed"


async def test_outcomes_that_were_there_before_it_broke_are_stored(wire: WireStorage) -> None:
    lab, gate, hold = Lab(wire), Gate("done"), Hold()
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    wire.fault("exchange", times=1, before=hold)
    gate.go.set()
    await within(hold.reached.wait())
    cancel_tasks("jobqueue-claimer")
    with pytest.raises(JobQueueError):
        await within(queue.until_broken())
    await within(queue.stop())
    assert await lab.state("a") == "completed"


async def test_a_queue_that_broke_stops_although_a_handler_does_not_end(lab: Lab, clock: FakeClock) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def handler(_job: Any) -> None:
        began.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    queue = await lab.start(handler)
    await queue.enqueue("a", 1)
    await within(began.wait())
    cancel_tasks("jobqueue-claimer")
    await clock.settle()
    await lab.finish(queue.stop())
    assert await lab.state("a") == "processing"
    go.set()


async def test_a_handler_that_cancels_everything_has_used_an_attempt(lab: Lab, clock: FakeClock) -> None:
    async def handler(_job: Any) -> None:
        tests = {asyncio.current_task()}
        for task in asyncio.all_tasks() - tests:
            if task.get_name().startswith("jobqueue-"):
                task.cancel()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)  # it breaks the queue before it ends

    queue = await lab.start(handler, max_attempts=1)
    await queue.enqueue("a", 1)
    await clock.settle()
    await clock.settle()
    await within(queue.stop())
    assert await lab.state("a") == "failed"


@pytest.fixture(params=["before its first step", "in flight"])
async def caught(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "in flight")


async def test_a_batch_that_is_cancelled_is_answered_and_the_next_is_sent(caught: bool) -> None:
    async with opened(WireStorage(MemoryStorage(clock=FakeClock()))) as wire:
        lab, hold = Lab(wire), Hold()
        queue = await lab.start()
        wire.fault("insert", times=1, before=hold)
        call = asyncio.create_task(queue.enqueue("a", 1))
        await until(lambda: any(task.get_name() == "jobqueue-batch" for task in asyncio.all_tasks()))
        if caught:
            await within(hold.reached.wait())
        cancel_tasks("jobqueue-batch")
        with pytest.raises(StorageUnavailableError, match="may have been done or not"):
            await within(call)
        wire.heal()
        assert (await within(queue.enqueue("b", 1))).status == "queued"
        await lab.close()


async def test_a_subscription_that_is_cancelled_is_made_again(caught: bool) -> None:
    async with opened(WireStorage(MemoryStorage(clock=FakeClock()))) as wire:
        lab, hold = Lab(wire), Hold()
        queue = await lab.start()
        wire.fault("subscribe", times=1, before=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await until(lambda: any(task.get_name() == "jobqueue-subscribe" for task in asyncio.all_tasks()))
        if caught:
            await within(hold.reached.wait())
        cancel_tasks("jobqueue-subscribe")
        await lab.start(echo)
        assert await within(call) == 1
        await lab.close()


async def test_a_reaper_breaks(reapers: Reapers) -> None:
    reaper, events = await reapers.start(["q"])
    await until(lambda: reaper.ready)
    cancel_tasks("jobqueue-reaper")
    with pytest.raises(JobQueueError, match="cancelled by other code"):
        await within(reaper.until_broken())
    assert (reaper.ready, reaper.is_leader) == (False, False)
    assert [event.doing for event in events.of("error")] == ["running the reaper"]


@pytest.mark.parametrize("name", ["jobqueue-leadership", "jobqueue-duty"])
async def test_a_leader_whose_task_is_cancelled_leads_anew(reapers: Reapers, name: str) -> None:
    reaper, events = await reapers.start(["q"], leader_election=LeaderElection())
    await events.wait("leadership_acquired")
    await until(lambda: reaper.ready)
    cancel_tasks(name)
    again = await events.wait("leadership_acquired", 2)
    assert "cancelled by other code" in events.of("leadership_lost")[0].why
    assert again.term > events.of("leadership_acquired")[0].term
    await until(lambda: reaper.ready)
    assert events.of("error") == []
