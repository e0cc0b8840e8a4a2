"""Jobs that have to start in time, as users meet them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    EnqueueRequest,
    FailureReason,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobState,
    MaxRetriesError,
    Queue,
    Reaper,
    ReasonKind,
)
from jobqueue.testing import FakeClock
from tests.support import Lab, Recorder, within


async def handler(job: Job[Any]) -> Any:
    return job.payload


async def expired(queue: Queue[Any, Any], id: str) -> None:
    """Check all that is told of a job that has not started in time."""
    with pytest.raises(JobFailedError, match="expires") as caught:
        await within(queue.wait(id))
    assert (caught.value.reason, caught.value.attempts) == (FailureReason.EXPIRED, 0)
    assert not isinstance(caught.value, MaxRetriesError)
    status = await queue.get_status(id)
    assert status is not None
    assert (status.state, status.reason, status.attempts) == (JobState.FAILED, FailureReason.EXPIRED, 0)
    assert status.history == ()
    (reason,) = (await queue.jobs.explain(id)).reasons
    assert reason.kind is ReasonKind.ENDED
    assert "without an attempt" in reason.detail


async def test_a_worker_that_meets_a_late_job_fails_it_and_says_so(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start()
    await queue.enqueue("late", 1, expires=5.0)
    await queue.enqueue("good", 2)
    clock.move(4.999)
    assert await lab.state("late") == "queued"
    (reason, *_) = (await queue.jobs.explain("late")).reasons
    assert reason.kind is ReasonKind.NO_WORKER
    clock.move(0.001)
    (reason,) = (await queue.jobs.explain("late")).reasons
    assert (reason.kind, reason.until) == (ReasonKind.EXPIRED, None)
    await queue.stop()
    queue.execute(handler)
    heard = Recorder(queue)
    await queue.start()
    assert await lab.finish(queue.wait("good")) == 2
    await heard.wait("dead_lettered")
    for name in ("failed", "dead_lettered"):
        (event,) = heard.of(name)
        assert (event.id, event.reason, event.attempts) == ("late", FailureReason.EXPIRED, 0)
    assert [event.id for event in heard.of("processing")] == ["good"]
    await expired(queue, "late")


async def test_a_reaper_finds_it_and_tells_who_waits(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start()
    waiting = asyncio.ensure_future(queue.enqueue_and_wait("late", 1, timeout=600.0, expires=5.0))
    await clock.settle()
    clock.move(5.0)
    reaper = Reaper(lab.storage)
    heard = Recorder(reaper)
    assert await reaper.sweep() == 0, "no lease was lost"
    with pytest.raises(JobFailedError, match="expires"):
        await within(waiting)
    (event,) = heard.of("dead_lettered")
    assert (event.id, event.reason, event.worker_id) == ("late", FailureReason.EXPIRED, "")
    assert heard.of("stalled") == []
    await expired(queue, "late")


async def test_a_timer_of_ones_own_finds_it_too(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start()
    await queue.enqueue("late", 1, expires=5.0)
    clock.move(5.0)
    heard = Recorder(queue)
    assert await queue.reclaim() == 0
    assert [event.reason for event in heard.of("failed")] == [FailureReason.EXPIRED]
    assert [event.id for event in heard.of("dead_lettered")] == ["late"]


async def test_the_letter_runs_when_somebody_asks_for_it(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start()
    await queue.enqueue("late", 1, expires=5.0)
    clock.move(5.0)
    await queue.reclaim()
    letter = await queue.jobs.get("late")
    assert letter is not None
    assert (letter.payload, letter.expires) == (1, 5.0)
    assert await queue.jobs.retry("late") == 1
    clock.move(60.0)
    await queue.stop()
    queue.execute(handler)
    await queue.start()
    assert await lab.finish(queue.wait("late")) == 1


async def test_every_way_to_ask_for_it(lab: Lab, clock: FakeClock) -> None:
    queue = lab.queue()

    @queue.task(expires=5.0)
    async def send(to: str) -> str:
        return to

    async def look(id: str) -> float | None:
        status = await queue.get_status(id)
        assert status is not None
        return status.expires

    async with queue.producer():
        await queue.enqueue("a", 1, expires=0.0001)
        await queue.enqueue_many([EnqueueRequest("b", 1, expires=2.5), ("c", 1)])
        declared = await send.enqueue("x")
        own = await send.using(expires=7).enqueue("x")
        never = await send.using(expires=None).enqueue("x")
        assert [await look(id) for id in ("a", "b", "c", declared.id, own.id, never.id)] == [
            0.001, 2.5, None, 5.0, 7.0, None,
        ]  # fmt: skip
        await queue.schedules.add("often", send, args=("x",), every=60.0)
        await queue.schedules.add("seldom", 1, every=60.0, expires=9.0)
        for name, expires in (("often", 5.0), ("seldom", 9.0)):
            assert await look((await queue.schedules.run_now(name)).id) == expires
        clock.move(1)


@pytest.mark.parametrize("expires", [0, -1, float("nan"), "60", True, 10**12])
def test_a_task_is_declared_with_seconds(lab: Lab, clock: FakeClock, expires: Any) -> None:
    del clock
    with pytest.raises(InvalidArgumentError, match=r"^expires: "):
        lab.queue().task(expires=expires)
