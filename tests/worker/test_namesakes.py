"""Two living workers of one name: reported once, and only if both live."""

from __future__ import annotations

import asyncio

from jobqueue import JobQueueError
from jobqueue.worker.namesakes import TTL
from tests.support import Lab, Recorder, WireStorage, echo, within

LONG = TTL / 1000 + 60


async def test_it_is_reported_once(wire: WireStorage) -> None:
    lab = Lab(wire)
    first = await lab.start(echo, worker_id="web")
    second = await lab.start(echo, worker_id="web")
    events = [Recorder(first), Recorder(second)]
    await lab.clock.advance(LONG)
    await lab.clock.advance(LONG)
    (problem,) = [event for recorder in events for event in recorder.of("error")]
    assert isinstance(problem.error, JobQueueError)
    assert "named 'web', too" in str(problem.error)
    assert "its own worker_id" in str(problem.error)
    await lab.close()


async def test_the_name_of_one_that_died_may_be_used_again(wire: WireStorage) -> None:
    lab = Lab(wire)
    first = await lab.start(echo, worker_id="web")
    await lab.clock.settle()
    for task in asyncio.all_tasks():  # so it cannot release anything
        if task.get_name() == "jobqueue-name":
            task.cancel()
    wire.break_down("lock_release")
    await within(first.stop())
    wire.heal()
    events = Recorder(await lab.start(echo, worker_id="web"))
    await lab.clock.advance(LONG)
    assert events.of("error") == []
    await lab.close()


async def test_the_name_of_one_that_stopped_is_free_at_once(wire: WireStorage) -> None:
    lab = Lab(wire)
    first = await lab.start(echo, worker_id="web")
    await lab.clock.settle()
    assert await wire.lock_holder("worker:q:web") is not None
    await within(first.stop())
    assert await wire.lock_holder("worker:q:web") is None


async def test_the_longest_name_is_watched_and_released(wire: WireStorage) -> None:
    lab = Lab(wire)
    queue, longest = "q" * 64, "é" * 128
    first = await lab.start(echo, name=queue, worker_id=longest)
    second = await lab.start(echo, name=queue, worker_id=longest)
    events = [Recorder(first), Recorder(second)]
    await lab.clock.advance(LONG)
    (problem,) = [event for recorder in events for event in recorder.of("error")]
    assert "too: it is" in str(problem.error)
    await within(first.stop())
    await within(second.stop())
    assert sum(len(recorder.of("error")) for recorder in events) == 1
    await lab.close()


async def test_other_names_producers_and_other_queues_are_no_namesakes(wire: WireStorage) -> None:
    lab = Lab(wire)
    queues = [
        await lab.start(echo, worker_id="web"),
        await lab.start(worker_id="web"),
        await lab.start(echo, worker_id="other"),
        await lab.start(echo, name="other", worker_id="web"),
        await lab.start(echo),
        await lab.start(echo),
    ]
    events = [Recorder(queue) for queue in queues]
    await lab.clock.advance(LONG)
    assert [event for recorder in events for event in recorder.of("error")] == []
    await lab.close()


async def test_a_worker_whose_name_was_drawn_asks_for_no_lock(wire: WireStorage) -> None:
    lab = Lab(wire)
    await lab.start(echo)
    await lab.clock.advance(LONG)
    assert wire.calls("lock_acquire") == 0
    await lab.close()


async def test_a_store_that_refuses_locks_is_no_namesake(wire: WireStorage) -> None:
    lab = Lab(wire)
    wire.break_down("lock_acquire", "lock_holder", "lock_release")
    queue = await lab.start(echo, worker_id="web")
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == 1
    await lab.clock.advance(LONG)
    assert queue.ready
    wire.heal()
    await lab.close()
