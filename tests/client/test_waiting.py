"""Waiting for results: pushed, raced, lost, late, and gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    Job,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    MaxRetriesError,
    ResultExpiredError,
    WaitTimeoutError,
)
from jobqueue.model.states import JobState
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Reply
from jobqueue.testing import FakeClock
from tests.support import (
    DeafStorage,
    Gate,
    Hold,
    Lab,
    Recorder,
    WireStorage,
    echo,
    opened,
    standing,
    until,
    within,
)


async def test_many_wait_for_one_job(lab: Lab) -> None:
    gate = Gate("result")
    queue, other = await lab.start(gate), await lab.start(gate)
    calls = [asyncio.create_task(q.enqueue_and_wait("a", 1)) for q in (queue, other, queue)]
    calls.append(asyncio.create_task(other.wait("a")))
    await within(gate.began.wait())
    gate.go.set()
    assert await within(asyncio.gather(*calls[:3])) == ["result"] * 3
    assert calls[3].done() or await within(calls[3]) == "result"
    assert len(gate.jobs) == 1
    assert standing(queue) == standing(other) == 0


async def test_one_of_two_leaves_by_cancellation(lab: Lab) -> None:
    gate = Gate("result")
    queue = await lab.start(gate)
    leaver = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    stayer = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(gate.began.wait())
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    await until(lambda: standing(queue) == 1)
    gate.go.set()
    assert await within(stayer) == "result"


async def test_one_of_two_leaves_by_timeout(lab: Lab, clock: FakeClock) -> None:
    gate = Gate("result")
    queue = await lab.start(gate)
    leaver = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=2))
    stayer = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=20))
    await clock.advance(1.9)
    assert not leaver.done()
    await clock.advance(0.2)
    with pytest.raises(WaitTimeoutError, match="still processing"):
        await within(leaver)
    assert standing(queue) == 1
    gate.go.set()
    assert await within(stayer) == "result"


async def test_a_timeout_is_a_timeout_error_and_cancels_nothing(lab: Lab) -> None:
    gate = Gate("late")
    queue = await lab.start(gate)
    with pytest.raises(TimeoutError) as caught:
        await within(queue.enqueue_and_wait("a", 1, timeout=0.05) if not lab.storage.clock.virtual
                     else lab.finish(queue.enqueue_and_wait("a", 1, timeout=0.05)))  # fmt: skip
    assert isinstance(caught.value, WaitTimeoutError)
    gate.go.set()
    assert await within(queue.wait("a")) == "late"


async def test_the_result_that_came_unheard_is_found_when_time_is_up(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, block_timeout=0.5)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=1))
        await clock.advance(0.9)
        assert await lab.state("a") == "completed"
        assert not call.done()
        await clock.advance(0.2)
        assert await within(call) == 1
        await lab.close()


async def test_lost_notifications_cost_at_most_five_seconds(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, block_timeout=0.5, concurrency=2000)
        calls = [asyncio.create_task(queue.enqueue_and_wait(f"j{n}", n)) for n in range(1100)]
        calls.append(asyncio.create_task(queue.wait("j1")))
        await clock.advance(0.6)
        assert not any(call.done() for call in calls)
        await clock.advance(5.0)
        assert await within(asyncio.gather(*calls)) == [*range(1100), 1]
        assert standing(queue) == 0
        await lab.close()


async def test_after_a_reconnection_the_outcome_is_read_at_once(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, block_timeout=0.5)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await clock.advance(0.6)
        assert queue._session is not None
        queue._session.waiters.resync()
        assert await within(call) == 1
        await lab.close()


async def test_the_reply_may_come_before_the_answer_of_the_insert() -> None:
    async with opened(WireStorage(MemoryStorage(), batched=False)) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start(echo)
        await within(queue.enqueue_and_wait("warm", 0))
        completed = Recorder(queue)
        storage.fault("insert", times=1, after=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await completed.wait("completed")
        hold.go.set()
        assert await within(call, 2) == 1
        await lab.close()


@pytest.mark.parametrize("how", ["insert", "get"])
async def test_an_early_reply_without_its_result_has_it_fetched_at_once(clock: FakeClock, how: str) -> None:
    """A result too large to push, told before the answer of the call that registered the waiter."""
    async with opened(TooLarge(MemoryStorage(clock=clock), batched=False)) as storage:
        lab, hold, gate = Lab(storage), Hold(), Gate("big")
        queue = await lab.start(gate)
        if how == "get":
            await queue.enqueue("a", 1)
            await within(gate.began.wait())
        storage.fault(how, times=1, after=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1) if how == "insert" else queue.wait("a"))
        await within(hold.reached.wait())
        gate.go.set()
        await clock.settle()
        assert await lab.state("a") == "completed"
        hold.go.set()
        await clock.settle()
        assert call.done(), "it waited for the next poll"
        assert await call == "big"
        await lab.close()


class _Thin:
    """Passes replies on without their data, as a store does with what is too large to push."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.cancel_requested = sink.cancel_requested
        self.resync = sink.resync

    def deliver(self, replies: Any) -> None:
        self.sink.deliver([reply._replace(data=None) for reply in replies])


class TooLarge(WireStorage):
    """Pushes no result, as if all were too large."""

    async def subscribe(self, queue: str, address: str, sink: Any) -> None:
        await self.inner.subscribe(queue, address, _Thin(sink))

    async def unsubscribe(self, queue: str, address: str, sink: Any) -> None:
        return None


async def test_a_result_too_large_to_push_is_fetched(clock: FakeClock) -> None:
    async with opened(TooLarge(MemoryStorage(clock=clock))) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, concurrency=10)
        calls = [queue.enqueue_and_wait(f"j{n}", [n]) for n in range(30)]
        assert await within(asyncio.gather(*calls)) == [[n] for n in range(30)]
        await lab.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_an_outcome_that_expired_before_it_was_fetched(clock: FakeClock, fails: bool) -> None:
    async def handler(job: Job[Any]) -> None:
        if fails:
            raise ValueError

    async with opened(TooLarge(MemoryStorage(clock=clock))) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start(handler, result_ttl=1, max_attempts=1)
        storage.fault("get", times=1, before=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await within(hold.reached.wait())
        clock.move(2)
        hold.go.set()
        with pytest.raises(
            JobFailedError if fails else ResultExpiredError, match="expired before it was read"
        ):
            await within(call)
        await lab.close()


async def test_an_error_too_large_to_push_is_fetched(clock: FakeClock) -> None:
    async def handler(job: Job[Any]) -> None:
        raise ValueError("large")

    async with opened(TooLarge(MemoryStorage(clock=clock))) as storage:
        lab = Lab(storage)
        queue = await lab.start(handler, max_attempts=1)
        with pytest.raises(MaxRetriesError, match="ValueError: large"):
            await within(queue.enqueue_and_wait("a", 1))
        await lab.close()


async def test_what_a_reply_told_of_is_read_before_all_that_may_have_been_missed(clock: FakeClock) -> None:
    async with opened(TooLarge(MemoryStorage(clock=clock))) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start(concurrency=1)
        await queue.enqueue("told", "large", priority=1)
        told = asyncio.create_task(queue.wait("told"))
        waiting = [asyncio.create_task(queue.enqueue_and_wait(f"j{n}", n)) for n in range(3000)]
        await clock.settle()
        storage.fault("get", times=1, before=hold)
        assert queue._session is not None
        queue._session.waiters.resync()
        await within(hold.reached.wait())
        worker = await lab.start(echo, concurrency=1)
        await until(lambda: queue._session is not None and bool(queue._session.waiters._told))
        before = storage.calls("get")
        hold.go.set()
        assert await within(told) == "large"
        assert storage.calls("get") <= before + 2
        await worker.stop()
        for call in waiting:
            call.cancel()
        await lab.close()


async def test_a_record_that_expires_unheard_ends_the_wait(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, block_timeout=0.2, result_ttl=1)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await clock.advance(6)
        with pytest.raises(JobNotFoundError):
            await within(call)
        await lab.close()


async def test_cancel_then_enqueue_again_gives_each_waiter_its_own_answer(lab: Lab) -> None:
    queue = await lab.start()
    old = asyncio.create_task(queue.enqueue_and_wait("a", "old"))
    await until(lambda: standing(queue) == 1)
    await queue.get_status("a")
    while await lab.state("a") != "queued":
        await asyncio.sleep(0)
    await queue.cancel("a")
    new = asyncio.create_task(queue.enqueue_and_wait("a", "new"))
    with pytest.raises(JobCancelledError):
        await within(old)
    queue.execute(echo)
    assert await within(new) == "new"


async def test_a_stale_reply_does_not_reach_the_new_waiter(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", "old")
    seq = (await lab.record("a")).seq
    await queue.cancel("a")
    call = asyncio.create_task(queue.enqueue_and_wait("a", "new"))
    await until(lambda: standing(queue) == 1)
    assert queue._session is not None
    waiters = queue._session.waiters
    ends = ((JobState.CANCELLED, None), (JobState.COMPLETED, b'"old"'), (JobState.COMPLETED, None))
    stale = [Reply("q", "a", seq, state, data, 1) for state, data in ends]
    waiters.deliver(stale)  # perhaps before the insert is answered,
    await until(lambda: waiters._waiting["a"].seq > 0)
    waiters.deliver(stale)  # and surely after it
    waiters.deliver([Reply("another", "a", seq + 1, JobState.COMPLETED, b'"other queue"', 1)])
    assert not call.done()
    queue.execute(echo)
    assert await within(call) == "new"


async def test_a_rerun_is_waited_for_and_not_its_predecessor(lab: Lab) -> None:
    queue = await lab.start(echo)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    for n in range(2, 12):
        assert await within(queue.enqueue_and_wait("a", n, reuse="rerun")) == n


@pytest.mark.parametrize("timeout", [3, 30], ids=["when time is up", "at the next poll"])
@pytest.mark.parametrize("runs", [False, True])
async def test_a_waiter_whose_job_was_replaced_unheard_does_not_take_the_other_for_it(
    clock: FakeClock, timeout: float, runs: bool
) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start()
        calls = [asyncio.create_task(queue.enqueue_and_wait("a", "old", timeout=timeout))]
        await clock.settle()
        calls.append(asyncio.create_task(queue.wait("a", timeout=timeout)))
        await clock.settle()
        await queue.cancel("a")
        await queue.enqueue("a", "new")
        if runs:
            queue.execute(echo)
        await clock.advance(5.1)
        for call in calls:
            with pytest.raises(JobNotFoundError, match="another job has its id"):
                await within(call)
        queue.execute(echo) if not runs else None
        await clock.advance(5.1)
        assert await queue.get_result("a") == "new"
        await lab.close()


@pytest.mark.parametrize("timeout", [3, 30], ids=["when time is up", "at the next poll"])
async def test_a_store_that_lost_the_job_does_not_answer_with_its_predecessor(
    wire: WireStorage, clock: FakeClock, timeout: float
) -> None:
    lab = Lab(wire)
    queue = await lab.start(echo)
    assert await within(queue.enqueue_and_wait("a", "old")) == "old"
    before = await lab.record("a")
    gate = Gate()
    await queue.stop()
    queue = await lab.start(gate)
    call = asyncio.create_task(queue.enqueue_and_wait("a", "new", reuse="rerun", timeout=timeout))
    await within(gate.began.wait())
    wire.fault("get", change=lambda _records: [before])
    await clock.advance(5.1)
    with pytest.raises(JobNotFoundError, match="lost its last writes"):
        await within(call)
    wire.heal()
    gate.go.set()
    await lab.close()


async def test_what_is_pushed_during_the_last_look_counts(wire: WireStorage, clock: FakeClock) -> None:
    lab, hold, gate = Lab(wire), Hold(), Gate("late")
    queue = await lab.start(gate)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await within(gate.began.wait())
    wire.fault("get", before=hold)
    await clock.advance(3.1)
    await within(hold.reached.wait())
    gate.go.set()
    await clock.advance(1.1)
    assert await within(call) == "late"
    wire.heal()
    hold.go.set()
    await lab.close()
