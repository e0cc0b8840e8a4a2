"""Waiting for results: pushed, raced, lost, late, and gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    Fatal,
    Job,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    MaxRetriesError,
    SerializationError,
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

    async def subscribe(self, address: str, sink: Any) -> None:
        await self.inner.subscribe(address, _Thin(sink))

    async def unsubscribe(self, address: str, sink: Any) -> None:
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
    await lab.storage.unsubscribe(waiters.address, waiters)
    await other.cancel("a")
    await other.enqueue("a", "new")
    await lab.storage.subscribe(waiters.address, waiters)
    await clock.advance(5.1)
    other.execute(echo)
    await clock.settle()
    assert call.done(), "it waits for the next poll"
    assert await call == "new"


async def test_wait_for_an_unknown_id(lab: Lab) -> None:
    queue = await lab.start(echo)
    with pytest.raises(JobNotFoundError, match="'nobody'"):
        await within(queue.wait("nobody"))


async def test_a_wait_for_a_job_of_another_ends_in_time_too(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start()
    await queue.enqueue("a", 1, delay=60)
    call = asyncio.create_task(queue.wait("a", timeout=3))
    await clock.advance(2.9)
    assert not call.done()
    await clock.advance(0.2)
    with pytest.raises(WaitTimeoutError, match="still scheduled"):
        await within(call)
    assert standing(queue) == 0


async def test_wait_for_a_cancelled_job(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", 1)
    waiting = asyncio.create_task(queue.wait("a"))
    await until(lambda: standing(queue) == 1)
    await queue.get_status("a")
    await queue.cancel("a")
    with pytest.raises(JobCancelledError):
        await within(waiting)
    with pytest.raises(JobCancelledError):
        await within(queue.wait("a"))


async def test_wait_for_a_failed_job(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> None:
        raise {"fatal": Fatal("no"), "error": ValueError("bad")}[job.payload]

    queue = await lab.start(handler, max_attempts=1)
    await queue.enqueue("f", "fatal")
    await queue.enqueue("e", "error")
    with pytest.raises(JobFailedError) as fatal:
        await within(queue.wait("f"))
    with pytest.raises(MaxRetriesError) as error:
        await within(queue.wait("e"))
    assert (type(fatal.value), fatal.value.reason) == (JobFailedError, "fatal")
    assert (error.value.error.type, error.value.error.message) == ("ValueError", "bad")
    assert (error.value.reason, error.value.attempts, error.value.job_id) == ("error", 1, "e")
    assert "ValueError: bad" in str(error.value)


async def test_the_wait_goes_on_over_retries(lab: Lab, clock: FakeClock) -> None:
    async def handler(job: Job[Any]) -> int:
        if job.attempts < 3:
            raise ValueError
        return job.attempts

    queue = await lab.start(handler, backoff=Backoff.fixed(4))
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(7.9)
    assert not call.done()
    await clock.advance(0.2)
    assert await within(call) == 3


async def test_a_scheduled_job_is_waited_for(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(echo)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, delay=20))
    await clock.advance(19.9)
    assert not call.done()
    await clock.advance(0.2)
    assert await within(call) == 1


async def test_stopping_ends_the_waits(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("b", 1)
    calls = [asyncio.create_task(queue.enqueue_and_wait("a", 1)), asyncio.create_task(queue.wait("b"))]
    await until(lambda: standing(queue) == 2)
    await within(queue.stop())
    for call in calls:
        with pytest.raises(JobQueueError, match="stopped"):
            await within(call)
    assert await lab.state("a") == "queued"


async def test_stopping_ends_a_wait_whose_insert_is_on_its_way() -> None:
    async with opened(WireStorage(MemoryStorage(), batched=False)) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start()
        storage.fault("insert", times=1, after=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await within(hold.reached.wait())
        await within(queue.stop())
        hold.go.set()
        with pytest.raises(JobQueueError, match="stopped"):
            await within(call)


async def test_stopping_ends_a_wait_that_is_about_to_subscribe() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start()
        storage.fault("subscribe", times=1, before=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await within(hold.reached.wait())
        stopping = asyncio.create_task(queue.stop())
        await asyncio.sleep(0.01)
        hold.go.set()
        await within(stopping)
        with pytest.raises(JobQueueError):
            await within(call, 2)
        assert not storage.inner._hints._sinks, "the address is still subscribed"


async def test_a_poll_does_not_answer_a_wait_whose_insert_is_on_its_way(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start(echo)
        storage.fault("insert", times=1, before=hold)
        call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await within(hold.reached.wait())
        await clock.advance(11)
        assert storage.calls("get") >= 2
        assert not call.done(), "there is no such job yet, but there will be"
        hold.go.set()
        assert await within(call) == 1
        await lab.close()


async def test_the_first_subscriber_may_leave() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start()
        storage.fault("subscribe", times=1, before=hold)
        first = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        second = asyncio.create_task(queue.enqueue_and_wait("b", 2))
        await within(hold.reached.wait())
        first.cancel()
        hold.go.set()
        queue.execute(echo)
        assert await within(second) == 2
        assert storage.calls("subscribe") == 1
        await lab.close()


async def test_a_result_that_cannot_be_read_says_so(lab: Lab) -> None:
    class Picky:
        def dumps(self, value: Any) -> bytes:
            return b"\xff"

        def loads(self, data: bytes) -> Any:
            raise LookupError("foreign bytes")

        def __repr__(self) -> str:
            return "Picky()"

    queue = await lab.start(echo, result_serde=Picky())
    with pytest.raises(SerializationError, match=r"result cannot be read by Picky.*foreign bytes"):
        await within(queue.enqueue_and_wait("a", 1))
    with pytest.raises(SerializationError):
        await queue.get_result("a")
    with pytest.raises(SerializationError):
        await queue.get_status("a")
    with pytest.raises(SerializationError):
        await queue.enqueue("a", 1)
