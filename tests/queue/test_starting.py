"""Starts that fail, queues that break, and queues that are not started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import JobQueueError, Queue, StorageUnavailableError
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import (
    Hold,
    Lab,
    Recorder,
    WireStorage,
    echo,
    left_tasks,
    opened,
    standing,
    traceback_length,
    until,
    within,
)


async def test_what_every_job_passes_has_few_attributes(lab: Lab) -> None:
    """Above 30 attributes of an object CPython looks its methods up the slow way: 1 % of a request."""
    queue = lab.queue()
    queue.execute(echo)
    async with queue:
        assert await within(queue.enqueue_and_wait("a", 1)) == 1
        session = queue._session
        assert session is not None
        assert session.worker is not None
        for each in (queue, session, session.worker, session.waiters):
            assert len(vars(each)) <= 30, each


async def test_a_start_that_fails_leaves_nothing() -> None:
    wire, before = WireStorage(MemoryStorage(clock=FakeClock())), left_tasks()
    queue: Queue[Any, Any] = Queue(wire, "q")
    queue.execute(echo)
    wire.break_down("open")
    with pytest.raises(StorageUnavailableError):
        await within(queue.start())
    wire.heal()
    hold = Hold()
    wire.fault("subscribe", times=1, before=hold)
    starting = asyncio.create_task(queue.start())
    await within(hold.reached.wait())
    starting.cancel()
    hold.go.set()
    with pytest.raises(asyncio.CancelledError):
        await within(starting)
    assert wire.calls("close") == 1
    await until(lambda: left_tasks() == before)
    await within(queue.start())
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    await within(queue.stop())
    assert wire.calls("open") - 1 == wire.calls("close") == 2


async def test_a_worker_that_is_about_to_start_does_not_when_its_queue_stops() -> None:
    async with opened(WireStorage(MemoryStorage(clock=FakeClock()))) as storage:
        lab, hold, insert = Lab(storage), Hold(), Hold()
        queue = await lab.start()
        storage.fault("subscribe", times=1, before=hold)
        queue.execute(echo)
        await within(hold.reached.wait())
        storage.fault("insert", times=1, before=insert)
        call = asyncio.create_task(queue.enqueue("a", 1))
        await within(insert.reached.wait())
        stopping = asyncio.create_task(queue.stop())
        await lab.clock.settle()
        hold.go.set()
        await lab.clock.settle()
        insert.go.set()
        await within(stopping)
        assert (await within(call)).status == "queued"
        assert storage.calls("exchange") == 0
        assert await lab.state("a") == "queued"


async def test_a_start_raises_when_the_store_refuses_the_subscription(clock: FakeClock) -> None:
    wire, before = WireStorage(MemoryStorage(clock=clock)), left_tasks()
    queue: Queue[Any, Any] = Queue(wire, "q")
    queue.execute(echo)
    events = Recorder(queue)
    wire.break_down("subscribe")
    for _ in range(2):
        with pytest.raises(StorageUnavailableError, match="no connection"):
            await within(queue.start())
    assert wire.calls("open") == wire.calls("close") == 2
    assert events.names == []
    assert left_tasks() == before
    wire.heal()
    await within(queue.start())
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    await within(queue.stop())


async def test_a_handler_registered_later_waits_for_a_subscription_and_a_stop_ends_that(
    clock: FakeClock,
) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, before = Lab(storage), left_tasks()
        storage.break_down("subscribe")
        queue = await lab.start()
        queue.execute(echo)
        await clock.advance(60)
        assert storage.calls("subscribe") >= 60
        await within(queue.stop())
        assert left_tasks() == before


async def test_a_worker_whose_subscription_fails_tries_again(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab = Lab(storage)
        storage.break_down("subscribe", times=2)
        queue = await lab.start()
        events = Recorder(queue)
        queue.execute(echo)
        await clock.advance(5)
        assert [event.doing for event in events.of("error")] == ["subscribing to cancel requests"] * 2
        assert await within(queue.enqueue_and_wait("a", 1)) == 1
        await lab.close()


async def test_a_broken_queue_says_so_and_can_be_restarted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in a background task: nothing goes on half alive."""
    queue = await lab.start()
    events = Recorder(queue)
    waiting = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await until(lambda: standing(queue) == 1)
    await queue.get_status("a")
    session = queue._session
    assert session is not None

    async def broken(ids: list[str]) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(session.waiters, "_read", broken)
    session.waiters.resync()
    with pytest.raises(JobQueueError, match=r"broke and must be restarted.*a defect"):
        await within(waiting)
    for _ in range(20):
        with pytest.raises(JobQueueError, match="a defect"):
            await queue.enqueue("b", 1)
    with pytest.raises(JobQueueError) as caught:
        queue.execute(echo)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert traceback_length(caught.value) < 8, "every call has added to one traceback"
    assert isinstance((await events.wait("error")).error, ZeroDivisionError)
    await lab.finish(queue.stop())
    again: Queue[Any, Any] = lab.queue(echo)
    await within(again.start())
    assert await within(again.wait("a")) == 1


async def test_one_store_serves_many_queues_and_outlives_each(lab: Lab) -> None:
    queues = [await lab.start(echo, name=f"q{n}") for n in range(4)]
    for n, queue in enumerate(queues):
        assert await within(queue.enqueue_and_wait("a", n)) == n
        await lab.finish(queue.stop())
    assert [await lab.state("a", f"q{n}") for n in range(4)] == ["completed"] * 4


async def test_an_unstarted_queue_refuses_every_call(lab: Lab) -> None:
    queue = lab.queue()
    calls = [
        queue.enqueue("a", 1), queue.enqueue_many([("a", 1)]), queue.enqueue_and_wait("a", 1),
        queue.wait("a"), queue.cancel("a"), queue.get_result("a"), queue.get_status("a"),
        queue.update_result_ttl("a", 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(JobQueueError, match=r"queue 'q' is not started.*start\(\)"):
            await call
    assert await lab.state("a") is None


class SlowToOpen(MemoryStorage):
    async def open(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await super().open()


@pytest.mark.parametrize("turns", range(10))
async def test_a_start_that_is_cancelled_as_the_store_opens_leaves_it_closed(turns: int) -> None:
    storage = SlowToOpen(clock=FakeClock())
    queue: Queue[Any, Any] = Queue(storage, "q")
    starting = asyncio.create_task(queue.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    if not starting.cancelled():
        await within(queue.stop())
    assert storage._opened == 0
