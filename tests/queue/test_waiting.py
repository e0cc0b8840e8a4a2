"""Waiting for results: pushed, raced, lost, late, and gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    JobCancelledError,
    JobNotFoundError,
    WaitTimeoutError,
)
from jobqueue.job import JobState
from jobqueue.storage.base import Reply
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.queue.support import (
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
        self.cancel = sink.cancel
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


async def test_a_result_that_expired_before_it_was_fetched(clock: FakeClock) -> None:
    async with opened(TooLarge(MemoryStorage(clock=clock))) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start(echo, result_ttl=1)
        storage.fault("get", times=1, before=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await within(hold.reached.wait())
        clock.move(2)
        hold.go.set()
        with pytest.raises(JobNotFoundError, match="expired"):
            await within(call)
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


async def test_a_waiter_whose_job_was_replaced_unheard_gets_the_new_outcome(clock: FakeClock) -> None:
    async with opened(DeafStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start()
        call = asyncio.create_task(queue.enqueue_and_wait("a", "old"))
        await clock.settle()
        await queue.cancel("a")
        await queue.enqueue("a", "new")
        await clock.advance(5)
        assert not call.done()
        queue.execute(echo)
        await clock.advance(12)
        assert await within(call) == "new"
        await lab.close()


async def test_who_moved_on_to_a_new_job_is_pushed_its_outcome(lab: Lab, clock: FakeClock) -> None:
    queue, other = await lab.start(), await lab.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", "old"))
    await clock.settle()
    assert queue._session is not None
    waiters = queue._session.waiters
    await lab.storage.unsubscribe(queue.name, waiters.address, waiters)
    await other.cancel("a")
    await other.enqueue("a", "new")
    await lab.storage.subscribe(queue.name, waiters.address, waiters)
    await clock.advance(5.1)
    other.execute(echo)
    await clock.settle()
    assert call.done(), "it waits for the next poll"
    assert await call == "new"
