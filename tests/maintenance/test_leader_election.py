"""Of several reapers one leads, and others follow."""

from __future__ import annotations

from typing import Any

import pytest

from jobqueue import (
    JobQueueError,
    JobState,
    LeaderElection,
    LeadershipAcquired,
    LeadershipLost,
    Queue,
    Reaper,
)
from jobqueue.maintenance.presence import sweeping_reapers
from jobqueue.model.names import REAPER_LOCK, REAPERS
from jobqueue.storage.values import WORKER_SEEN_FOR
from jobqueue.testing import FakeClock
from tests.support import (
    Gate,
    Hold,
    Lab,
    Reapers,
    WireStorage,
    die,
    until,
    within,
)

ELECTION = LeaderElection(lock_ttl=10, renewal_interval=3, acquire_retry_interval=2)


# -- leader election ----------------------------------------------------------------------------------


async def test_one_of_two_leads_and_sweeps(wire: WireStorage, clock: FakeClock, reapers: Reapers) -> None:
    one, first = await reapers.start(sweep_interval=1, leader_election=ELECTION)
    await clock.settle()
    two, second = await reapers.start(sweep_interval=1, leader_election=ELECTION)
    await clock.advance(60)
    assert (one.is_leader, two.is_leader) == (True, False)
    assert one.ready
    assert two.ready
    assert first.events == [LeadershipAcquired(one.id, 1)]
    assert second.events == []
    holder = await wire.lock_holder(REAPER_LOCK)
    assert holder is not None
    assert (holder.owner, holder.term) == (one.id, 1)
    await die(wire, "a")
    await clock.advance(3)
    assert len(first.of("stalled")) == 1
    assert second.of("stalled") == []


async def test_reapers_of_many_queues_elect_one_of_them(clock: FakeClock, reapers: Reapers) -> None:
    names = [letter * 64 for letter in "abcdefgh"]
    one, _ = await reapers.start(queues=names, leader_election=ELECTION)
    await clock.settle()
    two, _ = await reapers.start(queues=names[::-1], leader_election=ELECTION)
    others, _ = await reapers.start(queues=names[1:], leader_election=ELECTION)
    await clock.advance(10)
    assert (one.is_leader, two.is_leader, others.is_leader) == (True, False, True)


async def test_a_leader_that_stops_is_followed_at_once(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    slow = LeaderElection(lock_ttl=3000, renewal_interval=1000, acquire_retry_interval=1000)
    one, first = await reapers.start(leader_election=slow)
    await clock.settle()
    two, second = await reapers.start(leader_election=slow)
    await clock.advance(1)
    await within(one.stop())
    assert first.events[-1] == LeadershipLost(one.id, 1, "stopped")
    await clock.advance(0.1)
    assert second.events == [LeadershipAcquired(two.id, 2)]
    assert two.is_leader


async def test_a_leader_that_dies_is_followed_when_its_lock_expires(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    assert await wire.lock_acquire(REAPER_LOCK, "dead", 10_000) == 1
    two, events = await reapers.start(leader_election=ELECTION)
    await clock.advance(9.9)
    assert not two.is_leader
    await clock.advance(2.6)
    assert events.events == [LeadershipAcquired(two.id, 2)]


async def test_a_leader_that_cannot_renew_steps_down_before_the_lock_expires(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    other = WireStorage(wire.inner)
    one, first = await reapers.start(leader_election=ELECTION, sweep_interval=1)
    await clock.advance(4)
    two, second = await reapers.start(storage=other, leader_election=ELECTION)
    wire.break_down("lock_renew", "lock_acquire", "lock_release", "wait_for_lock")
    stepped_down: list[int] = []
    one.on("leadership_lost", lambda event: stepped_down.append(clock.now_ms()))
    holder = await other.lock_holder(REAPER_LOCK)
    assert holder is not None
    while not stepped_down:
        await clock.advance(0.1)
        assert not (one.is_leader and two.is_leader)
        assert clock.now_ms() < holder.expires_at
    assert first.of("leadership_lost") == [LeadershipLost(one.id, 1, "no renewal succeeded in time")]
    assert {event.doing for event in first.of("error")} == {"electing the leading reaper"}
    assert len(first.of("error")) > 3, "it tries again before it gives up"
    swept = wire.calls("queues")
    await clock.advance(5)
    assert (one.is_leader, two.is_leader) == (False, True)
    assert second.of("leadership_acquired")[0].term == 2
    assert wire.calls("queues") == swept, "it sweeps without leading"
    wire.heal()
    await clock.advance(20)
    assert (one.is_leader, two.is_leader) == (False, True)


async def test_a_failed_renewal_is_tried_again_and_leadership_kept(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    one, events = await reapers.start(leader_election=ELECTION)
    await clock.settle()
    wire.break_down("lock_renew", times=4)
    await clock.advance(30)
    assert one.is_leader
    assert len(events.of("error")) == 4
    assert events.of("leadership_lost") == []
    assert events.of("leadership_acquired")[0].term == 1


async def test_a_leader_whose_lock_was_taken_steps_down(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    one, events = await reapers.start(leader_election=ELECTION)
    await clock.settle()
    assert await wire.lock_release(REAPER_LOCK, one.id)
    assert await wire.lock_acquire(REAPER_LOCK, "thief", 60_000) == 2
    await clock.advance(3.1)
    assert not one.is_leader
    assert events.of("leadership_lost") == [LeadershipLost(one.id, 1, "another took the lock")]
    holder = await wire.lock_holder(REAPER_LOCK)
    assert holder is not None
    assert holder.owner == "thief"
    await clock.advance(63)
    assert events.of("leadership_acquired")[-1].term == 3


async def test_the_trust_counts_from_before_the_call(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    """An answer that took long to come tells of a lock that is as old as the question."""
    hold = Hold()
    wire.fault("lock_acquire", times=1, after=hold)
    one, events = await reapers.start(leader_election=ELECTION)
    await within(hold.reached.wait())
    await clock.advance(8)
    hold.go.set()
    wire.break_down("lock_renew", "lock_acquire")
    await clock.advance(0.9)
    assert one.is_leader
    await clock.advance(0.2)
    assert not one.is_leader
    assert events.of("leadership_lost")[0].why == "no renewal succeeded in time"
    assert clock.monotonic() < 10


async def test_a_renewal_too_counts_from_before_the_call(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    one, _ = await reapers.start(leader_election=ELECTION)
    await clock.settle()
    hold = Hold()
    wire.fault("lock_renew", times=1, after=hold)
    await clock.advance(3.1)
    assert hold.reached.is_set()
    await clock.advance(4.9)
    hold.go.set()
    wire.break_down("lock_renew", "lock_acquire")
    await clock.advance(3.9)
    assert one.is_leader
    await clock.advance(0.2)
    assert not one.is_leader, "the store counts the lock from when it was asked"


async def test_a_store_that_cannot_be_asked_is_not_hammered(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    wire.break_down("lock_acquire")
    one, events = await reapers.start(leader_election=ELECTION)
    await clock.advance(20)
    assert not one.is_leader
    assert not one.ready
    assert 8 <= len(events.of("error")) <= 15
    wire.break_down("lock_acquire", "wait_for_lock")
    before = len(events.of("error"))
    await clock.advance(20)
    assert len(events.of("error")) - before <= 30
    wire.heal()
    await clock.advance(3)
    assert one.is_leader


async def test_a_lock_that_cannot_be_released_does_not_keep_a_reaper_from_stopping(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    one, events = await reapers.start(leader_election=ELECTION)
    await clock.settle()
    wire.break_down("lock_release")
    await within(one.stop())
    assert events.names[-2:] == ["leadership_lost", "error"]
    wire.heal()
    await within(one.start())
    await clock.settle()
    assert one.is_leader, "its own lock is still there, and it is its own"


async def test_a_duty_with_a_defect_gives_leadership_up(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    wire.fault("queues", raises=ZeroDivisionError("a defect"))
    one, events = await reapers.start(leader_election=ELECTION)
    await clock.settle()
    assert not one.is_leader
    assert events.names == ["leadership_acquired", "leadership_lost", "error"]
    assert await wire.lock_holder(REAPER_LOCK) is None


async def test_many_followers_share_a_release(wire: WireStorage, clock: FakeClock, reapers: Reapers) -> None:
    team = [(await reapers.start(leader_election=ELECTION))[0] for _ in range(5)]
    await clock.settle()
    for _ in range(5):
        await clock.advance(1)
        leaders = [reaper for reaper in team if reaper.is_leader]
        assert len(leaders) == 1
        await within(leaders[0].stop())
        team.remove(leaders[0])
    assert await wire.lock_holder(REAPER_LOCK) is None


async def test_what_it_does_is_logged(
    wire: WireStorage, clock: FakeClock, reapers: Reapers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jobqueue")
    await die(wire, "a")
    one, _ = await reapers.start(sweep_interval=1, leader_election=ELECTION)
    await clock.advance(3)
    await within(one.stop())
    for text in (
        f"reaper {one.id} leads, term ",
        "worker dead lost its lease",
        ": stopped",
    ):
        assert text in caplog.text


async def test_a_worker_and_a_reaper_survive_a_stolen_lease_together(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    """The worker cannot renew, the reaper recovers, another worker completes: one outcome."""
    lab, gate, cut = Lab(wire.inner), Gate("second"), WireStorage(wire.inner)
    first_gate = Gate("first")
    first: Queue[Any, Any] = Queue(cut, "q", visibility_timeout=9)
    first.execute(first_gate)
    await first.start()
    await first.enqueue("a", 1)
    await within(first_gate.began.wait())
    await reapers.start(sweep_interval=1)
    cut.break_down("extend", "exchange")
    second = await lab.start(gate)
    await clock.advance(12)
    assert first_gate.cancelled == 1
    assert gate.began.is_set()
    cut.heal()
    await clock.advance(6)
    gate.go.set()
    assert await within(second.wait("a")) == "second"
    (record,) = await wire.get("q", ["a"])
    assert (record.state, record.stalls, record.attempts) == (JobState.COMPLETED, 1, 2)
    await lab.finish(first.stop(timeout=0))
    await lab.close()


async def test_run_raises_what_broke_the_reaper(wire: WireStorage, clock: FakeClock) -> None:
    wire.fault("queues", raises=ZeroDivisionError("a defect"))
    reaper = Reaper(wire, sweep_interval=1)
    with pytest.raises(JobQueueError, match=r"reaper broke.*a defect"):
        await within(reaper.run())
    assert not reaper.is_leader
    await until(lambda: wire.calls("close") == 1)


async def test_reapers_of_different_queues_do_not_keep_each_other_from_sweeping(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    await reapers.start(["other"], sweep_interval=1, leader_election=ELECTION)
    await clock.settle()
    _, events = await reapers.start(sweep_interval=1, leader_election=ELECTION)
    await die(wire, "a")
    await clock.advance(3)
    assert len(events.of("stalled")) == 1


async def test_a_reaper_is_listed_while_it_sweeps(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    async def listed() -> set[str]:
        return {reaper.worker for reaper in await sweeping_reapers(wire)}

    leader, _ = await reapers.start(leader_election=ELECTION)
    follower, _ = await reapers.start(leader_election=ELECTION)
    alone, _ = await reapers.start(["q"])
    await clock.advance(120)
    assert await listed() == {leader.id, alone.id}
    await within(leader.stop())
    await clock.advance(2)
    assert await listed() == {follower.id, alone.id}
    await within(alone.stop())
    assert await listed() == {follower.id}
    assert await wire.queues() == []


async def test_a_dead_reaper_is_listed_no_longer(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    await wire.open()
    await wire.extend(REAPERS, "dead", (), 1)
    reaper, _ = await reapers.start()
    await clock.advance(WORKER_SEEN_FOR / 1000 + 1)
    assert [known.worker for known in await sweeping_reapers(wire)] == [reaper.id]
    await wire.close()


async def test_a_reaper_that_cannot_note_itself_sweeps_and_stops(
    wire: WireStorage, clock: FakeClock, reapers: Reapers
) -> None:
    await die(wire, "a")
    reaper, events = await reapers.start(sweep_interval=1)
    await clock.settle()
    wire.break_down("extend")
    await clock.advance(60)
    assert len(events.of("stalled")) == 1
    assert [event.doing for event in events.of("error")] == ["noting that this reaper sweeps"]
    await within(reaper.stop())
