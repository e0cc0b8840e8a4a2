"""Leases of runs: renewed, lost, stolen, distrusted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    Job,
    JobState,
    LeaseLostError,
    MaxRetriesError,
    SerializationError,
    StorageUnavailableError,
)
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import LeaseStatus, Renewal
from jobqueue.testing import FakeClock
from tests.support import (
    Gate,
    Hold,
    Lab,
    Recorder,
    WireStorage,
    echo,
    opened,
    within,
)

# -- leases -----------------------------------------------------------------------------------------


async def steal(lab: Lab, id: str) -> None:
    """Another worker gets the job of this one, as after an expired lease."""
    record = await lab.record(id)
    lab.clock.move(record.lease_until / 1000 - lab.clock.time() + 0.01)
    swept = await lab.storage.sweep("q", 10)
    assert [job.id for job in swept] == [id]


async def test_the_lease_is_renewed_while_the_run_goes_on(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    queue = await lab.start(gate, visibility_timeout=9)
    await queue.enqueue("a", 1)
    for _ in range(20):
        await clock.advance(2.9)
        record = await lab.record("a")
        assert record.lease_until / 1000 - clock.time() > 5.9
        assert await lab.storage.sweep("q", 10) == []
    gate.go.set()
    assert await within(queue.wait("a")) == "done"


async def test_a_run_that_has_ended_keeps_its_lease_until_its_outcome_is_handed_in(
    wire: WireStorage, clock: FakeClock
) -> None:
    lab = Lab(wire)
    gate = Gate()
    queue = await lab.start(gate, visibility_timeout=9)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    hold = Hold()
    wire.fault("exchange", before=hold)
    gate.go.set()
    await within(hold.reached.wait())
    await clock.advance(7)  # of the lease nothing would be left by now, had it not been renewed
    await clock.advance(4)
    assert await wire.inner.sweep("q", 10) == []
    await clock.advance(20)  # but an outcome that is never taken does not hold the job for ever
    assert [job.id for job in await wire.inner.sweep("q", 10)] == ["a"]
    wire.heal()
    hold.go.set()
    await lab.close()


@pytest.mark.parametrize("ending", ["return", "raise", "cancelled"])
async def test_a_run_that_lost_its_lease_changes_nothing(lab: Lab, clock: FakeClock, ending: str) -> None:
    gate = Gate("stale")

    async def handler(job: Job[Any]) -> Any:
        value = await gate(job)
        if ending == "raise":
            raise ValueError("stale")
        return value

    queue = await lab.start(handler, visibility_timeout=9, worker_id="w")
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    await steal(lab, "a")
    (stolen,) = (await lab.storage.exchange("q", "thief", [], 1, 60_000)).jobs
    if ending == "cancelled":
        await clock.advance(10)
        assert (gate.cancelled, gate.jobs[0].aborted_reason) == (1, "lease_lost")
    else:
        gate.go.set()
        await clock.settle()
    record = await lab.record("a")
    assert (record.state, record.worker, record.fence, record.error) == (
        "processing",
        "thief",
        stolen.fence,
        None,
    )
    (stalled,) = events.of("stalled")
    assert (stalled.id, stalled.queue, stalled.worker_id, stalled.stalls) == ("a", "q", "w", None)
    assert not {"completed", "failing", "failed"} & set(events.names)
    settled = await lab.storage.exchange(
        "q", "thief", [Settlement("a", stolen.fence, Action.COMPLETE, b'"thief"', 9999)], 0, 1
    )
    assert settled.settled == ["accepted"]
    assert await queue.get_result("a") == "thief"


async def test_the_same_id_may_run_twice_here_and_the_lost_run_loses(lab: Lab, clock: FakeClock) -> None:
    gates = [Gate("first"), Gate("second")]

    async def handler(job: Job[Any]) -> Any:
        return await gates[job.attempts - 1](job)

    queue = await lab.start(handler, visibility_timeout=9, concurrency=2)
    events = Recorder(queue)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(gates[0].began.wait())
    await steal(lab, "a")
    await within(gates[1].began.wait())
    gates[0].go.set()
    await clock.settle()
    assert not call.done()
    gates[1].go.set()
    assert await within(call) == "second"
    assert [event.result for event in events.of("completed")] == ["second"]
    assert len(events.of("stalled")) == 1
    assert gates[1].jobs[0].fence > gates[0].jobs[0].fence


async def test_progress_of_a_lost_run_raises(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    caught: list[BaseException] = []

    async def handler(job: Job[Any]) -> None:
        await gate(job)
        try:
            await job.progress(1)
        except LeaseLostError as error:
            caught.append(error)
            raise

    queue = await lab.start(handler, visibility_timeout=9)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    await steal(lab, "a")
    assert len((await lab.storage.exchange("q", "thief", [], 1, 60_000)).jobs) == 1
    gate.go.set()
    await clock.settle()
    assert "'a'" in str(caught[0])
    assert gate.jobs[0].aborted_reason == "lease_lost"
    assert "progress" not in events.names
    assert (await lab.record("a")).progress is None


async def test_progress_is_stored_and_told(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> None:
        for value in (0, {"step": 2}, None):
            await job.progress(value)
        with pytest.raises(SerializationError, match="progress"):
            await job.progress(object())

    queue = await lab.start(handler)
    events = Recorder(queue)
    await within(queue.enqueue_and_wait("a", 1))
    assert [event.value for event in events.of("progress")] == [0, {"step": 2}, None]
    assert {(event.id, event.queue) for event in events.of("progress")} == {("a", "q")}


async def test_progress_after_the_end_raises(lab: Lab) -> None:
    jobs: list[Job[Any]] = []

    async def handler(job: Job[Any]) -> None:
        jobs.append(job)

    queue = await lab.start(handler)
    await within(queue.enqueue_and_wait("a", 1))
    with pytest.raises(LeaseLostError):
        await jobs[0].progress(1)
    await lab.finish(queue.stop())
    with pytest.raises(LeaseLostError):
        await jobs[0].progress(1)


async def test_progress_renews_the_lease_and_the_trust_in_it(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=9)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        await clock.advance(2.5)
        await gate.jobs[0].progress(1)
        storage.break_down("extend")
        await clock.advance(5.9)
        assert gate.cancelled == 0
        await clock.advance(0.7)
        assert gate.cancelled == 1
        storage.heal()
        await lab.close()


async def test_a_worker_that_cannot_renew_distrusts_itself_in_time(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=9)
        events = Recorder(queue)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        began = clock.monotonic()
        storage.break_down("extend")
        await clock.advance(5.9)
        assert gate.cancelled == 0
        assert len(events.of("error")) >= 1
        assert {type(event.error) for event in events.of("error")} == {StorageUnavailableError}
        assert {event.doing for event in events.of("error")} == {"renewing leases"}
        await clock.advance(0.5)
        assert (gate.cancelled, gate.jobs[0].aborted_reason) == (1, "lease_lost")
        record = await lab.record("a")
        assert clock.monotonic() - began < 9
        assert record.state == "processing"
        assert len(events.of("stalled")) == 1
        storage.heal()
        await lab.close()


async def test_a_renewal_that_fails_is_tried_again_soon(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=9)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        storage.break_down("extend", times=3)
        await clock.advance(7)
        assert gate.cancelled == 0
        assert await lab.storage.sweep("q", 1) == []
        assert (await lab.record("a")).lease_until / 1000 - clock.time() > 5
        gate.go.set()
        assert await within(queue.wait("a")) == "done"
        await lab.close()


async def test_a_renewal_that_says_lost_ends_the_run_at_once(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=9)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        storage.fault("extend", change=lambda statuses: [LeaseStatus.LOST for _ in statuses])
        await clock.advance(2.9)
        assert gate.cancelled == 0
        await clock.advance(0.2)
        assert (gate.cancelled, gate.jobs[0].aborted_reason) == (1, "lease_lost")
        storage.heal()
        await lab.close()


async def test_trust_counts_from_the_question_and_not_from_the_answer(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate, hold = Lab(storage), Gate(), Hold()
        queue = await lab.start(gate, visibility_timeout=9)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        storage.fault("extend", times=1, after=hold)
        await clock.advance(3.1)
        assert hold.reached.is_set()
        await clock.advance(2.5)
        hold.go.set()
        storage.break_down("extend")
        await clock.advance(3.2)
        assert gate.cancelled == 0
        await clock.advance(1)
        assert gate.cancelled == 1, "the store counts the lease from when it was asked"
        storage.heal()
        await lab.close()


async def test_one_renewal_carries_all_leases(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=9, concurrency=20)
        await queue.enqueue_many((f"j{n}", n) for n in range(20))
        await clock.advance(3.1)
        assert len(gate.jobs) == 20
        assert storage.calls("extend") == 1
        await clock.advance(30)
        assert storage.calls("extend") == 11
        assert gate.cancelled == 0
        await lab.close()


async def test_an_idle_worker_renews_nothing(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab = Lab(storage)
        await lab.start(echo, visibility_timeout=9)
        await clock.advance(60)
        assert storage.calls("extend") == 0
        await lab.close()


async def test_the_first_reason_of_an_abort_stands(lab: Lab, clock: FakeClock) -> None:
    release = asyncio.Event()
    jobs: list[Job[Any]] = []

    async def handler(job: Job[Any]) -> None:
        jobs.append(job)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
            raise

    queue = await lab.start(handler, job_timeout=5, max_attempts=1)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(5.1)
    assert jobs[0].aborted_reason == "timeout"
    assert queue._session is not None
    queue._session.waiters.cancel_requested("q", "a", jobs[0].fence)
    release.set()
    with pytest.raises(MaxRetriesError) as caught:
        await within(call)
    assert (jobs[0].aborted_reason, caught.value.reason) == ("timeout", "timeout")


async def test_a_run_aborted_before_its_first_step_does_not_begin(clock: FakeClock) -> None:
    async with opened(MemoryStorage(clock=clock)) as storage:
        lab, runs = Lab(storage), []

        async def handler(job: Job[Any]) -> None:
            runs.append(job.id)

        queue = await lab.start(handler)

        def cancel_at_once(event: Any) -> None:
            assert queue._session is not None
            assert queue._session.worker is not None
            fence = next(iter(queue._session.worker._runs))
            asyncio.get_running_loop().call_soon(
                queue._session.waiters.cancel_requested, "q", event.id, fence
            )
            storage._engine.cancel("q", [event.id], int(clock.time() * 1000), running=True)

        queue.on("processing", cancel_at_once)
        await queue.enqueue("a", 1)
        await clock.settle()
        assert runs == []
        assert await lab.state("a") == JobState.CANCELLED
        await lab.close()


async def test_renewals_carry_progress_for_the_store(lab: Lab) -> None:
    """The store keeps progress that comes with a renewal, and drops it with the next claim."""
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    renewal = Renewal("a", gate.jobs[0].fence, b'"half"')
    assert await lab.storage.extend("q", queue.worker_id, [renewal], 30_000) == ["held"]
    status = await queue.get_status("a")
    assert status is not None
    assert status.progress == "half"
