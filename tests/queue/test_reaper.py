"""The reaper: what it recovers, abandons and deletes, and who of several leads."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue import (
    JobFailedError,
    JobStalled,
    LeaderElection,
    Reaper,
    StorageError,
    StorageUnavailableError,
)
from jobqueue.storage.base import NewJob
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.queue.support import (
    Hold,
    Lab,
    Reapers,
    Recorder,
    WireStorage,
    die,
    echo,
    state,
    within,
)

ELECTION = LeaderElection(lock_ttl=10, renewal_interval=3, acquire_retry_interval=2)


async def test_jobs_of_a_dead_worker_run_again(wire: WireStorage, clock: FakeClock, reapers: Reapers) -> None:
    lab = Lab(wire)
    await die(wire, "a", "b")
    _, events = await reapers.start(sweep_interval=5)
    queue = await lab.start(echo)
    await clock.advance(0.9)
    assert events.of("stalled") == []
    await clock.advance(5.7)
    assert events.of("stalled") == [JobStalled(id, "q", "dead", 1, False) for id in "ab"]
    assert [await queue.get_result(id) for id in "ab"] == [1, 1]
    status = await queue.get_status("a")
    assert status is not None
    assert status.attempts == 2
    await lab.close()


async def test_a_job_that_keeps_killing_its_workers_is_abandoned(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    lab = Lab(wire)
    queue = await lab.start()
    _, events = await reapers.start(sweep_interval=1)
    await die(wire, "a", max_stalls=1, max_attempts=1)
    waiting = asyncio.create_task(queue.wait("a"))
    await clock.advance(2.5)
    assert await state(wire, "a") == "queued", "attempts used up are no reason to end a stalled job"
    assert (await wire.exchange("q", "dead too", [], 1, 1000)).jobs[0].attempts == 2
    await clock.advance(2.5)
    with pytest.raises(JobFailedError) as caught:
        await within(waiting)
    assert (caught.value.reason, caught.value.attempts, caught.value.error.type) == ("stalled", 2, "Stalled")
    assert [(event.stalls, event.failed, event.worker_id) for event in events.of("stalled")] == [
        (1, False, "dead"),
        (2, True, "dead too"),
    ]
    await lab.close()


async def test_expired_records_are_deleted(wire: WireStorage, clock: FakeClock, reapers: Reapers) -> None:
    lab = Lab(wire)
    queue = await lab.start(echo, result_ttl=3)
    for n in range(20):
        await within(queue.enqueue_and_wait(f"j{n}", n))
    await reapers.start(sweep_interval=1)
    engine = wire.inner._engine  # type: ignore[attr-defined]
    assert engine.size() == 20
    await clock.advance(4.5)
    assert engine.size() == 0
    await lab.close()


async def test_a_sweep_takes_all_in_batches(wire: WireStorage, clock: FakeClock) -> None:
    await wire.insert("q", [NewJob(f"j{n}", b"1") for n in range(1200)])
    for _ in range(2):
        await wire.exchange("q", "dead", [], 1000, 1000)
    clock.move(2)
    reaper = Reaper(wire)
    events = Recorder(reaper)
    assert await reaper.sweep() == 1200
    assert len(events.of("stalled")) == 1200
    assert await reaper.sweep() == 0


async def test_all_queues_or_those_named(wire: WireStorage, clock: FakeClock) -> None:
    for queue in ("one", "two", "three"):
        await die(wire, "a", queue=queue)
    clock.move(2)
    assert await Reaper(wire, ["one", "absent"]).sweep() == 1
    assert [await state(wire, "a", queue) for queue in ("one", "two", "three")] == [
        "queued",
        "processing",
        "processing",
    ]
    assert await Reaper(wire, []).sweep() == 0
    assert await Reaper(wire).sweep() == 2


async def test_any_number_of_reapers_recover_each_job_once(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    recorders = [(await reapers.start(sweep_interval=1))[1] for _ in range(4)]
    await die(wire, *(f"j{n}" for n in range(10)))
    await clock.advance(4)
    told = [event.id for recorder in recorders for event in recorder.of("stalled")]
    assert sorted(told) == sorted(f"j{n}" for n in range(10))


async def test_a_sweep_that_fails_is_reported_and_the_next_works(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    reaper, events = await reapers.start(sweep_interval=1)
    await clock.settle()
    assert reaper.ready
    await die(wire, "a")
    wire.break_down("sweep", "purge", "queues")
    await clock.advance(3)
    assert not reaper.ready
    assert {(event.doing, event.queue, type(event.error)) for event in events.of("error")} == {
        ("sweeping", None, StorageUnavailableError)
    }
    assert await state(wire, "a") == "processing"
    wire.heal()
    await clock.advance(1.2)
    assert reaper.ready
    assert await state(wire, "a") == "queued"


async def test_its_life(wire: WireStorage, clock: FakeClock) -> None:
    reaper = Reaper(wire, sweep_interval=1)
    assert not reaper.is_leader
    await reaper.stop()
    await within(asyncio.gather(*(reaper.start() for _ in range(3))))
    assert reaper.is_leader
    assert wire.calls("open") == 2
    await within(asyncio.gather(*(reaper.stop() for _ in range(3))))
    assert not reaper.is_leader
    assert not reaper.ready
    assert wire.calls("close") == 1
    swept = wire.calls("queues")
    await clock.advance(10)
    assert wire.calls("queues") == swept
    async with reaper as entered:
        assert entered is reaper
        await clock.advance(1)
        assert wire.calls("queues") > swept


async def test_a_start_that_fails_leaves_nothing(wire: WireStorage) -> None:
    reaper = Reaper(wire)
    wire.break_down("open")
    with pytest.raises(StorageUnavailableError):
        await reaper.start()
    assert not reaper.is_leader
    wire.heal()
    async with asyncio.timeout(5), reaper:
        assert reaper.is_leader


async def test_a_stop_cancelled_half_way_closes_the_store(wire: WireStorage, clock: FakeClock) -> None:
    reaper = Reaper(wire, sweep_interval=1, leader_election=ELECTION)
    await reaper.start()
    await clock.settle()
    hold = Hold()
    wire.fault("release", before=hold)
    stopping = asyncio.create_task(reaper.stop())
    await within(hold.reached.wait())
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(stopping)
    assert wire.calls("close") == 1
    hold.go.set()
    await clock.settle()


async def test_a_sweep_needs_an_open_store(clock: FakeClock) -> None:
    with pytest.raises(StorageError, match="not open"):
        await Reaper(MemoryStorage(clock=clock)).sweep()


async def test_a_defect_is_told_and_a_restart_heals_it(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    wire.fault("queues", raises=ZeroDivisionError("a defect"))
    reaper, events = await reapers.start(sweep_interval=1)
    await clock.settle()
    assert isinstance((await events.wait("error")).error, ZeroDivisionError)
    assert not reaper.ready
    assert not reaper.is_leader
    await within(reaper.stop())
    wire.heal()
    await within(reaper.start())
    await clock.settle()
    assert reaper.ready
    assert reaper.is_leader
