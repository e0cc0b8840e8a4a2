"""Jobs that were claimed although nobody takes the answer: given back as soon as that is known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import Job, JobQueueError, LeaderElection
from jobqueue.runtime.timers import Timers
from tests.support import Gate, Hold, Lab, Reapers, Recorder, WireStorage, within


def cancel_claimer() -> None:
    (claimer,) = [task for task in asyncio.all_tasks() if task.get_name() == "jobqueue-claimer"]
    claimer.cancel()


async def test_outcomes_of_a_call_that_was_cut_off_count_once(wire: WireStorage) -> None:
    lab, gate, taken = Lab(wire), Gate(), Hold()
    queue = await lab.start(gate, concurrency=1)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    wire.fault("exchange", times=1, after=taken)
    gate.go.set()
    await within(taken.reached.wait())
    cancel_claimer()
    with pytest.raises(JobQueueError):
        await within(queue.until_broken())
    taken.go.set()
    await within(queue.stop())
    assert [event.id for event in events.of("completed")] == ["a"]
    assert await lab.state("a") == "completed"
    assert events.of("stalled") == []


async def test_what_could_not_be_launched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []

    async def handler(job: Job[Any]) -> None:
        began.append(job.id)

    start, started = Timers.start, []

    def fail_at_the_second(self: Timers, timed: Any, seconds: float) -> None:
        started.append(timed)
        if len(started) == 2:
            raise ZeroDivisionError("a defect")
        start(self, timed, seconds)

    producer = await lab.start()
    await producer.enqueue_many((f"j{n}", n) for n in range(3))
    monkeypatch.setattr(Timers, "start", fail_at_the_second)
    queue = await lab.start(handler, concurrency=3, job_timeout=60)
    with pytest.raises(JobQueueError, match="a defect"):
        await within(queue.until_broken())
    await within(queue.stop())
    assert {await lab.state(f"j{n}") for n in range(3) if f"j{n}" not in began} == {"queued"}
    assert (await lab.storage.counts("q")).processing == 0


async def test_a_lock_that_a_reaper_was_about_to_get_is_free_when_it_has_stopped(
    reapers: Reapers, wire: WireStorage
) -> None:
    taken = Hold()
    wire.fault("lock_acquire", times=1, after=taken)
    reaper, _ = await reapers.start(leader_election=LeaderElection())
    await within(taken.reached.wait())
    assert await wire.lock_holder("reaper") is not None
    await within(reaper.stop())
    assert await wire.lock_holder("reaper") is None
