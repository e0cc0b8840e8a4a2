"""Starting, stopping, and what becomes of the jobs."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from jobqueue import Job, JobQueueError, RunNext
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import (
    Gate,
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


async def test_starting_and_stopping_twice_does_nothing(lab: Lab) -> None:
    queue = lab.queue(echo)
    events = Recorder(queue)
    await queue.stop()
    await queue.start()
    await queue.start()
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    await lab.finish(queue.stop())
    await queue.stop()
    assert [name for name in events.names if name in {"started", "stopped"}] == ["started", "stopped"]


async def test_a_stopped_worker_is_no_longer_listed(lab: Lab) -> None:
    await lab.storage.open()
    queue = lab.queue(echo, worker_id="w1")
    async with queue:
        await within(queue.enqueue_and_wait("a", 1))
        assert [known.worker for known in await lab.storage.workers("q")] == ["w1"]
        await lab.finish(queue.stop())
    assert await lab.storage.workers("q") == []


async def test_a_stopped_queue_can_start_again(lab: Lab) -> None:
    queue = lab.queue(echo)
    for n in range(4):
        async with asyncio.timeout(10):
            await queue.start()
            assert await queue.enqueue_and_wait(f"j{n}", n) == n
            await lab.finish(queue.stop())
        with pytest.raises(JobQueueError, match="not started"):
            await queue.enqueue("x", 1)
    assert await lab.state("x") is None


async def test_concurrent_starts_and_stops_come_to_rest(lab: Lab) -> None:
    queue = lab.queue(echo)
    events = Recorder(queue)
    await within(asyncio.gather(*(queue.start() for _ in range(5))))
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    await within(asyncio.gather(*(lab.finish(queue.stop()) for _ in range(5))))
    await within(asyncio.gather(queue.start(), queue.stop(), queue.start(), queue.stop(), queue.start()))
    assert await within(queue.enqueue_and_wait("b", 2)) == 2
    assert events.names.count("started") == events.names.count("stopped") + 1 == 4


async def test_run_returns_when_another_task_stops_it(lab: Lab) -> None:
    gate = Gate()
    queue = lab.queue(gate)
    await within(queue.until_broken())
    serving = asyncio.create_task(queue.run())
    await until(lambda: queue.ready)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0.01)
    assert not serving.done(), "a job still runs"
    gate.go.set()
    await within(stopping)
    await within(serving)
    assert await lab.state("a") == "completed"


async def test_run_leaves_a_queue_alone_that_another_task_restarts(lab: Lab) -> None:
    queue = lab.queue(echo)
    serving = asyncio.create_task(queue.run())
    await until(lambda: queue.ready)
    await lab.finish(queue.stop())
    await within(queue.start())
    await within(serving)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1


async def test_the_context_manager_starts_and_stops(lab: Lab) -> None:
    queue = lab.queue(echo)
    async with queue as entered:
        assert entered is queue
        assert "started" in repr(queue)
        assert await within(queue.enqueue_and_wait("a", 1)) == 1
    assert "stopped" in repr(queue)
    with pytest.raises(RuntimeError, match="mine"):
        async with queue:
            raise RuntimeError("mine")
    with pytest.raises(JobQueueError, match="not started"):
        await queue.get_status("a")


async def test_nothing_is_left_after_a_stop(lab: Lab) -> None:
    before = left_tasks()
    queue = await lab.start(echo, concurrency=3, job_timeout=100)
    await within(asyncio.gather(*(queue.enqueue_and_wait(None, n) for n in range(20))))
    session = queue._session
    assert session is not None
    await lab.finish(queue.stop())
    await until(lambda: left_tasks() == before)
    assert session.timers._lanes == session.timers._heads == {}


async def test_a_drain_lets_running_jobs_end_and_claims_no_more(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue_many([("a", 1), ("b", 2)])
    await within(gate.began.wait())
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    gate.go.set()
    await within(stopping)
    assert (await lab.state("a"), await lab.state("b")) == ("completed", "queued")
    assert [job.id for job in gate.jobs] == ["a"]


async def test_what_a_draining_handler_enqueues_is_stored(lab: Lab) -> None:
    gate = Gate()

    async def handler(job: Job[Any]) -> Any:
        await gate(job)
        return (await queue.enqueue("child", 2)).status

    queue = await lab.start(handler)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0.01)
    gate.go.set()
    await within(stopping)
    assert (await lab.state("a"), await lab.state("child")) == ("completed", "queued")


async def test_at_the_end_of_the_timeout_runs_are_aborted_and_given_back(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    queue = await lab.start(gate, concurrency=2)
    events = Recorder(queue)
    await queue.enqueue_many([("a", 1), ("b", 2), ("c", 3)])
    await clock.settle()
    stopping = asyncio.create_task(queue.stop(timeout=5))
    await clock.advance(4.9)
    assert gate.cancelled == 0
    await clock.advance(0.2)
    await within(stopping)
    assert gate.cancelled == 2
    assert [job.aborted_reason for job in gate.jobs] == ["shutdown"] * 2
    for id in "abc":
        record = await lab.record(id)
        assert (record.state, record.attempts, record.stalls) == ("queued", 0, 0)
    assert sorted(event.id for event in events.of("requeued")) == ["a", "b"]
    assert events.names[-1] == "stopped"
    other = await lab.start(echo)
    ran = Recorder(other)
    await clock.settle()
    assert [event.id for event in ran.of("completed")] == ["a", "b", "c"]
    assert {event.attempts for event in ran.of("completed")} == {1}


async def test_no_time_to_drain(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    await within(queue.stop(timeout=0))
    assert gate.cancelled == 1
    assert await lab.state("a") == "queued"


@pytest.mark.parametrize(("ending", "state"), [("return", "completed"), ("raise", "queued")])
async def test_a_handler_that_ends_while_it_is_aborted_keeps_its_result(
    lab: Lab, clock: FakeClock, ending: str, state: str
) -> None:
    async def handler(job: Job[Any]) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ending == "raise":
                raise ValueError("cut off") from None
            return "saved"
        return "unreachable"

    queue = await lab.start(handler)
    await queue.enqueue("a", 1)
    await clock.settle()
    await within(queue.stop(timeout=0))
    record = await lab.record("a")
    assert record.state == state
    assert record.result == (b'"saved"' if ending == "return" else None)
    assert record.attempts == (1 if ending == "return" else 0)


async def test_a_handler_that_does_not_end_is_left_behind(lab: Lab, clock: FakeClock) -> None:
    go, ended = asyncio.Event(), asyncio.Event()
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def handler(job: Job[Any]) -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "much too late"

    queue = await lab.start(handler)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await clock.settle()
    try:
        stopping = asyncio.create_task(queue.stop(timeout=1))
        await clock.advance(1.9)
        assert not stopping.done()
        await clock.advance(0.3)
        await within(stopping)
        record = await lab.record("a")
        assert (record.state, record.attempts) == ("queued", 0)
    finally:
        go.set()
    await within(ended.wait())
    await clock.settle()
    gc.collect()
    assert complaints == []
    assert await lab.state("a") == "queued"
    assert events.names.count("requeued") == 1
    assert not {"completed", "stalled"} & set(events.names)


async def test_a_thread_gets_time_to_read_that_it_is_to_end(lab: Lab, clock: FakeClock) -> None:
    began = threading.Event()

    def handler(job: Job[Any]) -> str:
        began.set()
        while not job.aborted.is_set():
            threading.Event().wait(0.001)
        return str(job.aborted_reason)

    queue = await lab.start(handler)
    await queue.enqueue("a", 1)
    await until(began.is_set)
    await within(queue.stop(timeout=0))
    assert (await lab.record("a")).result == b'"shutdown"'


async def test_a_thread_that_does_not_end_is_left_behind(lab: Lab, clock: FakeClock) -> None:
    began, go, ended = threading.Event(), threading.Event(), threading.Event()

    def handler(job: Job[Any]) -> str:
        began.set()
        go.wait(10)
        ended.set()
        return "too late"

    queue = await lab.start(handler)
    await queue.enqueue("a", 1)
    await until(began.is_set)
    await lab.finish(queue.stop(timeout=1))
    assert (await lab.record("a")).attempts == 0
    go.set()
    await until(ended.is_set)
    await clock.settle()
    assert await lab.state("a") == "queued"


async def test_a_job_that_arrives_while_stopping_is_given_back() -> None:
    async with opened(WireStorage(MemoryStorage(clock=FakeClock()))) as storage:
        lab, hold, runs = Lab(storage), Hold(), []

        async def handler(job: Job[Any]) -> None:
            runs.append(job.id)

        queue = await lab.start(handler, concurrency=5)
        await lab.clock.settle()
        storage.fault("exchange", times=1, after=hold)
        await queue.enqueue_many([("a", 1), ("b", 2)])
        await within(hold.reached.wait())
        assert await lab.state("a") == "processing"
        stopping = asyncio.create_task(queue.stop())
        await lab.clock.settle()
        hold.go.set()
        await within(stopping)
        assert runs == []
        for id in "ab":
            record = await lab.record(id)
            assert (record.state, record.attempts) == ("queued", 0)


async def test_a_stop_waits_for_outcomes_to_be_stored(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        storage.break_down("exchange", times=3)
        gate.go.set()
        await lab.finish(queue.stop())
        assert await lab.state("a") == "completed"


async def test_a_hurried_stop_gives_running_jobs_back(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    queue.hurry()
    await within(stopping)
    assert gate.cancelled == 1
    record = await lab.record("a")
    assert (record.state, record.attempts) == ("queued", 0)
    queue.hurry()


async def test_a_stop_after_a_hurry_does_not_wait(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    queue.hurry()
    await within(queue.stop())
    assert (gate.cancelled, await lab.state("a")) == (1, "queued")


async def test_a_stop_cancelled_while_the_store_is_silent_ends_the_tasks_and_the_waits(
    wire: WireStorage,
) -> None:
    lab = Lab(wire)
    before = left_tasks()
    queue = await lab.start()
    await queue.enqueue("a", 1)
    waiting = asyncio.create_task(queue.wait("a"))
    hold = Hold()
    wire.fault("insert", before=hold)
    inserting = asyncio.create_task(queue.enqueue("b", 1))
    await within(hold.reached.wait())
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(stopping)
    with pytest.raises(JobQueueError, match="stopped during this call"):
        await within(waiting)
    hold.go.set()
    await asyncio.wait([inserting])
    await until(lambda: left_tasks() == before)
    await lab.close()


async def test_a_stop_cancelled_half_way_ends_what_it_began(lab: Lab) -> None:
    before = left_tasks()
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    stopping = asyncio.create_task(queue.stop())
    await asyncio.sleep(0.01)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(stopping)
    assert gate.cancelled == 1, "a handler goes on without a lease that anybody renews"
    assert gate.jobs[0].aborted_reason == "shutdown"
    record = await lab.record("a")
    assert (record.state, record.attempts) == ("queued", 0)
    await until(lambda: left_tasks() == before)
    with pytest.raises(JobQueueError, match="not started"):
        await queue.enqueue("b", 1)
    await within(queue.start())
    gate.go.set()
    await within(queue.enqueue_and_wait("c", 1))


async def test_a_stop_cancelled_while_aborted_runs_end_gives_their_jobs_back(lab: Lab) -> None:
    began, cleaning, clean = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_to_end(job: Job[Any]) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await clean.wait()

    queue = await lab.start(slow_to_end)
    await queue.enqueue("a", 1)
    await within(began.wait())
    stopping = asyncio.create_task(queue.stop(timeout=0))
    await within(cleaning.wait())
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(stopping)
    record = await lab.record("a")
    assert (record.state, record.attempts) == ("queued", 0)
    clean.set()


async def test_a_handler_cannot_stop_its_own_queue(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> None:
        await queue.stop()

    queue = await lab.start(handler, max_attempts=1)
    with pytest.raises(JobQueueError, match="would wait for itself"):
        await within(queue.enqueue_and_wait("a", 1))
    assert await within(lab.finish(queue.stop())) is None


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_handler_that_middleware_runs_in_another_task_cannot_either(lab: Lab, layers: int) -> None:
    async def handler(job: Job[Any]) -> None:
        await queue.stop()

    async def in_another_task(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        return await asyncio.create_task(call_next(job))  # type: ignore[arg-type]

    queue = lab.queue(handler, max_attempts=1)
    for _ in range(layers):
        queue.around_run(in_another_task)
    await queue.start()
    with pytest.raises(JobQueueError, match="would wait for itself"):
        await within(queue.enqueue_and_wait("a", 1))
    await within(lab.finish(queue.stop()))


@pytest.mark.parametrize("apart", [False, True])
async def test_a_handler_may_leave_the_stop_to_a_task(lab: Lab, apart: bool) -> None:
    stops: list[asyncio.Task[None]] = []

    async def handler(job: Job[Any]) -> str:
        stops.append(asyncio.create_task(queue.stop()))
        await asyncio.sleep(0)
        return "done"

    async def in_another_task(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        return await asyncio.create_task(call_next(job))  # type: ignore[arg-type]

    queue = lab.queue(handler)
    if apart:
        queue.around_run(in_another_task)
    heard = Recorder(queue)
    await queue.start()
    await queue.enqueue("a", 1)
    await heard.wait("stopped")
    await within(stops[0])
    assert heard.of("completed")[0].result == "done"


async def test_a_handler_that_waits_for_a_task_that_stops_is_cut_off_at_the_timeout(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> None:
        await asyncio.create_task(queue.stop(timeout=5.0))

    queue = lab.queue(handler)
    heard = Recorder(queue)
    await queue.start()
    await queue.enqueue("a", 1)
    await lab.finish(heard.wait("requeued"))
    await lab.finish(queue.stop())
    assert await lab.state("a") == "queued"


async def test_each_of_many_waits_gets_an_error_of_its_own(lab: Lab) -> None:
    queue = await lab.start()
    calls = [asyncio.create_task(queue.enqueue_and_wait(f"j{n}", n)) for n in range(200)]
    await until(lambda: standing(queue) == 200)
    await within(queue.stop())
    errors = await within(asyncio.gather(*calls, return_exceptions=True))
    assert all(isinstance(error, JobQueueError) for error in errors)
    assert len({id(error) for error in errors}) == 200
    assert max(map(traceback_length, errors)) < 10


async def test_a_listener_may_stop_the_queue(lab: Lab) -> None:
    queue = await lab.start(echo)
    stopped = asyncio.Event()

    async def stop(event: Any) -> None:
        await queue.stop()
        stopped.set()

    queue.on("completed", stop)
    await queue.enqueue("a", 1)
    if lab.storage.clock.virtual:
        await lab.finish(stopped.wait())
    await within(stopped.wait())
    with pytest.raises(JobQueueError, match="not started"):
        await queue.enqueue("b", 1)


async def test_stop_waits_for_asynchronous_listeners(lab: Lab) -> None:
    queue = await lab.start(echo)
    heard: list[str] = []

    async def slow(event: Any) -> None:
        await lab.storage.clock.sleep(0.02)
        heard.append(event.name)

    for name in ("completed", "stopped"):
        queue.on(name, slow)
    await within(queue.enqueue_and_wait("a", 1))
    await lab.finish(queue.stop())
    assert sorted(heard) == ["completed", "stopped"]


@pytest.mark.parametrize(("reason", "state"), [("timeout", "failed"), ("cancelled", "cancelled")])
async def test_a_stop_settles_a_run_that_does_not_end_by_the_reason_it_was_aborted_for(
    lab: Lab, clock: FakeClock, reason: str, state: str
) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def handler(job: Job[Any]) -> None:
        began.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    queue = await lab.start(handler, max_attempts=1, job_timeout=5)
    await queue.enqueue("a", 1)
    await within(began.wait())
    if reason == "cancelled":
        await queue.cancel("a", running=True)
    else:
        await clock.advance(6)
    await lab.finish(queue.stop(timeout=1))
    assert await lab.state("a") == state
    go.set()
