"""The events of a queue: which, with what, in which order."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    EnqueueRequest,
    ErrorInfo,
    Event,
    InvalidArgumentError,
    Job,
    JobCancelled,
    JobCompleted,
    JobEnqueued,
    JobFailed,
    JobFailing,
    JobProcessing,
    JobProgress,
    JobRequeued,
    JobStalled,
    LeadershipLost,
    MaxRetriesError,
    Queue,
    QueueStarted,
    QueueStopped,
    Reaper,
)
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Exchanged, Renewal
from jobqueue.testing import FakeClock
from tests.support import QUEUE_EVENTS, Gate, Lab, Recorder, die, echo, left_tasks, within


async def test_the_life_of_a_job_in_events(lab: Lab, clock: FakeClock) -> None:
    async def handler(job: Job[Any]) -> str:
        if job.attempts == 1:
            raise ValueError("first")
        await job.progress("half")
        await clock.sleep(1.5)
        return "result"

    queue = lab.queue(handler, worker_id="w", backoff=Backoff.fixed(2))
    events = Recorder(queue)
    await queue.start()
    await queue.enqueue("a", 1)
    await queue.enqueue("a", 1)
    await clock.advance(5)
    await queue.stop()
    assert events.events == [
        QueueStarted("q", "w"),
        JobEnqueued("a", "q"),
        JobProcessing("a", "q", 1),
        JobFailing("a", "q", ErrorInfo("ValueError", "first"), 1, 2.0),
        JobProcessing("a", "q", 2),
        JobProgress("a", "q", "half"),
        JobCompleted("a", "q", "result", 2, 1.5),
        QueueStopped("q", "w"),
    ]


def soon(seconds: float) -> Any:
    """The same, but for milliseconds that are rounded and turns that are taken."""
    return pytest.approx(seconds, abs=0.01)


async def test_events_have_what_metrics_need(lab: Lab, clock: FakeClock) -> None:
    async def handler(job: Job[Any]) -> str:
        await clock.sleep(2)
        if job.attempts == 1:
            raise ValueError("first")
        await job.progress("half")
        return "result"

    producer = await lab.start()
    enqueued = Recorder(producer)
    await producer.enqueue("a", 1, priority=7, delay=5)
    await producer.enqueue_many([EnqueueRequest("b", 1, priority=-3)])
    await producer.cancel("b")
    waiting = asyncio.create_task(producer.enqueue_and_wait("c", 1, priority=2))
    await clock.advance(8)
    assert [(event.id, event.priority, event.task) for event in enqueued.of("enqueued")] == [
        ("a", 7, ""), ("b", -3, ""), ("c", 2, ""),
    ]  # fmt: skip
    (cancelled,) = enqueued.of("cancelled")
    assert (cancelled.worker_id, cancelled.attempts, cancelled.seconds) == (None, None, None)

    queue = lab.queue(handler, worker_id="w", backoff=Backoff.fixed(2))
    events = Recorder(queue)
    await queue.start()
    await clock.advance(20)
    await within(waiting)
    first, second, again, _ = events.of("processing")
    assert (first.id, first.worker_id, first.wait, first.attempts) == ("a", "w", soon(3.0), 1)
    assert (second.id, second.wait) == ("c", soon(10.0))
    assert (again.id, again.wait, again.attempts) == ("a", soon(0.0), 2)
    assert {
        event.worker_id for name in ("failing", "progress", "completed") for event in events.of(name)
    } == {"w"}
    assert [event.seconds for event in events.of("failing")] == [2.0, 2.0]
    assert [event.seconds for event in events.of("completed")] == [2.0, 2.0]
    assert [event.attempts for event in events.of("progress")] == [2, 2]


async def test_a_wait_is_not_negative_and_unknown_on_a_store_that_does_not_say(clock: FakeClock) -> None:
    class Silent(MemoryStorage):
        due = 0

        async def exchange(self, *args: Any) -> Exchanged:
            answer = await super().exchange(*args)
            return answer._replace(jobs=[job._replace(due=self.due) for job in answer.jobs])

    store = Silent(clock=clock)
    async with Queue[Any, Any](store, "q") as queue:
        queue.execute(echo)
        events = Recorder(queue)
        await within(queue.enqueue_and_wait("a", 1))
        Silent.due = int(clock.time() * 1000) + 5000  # the clocks of store and worker differ
        await within(queue.enqueue_and_wait("b", 1))
    assert [event.wait for event in events.of("processing")] == [None, 0.0]


async def test_ends_that_are_no_results_tell_of_their_run_too(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(Gate(), worker_id="w", concurrency=2)
    events = Recorder(queue)
    await queue.enqueue_many([("running", 1), ("back", 2)])
    await clock.advance(3)
    await queue.cancel("running", running=True)
    await clock.settle()
    await within(queue.stop(timeout=0))
    for name in ("cancelled", "requeued"):
        (event,) = events.of(name)
        assert (event.worker_id, event.attempts, event.seconds) == ("w", 1, 3.0)


def test_events_are_made_and_matched_as_in_0_1_0() -> None:
    error = ErrorInfo("ValueError", "x")
    assert JobEnqueued("a", "q") == JobEnqueued("a", "q", "task", 5)
    assert JobProcessing("a", "q", 1) == JobProcessing("a", "q", 1, "task", "w", 3.0)
    assert JobFailed("a", "q", error, 1, "error") == JobFailed("a", "q", error, 1, "error", worker_id="w")  # type: ignore[arg-type]
    assert JobRequeued("a", "q") == JobRequeued("a", "q", 1, 2.0, "task", "w")
    assert JobStalled("a", "q", "w") == JobStalled("a", "q", "w", None, False, "task")
    match JobProgress("a", "q", "half", 1, "task", "w"):
        case JobProgress(id, queue, value):
            assert (id, queue, value) == ("a", "q", "half")


async def test_the_other_ends_in_events(lab: Lab, clock: FakeClock) -> None:
    gate = Gate()

    async def handler(job: Job[Any]) -> Any:
        if job.payload == "fail":
            raise ValueError("last")
        return await gate(job)

    queue = await lab.start(handler, worker_id="w", max_attempts=1, concurrency=3, visibility_timeout=9)
    events = Recorder(queue)
    await queue.enqueue("fails", "fail")
    await queue.enqueue_many([("running", 1), ("lost", 2), ("back", 3), ("waiting", 4)])
    await clock.settle()
    await queue.cancel("waiting")
    await queue.cancel("running", running=True)
    await clock.settle()
    assert events.of("failed") == [JobFailed("fails", "q", ErrorInfo("ValueError", "last"), 1, "error")]
    assert events.of("cancelled") == [JobCancelled("waiting", "q"), JobCancelled("running", "q")]
    record = await lab.record("lost")
    assert await lab.storage.extend("q", "w", [Renewal("lost", record.fence)], 1) == ["held"]
    clock.move(0.002)
    assert [job.id for job in await lab.storage.sweep("q", 10)] == ["lost"]
    await lab.storage.cancel("q", ["lost"])
    await clock.advance(4)
    assert events.of("stalled") == [JobStalled("lost", "q", "w")]
    await within(queue.stop(timeout=0))
    assert events.of("requeued") == [JobRequeued("back", "q")]


async def test_event_names_are_those_of_the_classes(lab: Lab) -> None:
    queue = lab.queue()
    assert set(queue._emitter.kinds) == set(QUEUE_EVENTS)
    for kind in queue._emitter.kinds.values():
        assert dataclasses.is_dataclass(kind)
        assert getattr(kind, "__dataclass_params__").frozen  # noqa: B009
        if kind.name not in {"started", "stopped", "error"}:
            assert [field.name for field in dataclasses.fields(kind)][:2] == ["id", "queue"]


async def test_an_event_may_be_given_by_its_class(lab: Lab) -> None:
    heard: list[str] = []
    queue = lab.queue(echo)
    unsubscribe = queue.on(JobCompleted, lambda event: heard.append(f"first {event.id}"))

    @queue.on(JobCompleted)
    def second(event: JobCompleted) -> None:
        heard.append(f"second {event.id}")

    async with asyncio.timeout(10):
        for id in ("a", "b"):
            await queue.start()
            await queue.enqueue_and_wait(id, 1)
            await lab.finish(queue.stop())
            unsubscribe()
    assert heard == ["first a", "second a", "second b"]


UNKNOWN = ["unknown", "", "Completed", "leadership_acquired", None, 5, [], Event, LeadershipLost, int]


@pytest.mark.parametrize("name", UNKNOWN, ids=repr)
async def test_an_unknown_name_is_refused(lab: Lab, name: Any) -> None:
    queue = lab.queue()
    with pytest.raises(InvalidArgumentError) as caught:
        queue.on(name, print)
    assert caught.value.argument == "name"
    with pytest.raises(InvalidArgumentError):
        queue.on(name)(print)


async def test_a_listener_must_be_callable(lab: Lab) -> None:
    with pytest.raises(InvalidArgumentError, match="listener"):
        lab.queue().on("completed", "print")  # type: ignore[arg-type]


async def test_listeners_may_be_async_and_decorated(lab: Lab) -> None:
    heard: list[str] = []
    queue = lab.queue(echo)

    @queue.on("completed")
    async def one(event: JobCompleted) -> None:
        await asyncio.sleep(0)
        heard.append(f"async {event.id}")

    @queue.on("completed")
    def two(event: JobCompleted) -> None:
        heard.append(f"sync {event.id}")

    assert asyncio.iscoroutinefunction(one)
    async with asyncio.timeout(10):
        await queue.start()
        await queue.enqueue_and_wait("a", 1)
        await lab.finish(queue.stop())
    assert heard == ["sync a", "async a"]


@pytest.mark.parametrize(
    "error", [ValueError("listener"), SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_listener_that_raises_harms_nobody(
    lab: Lab, kind: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    queue = lab.queue(echo)

    def bad(event: Any) -> None:
        raise error

    async def slow(event: Any) -> None:
        bad(event)

    for name in QUEUE_EVENTS:
        queue.on(name, bad if kind == "sync" else slow)
    events = Recorder(queue)
    await within(queue.start())
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    assert await within(queue.enqueue_and_wait("b", 2)) == 2
    await lab.finish(queue.stop())
    assert events.names.count("completed") == 2
    if not (kind == "async" and isinstance(error, asyncio.CancelledError)):
        assert "a listener of 'completed' raised" in caplog.text


async def test_a_listener_that_never_ends_does_not_hold_a_stop(
    lab: Lab, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    queue, before, ended = lab.queue(echo), left_tasks(), list[str]()

    @queue.on("completed")
    async def endless(event: JobCompleted) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event.id)

    @queue.on("stopped")
    async def slow(event: Any) -> None:
        await clock.sleep(4)
        ended.append("slow")

    await within(queue.start())
    await within(queue.enqueue_and_wait("a", 1))
    stopping = asyncio.create_task(queue.stop())
    await clock.settle()
    await clock.advance(4.9)
    assert ended == ["slow"]
    assert not stopping.done()
    await clock.advance(0.2)
    await within(stopping)
    assert ended == ["slow", "a"]
    assert "listeners of 'completed' had not ended after 5 s and were cancelled" in caplog.text
    assert left_tasks() == before
    await within(queue.start())
    await lab.finish(queue.stop())


async def test_a_listener_that_cannot_be_cancelled_is_left_behind(lab: Lab, clock: FakeClock) -> None:
    queue, go, ended = lab.queue(), asyncio.Event(), asyncio.Event()

    @queue.on("started")
    async def stubborn(event: Any) -> None:
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()
        ended.set()

    await within(queue.start())
    stopping = asyncio.create_task(queue.stop())
    await clock.advance(5.9)
    assert not stopping.done()
    await clock.advance(0.2)
    await within(stopping)
    go.set()
    await within(ended.wait())


async def test_a_listener_of_a_reaper_does_not_hold_its_stop_either(lab: Lab, clock: FakeClock) -> None:
    await die(lab.storage, "a")
    await clock.advance(1.1)
    reaper, before = Reaper(lab.storage), left_tasks()

    async def endless(event: Any) -> None:
        await asyncio.Event().wait()

    reaper.on("stalled", endless)
    await within(reaper.start())
    await clock.settle()
    stopping = asyncio.create_task(reaper.stop())
    await clock.advance(5.1)
    await within(stopping)
    assert left_tasks() == before


async def test_unsubscribing_removes_that_one_subscription(lab: Lab) -> None:
    heard: list[str] = []

    def listener(event: Any) -> None:
        heard.append(event.id)

    queue = await lab.start(echo)
    first, second = queue.on("completed", listener), queue.on("completed", listener)
    await within(queue.enqueue_and_wait("a", 1))
    await lab.finish(queue.stop())
    first()
    first()
    await within(queue.start())
    await within(queue.enqueue_and_wait("b", 1))
    await lab.finish(queue.stop())
    second()
    await within(queue.start())
    await within(queue.enqueue_and_wait("c", 1))
    assert heard == ["a", "a", "b"]


async def test_a_listener_may_unsubscribe_itself(lab: Lab) -> None:
    heard: list[str] = []
    queue = await lab.start(echo)

    def once(event: Any) -> None:
        heard.append(event.id)
        leave()

    leave = queue.on("completed", once)
    events = Recorder(queue)
    for id in "ab":
        await within(queue.enqueue_and_wait(id, 1))
    await events.wait("completed", 2)
    assert heard == ["a"]


async def test_a_job_is_told_completed_once_the_store_has_it(lab: Lab) -> None:
    queue = await lab.start(echo)
    found: list[Any] = []

    async def look(event: JobCompleted) -> None:
        found.append((await queue.enqueue(event.id, 2)).result)

    queue.on("completed", look)
    await within(queue.enqueue_and_wait("a", 1))
    await lab.finish(queue.stop())
    assert found == [1]


async def test_what_happens_is_logged(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(job: Job[Any]) -> None:
        raise ValueError("secret of the job")

    caplog.set_level("DEBUG", "jobqueue")
    queue = await lab.start(handler, max_attempts=2, backoff=Backoff.fixed(0))
    with pytest.raises(MaxRetriesError):
        await lab.finish(queue.enqueue_and_wait("a", {"password": "hunter2 of the payload"}))
    await lab.finish(queue.stop())
    text = caplog.text
    for line in (
        "queue q started",
        "'a' of q failed attempt 1",
        "'a' of q failed (error) after 2",
        "queue q stopped",
    ):
        assert line in text
    assert "hunter2" not in text


async def test_a_created_job_behind_a_refused_one_is_told(lab: Lab) -> None:
    queue = await lab.start(max_length=1)
    events = Recorder(queue)
    with pytest.raises(Exception, match="max_length"):
        await queue.enqueue_many([("a", 1), ("b", 2), ("a", 3)])
    assert [event.id for event in events.of("enqueued")] == ["a"]
