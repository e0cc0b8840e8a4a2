"""Waits that end without a result, or cannot begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from jobqueue.client.waiters import LAST_LOOK
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import (
    Gate,
    Hold,
    Lab,
    WireStorage,
    echo,
    left_tasks,
    opened,
    standing,
    until,
    within,
)


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


async def test_a_wait_that_times_out_says_that_nobody_works(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(name="mail")
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.advance(3.1)
    with pytest.raises(WaitTimeoutError, match=r"still queued; no worker of queue 'mail' has been seen"):
        await within(call)


async def test_a_wait_that_times_out_says_who_runs_the_job(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(Gate(), worker_id="w7")
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.advance(3.1)
    with pytest.raises(WaitTimeoutError, match="still processing by worker 'w7'; the job goes on") as caught:
        await within(call)
    assert "has been seen" not in str(caught.value)


async def test_a_wait_that_times_out_tells_the_last_error(lab: Lab, clock: FakeClock) -> None:
    async def handler(job: Job[Any]) -> None:
        raise ValueError("no route\n2026-01-01 ERROR all is lost " + "x" * 9000)

    queue = await lab.start(handler, backoff=Backoff.fixed(60))
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.advance(3.1)
    with pytest.raises(WaitTimeoutError, match="attempt 1 of 3 ended in ValueError: no route 2026") as caught:
        await within(call)
    text = str(caught.value)
    assert "still failing until 2023-11-14T22:14:20+00:00" in text
    assert "has been seen" not in text
    assert "\n" not in text
    assert len(text) < 600
    status = await queue.get_status("a")
    assert status is not None
    assert status.error is not None
    assert status.error.message.startswith("no route")


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

    async def stored() -> None:
        while await lab.state("a") is None:
            await asyncio.sleep(0.001)

    await within(stored())  # a stop cuts an insert off that is still on its way
    await within(queue.stop())
    for call in calls:
        with pytest.raises(JobQueueError, match="stop"):  # or cut off by it, if the store is slow
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
        assert len(storage.inner._hints) == 0, "the address is still subscribed"


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


# -- a store that is silent ---------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["batched", "single"])
async def silent(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[WireStorage]:
    async with opened(WireStorage(MemoryStorage(clock=clock), batched=request.param)) as storage:
        yield storage
        storage.heal()


@pytest.mark.parametrize("call", ["insert", "subscribe"])
async def test_the_timeout_bounds_a_call_that_the_store_never_answers(
    silent: WireStorage, clock: FakeClock, call: str
) -> None:
    lab, hold, before = Lab(silent), Hold(), left_tasks()
    queue = await lab.start()
    silent.fault(call, before=hold)

    async def caller() -> int:
        with pytest.raises(WaitTimeoutError, match=r"not answered in time: job 'a' may be stored or not"):
            await queue.enqueue_and_wait("a", 1, timeout=3)
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)  # nothing of a cancellation is left
        return task.cancelling()

    calling = asyncio.create_task(caller())
    await within(hold.reached.wait())
    await clock.advance(2.9)
    assert not calling.done()
    await clock.advance(0.2)
    assert await within(calling) == 0
    assert standing(queue) == 0
    silent.heal()
    hold.go.set()
    await clock.settle()
    queue.execute(echo)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    await lab.close()
    assert left_tasks() == before


async def test_a_job_whose_answer_came_too_late_is_joined_by_the_next_call(
    silent: WireStorage, clock: FakeClock
) -> None:
    lab, hold = Lab(silent), Hold()
    queue = await lab.start()
    silent.fault("insert", times=1, after=hold)
    call = asyncio.create_task(queue.enqueue_and_wait("a", "first", timeout=3))
    await within(hold.reached.wait())
    await clock.advance(3)
    with pytest.raises(WaitTimeoutError):
        await within(call)
    hold.go.set()
    queue.execute(echo)
    assert await within(queue.enqueue_and_wait("a", "second")) == "first"
    await lab.close()


async def test_the_timeout_bounds_a_wait_that_the_store_never_answers(
    silent: WireStorage, clock: FakeClock
) -> None:
    lab, hold = Lab(silent), Hold()
    queue = await lab.start()
    await queue.enqueue("a", 1)
    silent.fault("get", before=hold)
    call = asyncio.create_task(queue.wait("a", timeout=3))
    await within(hold.reached.wait())
    await clock.advance(3)
    with pytest.raises(WaitTimeoutError, match="nothing is known of job 'a'"):
        await within(call)
    silent.heal()
    hold.go.set()
    await lab.close()


async def test_the_last_look_at_a_silent_store_is_bounded(silent: WireStorage, clock: FakeClock) -> None:
    lab, hold, before = Lab(silent), Hold(), left_tasks()
    queue = await lab.start()
    silent.fault("get", before=hold)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.advance(3 + LAST_LOOK - 0.1)
    assert not call.done()
    await clock.advance(0.2)
    with pytest.raises(WaitTimeoutError, match="it is silent"):
        await within(call)
    silent.heal()
    hold.go.set()
    await lab.close()
    assert left_tasks() == before


async def test_a_cancellation_stays_one_when_the_store_is_silent(
    silent: WireStorage, clock: FakeClock
) -> None:
    lab, hold = Lab(silent), Hold()
    queue = await lab.start()
    silent.fault("insert", before=hold)
    early = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    late = asyncio.create_task(queue.enqueue_and_wait("b", 1, timeout=3))
    await within(hold.reached.wait())
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(early)
    await clock.advance(2.9)
    clock.move(0.2)  # its time is up, and before it can run it is cancelled too
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(late)
    silent.heal()
    hold.go.set()
    await lab.close()


async def test_a_call_in_the_clean_up_of_a_cancelled_task_is_bounded_too(
    silent: WireStorage, clock: FakeClock
) -> None:
    lab, hold = Lab(silent), Hold()
    queue = await lab.start()
    silent.fault("insert", before=hold)

    async def caller() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with pytest.raises(WaitTimeoutError):
                await queue.enqueue_and_wait("a", 1, timeout=3)

    calling = asyncio.create_task(caller())
    await clock.settle()
    calling.cancel()
    await within(hold.reached.wait())
    await clock.advance(3)
    with pytest.raises(asyncio.CancelledError):
        await within(calling)
    assert calling.cancelling() == 1
    silent.heal()
    hold.go.set()
    await lab.close()


async def test_a_memory_store_of_ones_own_may_be_silent_too(clock: FakeClock) -> None:
    class Hanging(MemoryStorage):
        async def insert(self, *args: Any, **options: Any) -> Any:
            await asyncio.Event().wait()

    lab = Lab(Hanging(clock=clock))
    queue = await lab.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.advance(3)
    with pytest.raises(WaitTimeoutError, match="may be stored or not"):
        await within(call)
    await lab.close()


@pytest.mark.parametrize("how", ["silent", "broken"])
async def test_what_is_known_of_the_job_is_told_although_nothing_is_known_of_workers(
    silent: WireStorage, clock: FakeClock, how: str
) -> None:
    lab, hold, before = Lab(silent), Hold(), left_tasks()
    queue = await lab.start()
    if how == "silent":
        silent.fault("workers", before=hold)
    else:
        silent.break_down("workers")
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.advance(3 + LAST_LOOK + 0.1)
    with pytest.raises(WaitTimeoutError, match="still queued; the job goes on"):
        await within(call)
    silent.heal()
    hold.go.set()
    await lab.close()
    assert left_tasks() == before
