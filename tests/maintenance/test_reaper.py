"""The reaper: what it recovers, abandons and deletes, and who of several leads."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from jobqueue import (
    JobFailedError,
    JobStalled,
    LeaderElection,
    Reaper,
    StorageError,
    StorageUnavailableError,
)
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import NewJob, Swept
from jobqueue.testing import FakeClock
from tests.support import (
    Hold,
    Lab,
    Reapers,
    Recorder,
    WireStorage,
    die,
    echo,
    opened,
    state,
    until,
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


@pytest.mark.parametrize("seconds", [0.0, 0.5])
async def test_a_sweep_begins_within_the_interval_whatever_the_last_one_took(
    wire: WireStorage, clock: FakeClock, reapers: Reapers, seconds: float
) -> None:
    begun: list[float] = []

    async def take_time() -> None:
        begun.append(clock.monotonic())
        await clock.sleep(seconds)

    wire.fault("queues", before=take_time)
    await reapers.start(sweep_interval=1)
    await clock.advance(100)
    pauses = sorted(after - before for before, after in pairwise(begun))
    assert 0.8 <= pauses[0] < 0.85, "it is spread"
    assert 0.9 < pauses[-1] <= 0.951, "the rest of the interval is for the sweep and the claim"


async def test_sweeps_that_take_longer_than_the_interval_follow_each_other(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    async def take_long() -> None:
        await clock.sleep(3)

    wire.fault("queues", before=take_long)
    await reapers.start(sweep_interval=1)
    await clock.advance(29)
    assert wire.calls("queues") == 10


async def test_a_job_is_recovered_within_lease_and_sweep_interval(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    await reapers.start(sweep_interval=1)
    for n in range(100):
        await clock.advance(n / 100)  # to meet the sweeps at every point of their interval
        await die(wire, "a")
        await clock.advance(1 + 1)
        assert await state(wire, "a") == "queued"
        await wire.cancel("q", ["a"])


async def test_a_queue_that_fails_keeps_no_other_from_being_swept(
    wire: WireStorage, clock: FakeClock, reapers: Reapers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in ("one", "two", "three", "four"):
        await die(wire, "a", queue=queue)
    sweep, purge = wire.inner.sweep, wire.inner.purge

    async def sweep_but_one(queue: str, limit: int) -> Any:
        if queue == "one":
            raise StorageUnavailableError("one is away")
        return await sweep(queue, limit)

    async def purge_but_two(queue: str, limit: int) -> int:
        if queue == "two":
            raise StorageError("two cannot be purged")
        return await purge(queue, limit)

    monkeypatch.setattr(wire.inner, "sweep", sweep_but_one)
    monkeypatch.setattr(wire.inner, "purge", purge_but_two)
    names = ["one", "two", "three", "four"]
    reaper, events = await reapers.start(names, sweep_interval=5)
    await clock.advance(1.5)
    events.events.clear()
    with pytest.raises(StorageUnavailableError, match="one is away"):
        await reaper.sweep()
    assert [await state(wire, "a", name) for name in names] == ["processing", "queued", "queued", "queued"]
    assert [(event.queue, event.doing, str(event.error)) for event in events.of("error")] == [
        ("one", "sweeping queue 'one'", "one is away"),
        ("two", "sweeping queue 'two'", "two cannot be purged"),
    ]
    assert not reaper.ready
    monkeypatch.undo()
    await clock.advance(5)
    assert reaper.ready
    assert await state(wire, "a", "one") == "queued"


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
    wire.fault("lock_release", before=hold)
    stopping = asyncio.create_task(reaper.stop())
    await within(hold.reached.wait())
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(stopping)
    assert wire.calls("close") == 1
    hold.go.set()
    await clock.settle()


async def test_run_returns_when_another_task_stops_it(wire: WireStorage) -> None:
    reaper = Reaper(wire)
    await within(reaper.until_broken())
    for _ in range(2):
        serving = asyncio.create_task(reaper.run())
        await until(lambda: reaper.ready)
        await within(reaper.stop())
        await within(serving)
    assert wire.calls("close") == 2


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


class CountingStorage(MemoryStorage):
    """Counts the sweeps of each queue."""

    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.sweeps: list[str] = []

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        self.sweeps.append(queue)
        return await super().sweep(queue, limit)


async def test_queues_with_nothing_to_sweep_are_left_alone(clock: FakeClock) -> None:
    async with opened(CountingStorage(clock=clock)) as storage:
        for n in range(250):
            await storage.insert(f"q{n}", [NewJob("a", b"")])
        await storage.exchange("q7", "w", [], 1, 2_000)
        async with Reaper(storage, sweep_interval=1.0):
            await clock.settle()
            assert sorted(storage.sweeps) == sorted(f"q{n}" for n in range(250))  # the first leaves none out
            storage.sweeps.clear()
            await clock.advance(5)
            assert set(storage.sweeps) == {"q7"}
            assert (await storage.counts("q7")).queued == 1
            storage.sweeps.clear()
            await clock.advance(60)
            assert set(storage.sweeps) == {f"q{n}" for n in range(250)}
