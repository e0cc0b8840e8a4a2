"""Results, threads and kinds of handlers."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    ErrorInfo,
    Job,
    JobCancelledError,
    JobFailedError,
    JobQueueError,
    MaxRetriesError,
    Queue,
    Reaper,
)
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from jobqueue.worker.run import Run
from tests.support import Gate, Lab, Recorder, echo, opened, until, within


def kind(value: object) -> str:
    return type(value).__name__


# -- results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result",
    [object(), {1, 2}, b"bytes", float("nan"), "\ud800", {(1, 2): 3}],
    ids=["object", "set", "bytes", "nan", "surrogate", "key"],
)
async def test_an_unserialisable_result_fails_the_job_and_the_worker_lives(lab: Lab, result: Any) -> None:
    async def handler(job: Job[Any]) -> Any:
        return result if job.id == "bad" else "fine"

    queue = await lab.start(handler, max_attempts=5)
    events = Recorder(queue)
    with pytest.raises(JobFailedError) as caught:
        await within(queue.enqueue_and_wait("bad", 1))
    assert (caught.value.reason, caught.value.attempts) == ("serialization", 1)
    assert caught.value.error.type == "jobqueue.SerializationError"
    assert (await events.wait("failed")).reason == "serialization"
    assert await within(queue.enqueue_and_wait("good", 1)) == "fine"


async def test_the_status_of_a_job_has_its_failed_attempts(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> str:
        if job.attempts < 3:
            raise ValueError(f"no {job.attempts}")
        return "yes"

    queue = await lab.start(handler, max_attempts=3, tracebacks=True, backoff=Backoff.fixed(0.01))
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == "yes"
    status = await queue.get_status("a")
    assert status is not None
    assert (status.state, status.attempts, status.error) == ("completed", 3, None)
    told = [(one.attempt, one.reason, one.error) for one in status.history]
    assert told == [(n, "error", ErrorInfo("ValueError", f"no {n}")) for n in (1, 2)]
    assert {one.worker_id for one in status.history} == {queue.worker_id}
    assert status.created_at <= status.history[0].at < status.history[1].at <= status.updated_at


async def test_endless_results_fail_the_job(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> Any:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    queue = await lab.start(handler)
    with pytest.raises(JobFailedError, match="serialization"):
        await within(queue.enqueue_and_wait("a", 1))


async def test_a_result_over_the_cap_fails_the_job(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> str:
        return "x" * job.payload

    queue = await lab.start(handler, max_payload_bytes=100)
    assert await within(queue.enqueue_and_wait("fits", 98)) == "x" * 98
    with pytest.raises(JobFailedError, match=r"101 bytes.*limit is 100"):
        await within(queue.enqueue_and_wait("over", 99))


@pytest.mark.parametrize(
    "data", [None, "text", bytearray(b"1"), memoryview(b"1"), 5], ids=lambda data: type(data).__name__
)
async def test_a_serde_that_gives_no_bytes(lab: Lab, data: Any) -> None:
    class Wrong:
        def dumps(self, value: Any) -> Any:
            return data

        def loads(self, data: bytes) -> Any:
            return None

    queue = await lab.start(echo, result_serde=Wrong())
    with pytest.raises(JobFailedError, match="dumps must return bytes") as caught:
        await within(queue.enqueue_and_wait("a", 1))
    assert caught.value.reason == "serialization"


@pytest.mark.parametrize("side", ["payload", "result"])
async def test_a_serde_that_exits_does_not_end_the_worker(lab: Lab, side: str) -> None:
    class Exiting:
        def dumps(self, value: Any) -> bytes:
            if side == "result" and value == "bad":
                raise SystemExit(1)
            return value.encode()

        def loads(self, data: bytes) -> Any:
            if side == "payload" and data == b"bad":
                raise SystemExit(1)
            return data.decode()

    queue = await lab.start(echo, **{f"{side}_serde": Exiting()})
    with pytest.raises(JobFailedError) as caught:
        await within(queue.enqueue_and_wait("a", "bad"))
    assert caught.value.reason == "serialization"
    assert await within(queue.enqueue_and_wait("b", "good")) == "good"


async def test_an_unreadable_payload_fails_the_job_without_a_run(lab: Lab) -> None:
    from jobqueue import MsgpackSerde

    runs: list[str] = []

    async def handler(job: Job[Any]) -> Any:
        runs.append(job.id)
        return job.payload

    producer = await lab.start(payload_serde=MsgpackSerde())
    consumer = await lab.start(handler)
    events = Recorder(consumer)
    await producer.enqueue("a", b"\xff\xfe")
    with pytest.raises(JobFailedError, match="payload cannot be read by JsonSerde") as caught:
        await within(consumer.wait("a"))
    assert caught.value.reason == "serialization"
    assert await within(consumer.enqueue_and_wait("b", 1)) == 1
    assert runs == ["b"]
    assert events.of("failing") == []


# -- threads ------------------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_an_async_handler_runs_in_a_context_of_its_own(lab: Lab) -> None:
    seen: list[str] = []

    async def handler(job: Job[Any]) -> None:
        seen.append(variable.get())
        variable.set(job.id)
        await asyncio.sleep(0)
        seen.append(variable.get())

    variable.set("of a request")
    queue = await lab.start(handler)
    for id in ("a", "b"):
        await within(queue.enqueue_and_wait(id, 1))
    assert seen == ["unset", "a", "unset", "b"]


async def test_a_handler_that_comes_after_the_start_runs_in_a_context_of_its_own(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> str:
        return variable.get()

    queue = await lab.start()
    variable.set("of a request")
    queue.execute(handler)
    assert await within(queue.enqueue_and_wait("a", 1)) == "unset"


async def test_a_store_is_opened_in_a_context_of_its_own() -> None:
    seen: list[str] = []

    class Store(MemoryStorage):
        async def open(self) -> None:
            seen.append(variable.get())
            await super().open()

        async def subscribe(self, queue: str, address: str, sink: Any) -> None:
            seen.append(variable.get())
            await super().subscribe(queue, address, sink)

    variable.set("of a request")
    queue: Queue[Any, Any] = Queue(Store(), "q")
    queue.execute(echo)
    async with queue, Reaper(Store()):
        assert await within(queue.enqueue_and_wait("a", 1)) == 1
    assert set(seen) == {"unset"}


async def test_a_plain_function_runs_in_a_thread_in_a_context_of_its_own(lab: Lab) -> None:
    seen: list[Any] = []

    def handler(job: Job[Any]) -> str:
        seen.append((threading.get_ident(), variable.get(), threading.current_thread().daemon))
        variable.set("changed")
        return "from a thread"

    variable.set("of a request")
    queue = await lab.start(handler)
    for id in ("a", "b"):
        assert await within(queue.enqueue_and_wait(id, 1)) == "from a thread"
    assert [where for where, _, _ in seen if where == threading.get_ident()] == []
    assert [(value, daemon) for _, value, daemon in seen] == [("unset", True)] * 2


async def test_threads_run_at_once_up_to_the_concurrency(lab: Lab) -> None:
    barrier = threading.Barrier(3, timeout=10)
    running: list[int] = []
    most: list[int] = []

    def handler(job: Job[Any]) -> None:
        running.append(1)
        most.append(len(running))
        barrier.wait()
        running.pop()

    queue = await lab.start(handler, concurrency=3)
    await within(asyncio.gather(*(queue.enqueue_and_wait(f"j{n}", n) for n in range(9))))
    assert max(most) == 3


async def double(job: Job[Any]) -> Any:
    await asyncio.sleep(0)
    return job.payload * 2


class Doubler:
    async def __call__(self, job: Job[Any]) -> Any:
        return await double(job)

    def method(self, job: Job[Any]) -> Any:
        return self(job)


@functools.wraps(double)
def wrapped(job: Job[Any]) -> Any:
    return double(job)


SHAPES: dict[str, Any] = {
    "wraps": wrapped,
    "lambda": lambda job: double(job),  # noqa: PLW0108 - that is what is tested
    "partial of a wrapper": functools.partial(wrapped),
    "partial of an object": functools.partial(Doubler()),
    "method": Doubler().method,
    "object": Doubler(),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_plain_function_around_an_asynchronous_one_is_awaited(lab: Lab, shape: str) -> None:
    queue = await lab.start(SHAPES[shape], max_attempts=1, concurrency=3)
    assert await within(asyncio.gather(*(queue.enqueue_and_wait(f"j{n}", n) for n in range(5)))) == [
        0, 2, 4, 6, 8,
    ]  # fmt: skip


async def test_what_a_plain_function_returns_is_awaited_in_the_event_loop(lab: Lab) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    queue = await lab.start(lambda job: future, max_attempts=1)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await asyncio.sleep(0)
    future.set_result("done")
    assert await within(call) == "done"


async def test_what_a_plain_function_returns_fails_and_ends_as_any_run_does(lab: Lab) -> None:
    gate = Gate()

    async def fails(job: Job[Any]) -> None:
        raise ValueError("inside")

    queue = await lab.start(lambda job: gate(job) if job.payload == "hangs" else fails(job), max_attempts=1)
    with pytest.raises(MaxRetriesError, match="ValueError: inside"):
        await within(queue.enqueue_and_wait("a", "fails"))
    call = asyncio.create_task(queue.enqueue_and_wait("b", "hangs"))
    await within(gate.began.wait())
    await queue.cancel("b", running=True)
    with pytest.raises(JobCancelledError):
        await within(call)
    assert gate.cancelled == 1
    await queue.enqueue("c", "hangs")
    gate.began.clear()
    await within(gate.began.wait())
    await within(queue.stop(timeout=0))
    assert await lab.state("c") == "queued"


async def test_an_awaitable_that_comes_too_late_is_dropped(lab: Lab) -> None:
    returned, go = threading.Event(), threading.Event()

    def handler(job: Job[Any]) -> Any:
        go.wait(10)
        returned.set()
        return double(job)  # never awaited, and Python is not to complain of it

    queue = await lab.start(handler, max_attempts=1, job_timeout=0.05)
    with pytest.raises(MaxRetriesError, match="exceeded job_timeout"):
        await lab.finish(queue.enqueue_and_wait("a", 1))
    go.set()
    assert await asyncio.to_thread(returned.wait, 10)
    worker = queue._session.worker if queue._session else None
    assert worker is not None
    await until(lambda: worker._stuck_threads == 0)


async def test_a_thread_that_cannot_start_fails_the_attempt(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await lab.start(lambda job: "ran", max_attempts=1)
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("jobqueue-j"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MaxRetriesError, match="can't start new thread"):
        await within(queue.enqueue_and_wait("j", 1))
    monkeypatch.undo()
    assert await within(queue.enqueue_and_wait("k", 1)) == "ran"


async def test_a_thread_may_report_progress_through_the_loop(lab: Lab) -> None:
    loop = asyncio.get_running_loop()

    def handler(job: Job[Any]) -> str:
        asyncio.run_coroutine_threadsafe(job.progress(50), loop).result(10)
        return "done"

    queue = await lab.start(handler)
    assert await within(queue.enqueue_and_wait("a", 1)) == "done"
    status = await queue.get_status("a")
    assert status is not None
    assert status.progress == 50


# -- kinds of handlers ----------------------------------------------------------------------------------


class Callable_:
    async def __call__(self, job: Job[Any]) -> str:
        return "object"

    async def method(self, job: Job[Any]) -> str:
        return "method"

    @staticmethod
    async def static(job: Job[Any]) -> str:
        return "static"


async def with_argument(extra: str, job: Job[Any]) -> str:
    return extra


@pytest.mark.parametrize(
    ("handler", "result"),
    [
        (Callable_(), "object"),
        (Callable_().method, "method"),
        (Callable_.static, "static"),
        (functools.partial(with_argument, "partial"), "partial"),
        (lambda job: threading.current_thread().name.startswith("jobqueue-"), True),
    ],
    ids=["object", "method", "static", "partial", "lambda"],
)
async def test_kinds_of_handlers(lab: Lab, handler: Any, result: Any) -> None:
    queue = await lab.start(handler)
    assert await within(queue.enqueue_and_wait("a", 1)) == result


async def test_execute_is_a_decorator_before_or_after_the_start(lab: Lab) -> None:
    early, late = lab.queue(name="early"), await lab.start(name="late")

    @early.execute
    async def one(job: Job[int]) -> int:
        return job.payload + 1

    @late.execute
    def two(job: Job[int]) -> int:
        return job.payload + 2

    await within(early.start())
    assert await within(early.enqueue_and_wait("a", 1)) == 2
    assert await within(late.enqueue_and_wait("a", 1)) == 3
    assert asyncio.iscoroutinefunction(one)
    assert not asyncio.iscoroutinefunction(two)


async def test_a_second_handler_is_refused(lab: Lab) -> None:
    queue = await lab.start(echo)
    with pytest.raises(JobQueueError, match="has a handler already"):
        queue.execute(echo)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1


async def test_execute_and_stop_at_once(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", 1)
    queue.execute(echo)
    await within(queue.stop())
    assert await lab.state("a") in {"queued", "completed"}, "nobody is left to end what was begun"
    await within(queue.start())
    assert await within(queue.enqueue_and_wait("a", 1)) == 1


async def test_as_many_run_at_once_as_allowed(lab: Lab) -> None:
    running: set[str] = set()
    most = 0
    gate = asyncio.Event()

    async def handler(job: Job[Any]) -> None:
        nonlocal most
        running.add(job.id)
        most = max(most, len(running))
        if len(running) == 4:
            gate.set()
        await gate.wait()
        running.discard(job.id)

    queue = await lab.start(handler, concurrency=4)
    await queue.enqueue_many((f"j{n}", None) for n in range(40))
    await within(asyncio.gather(*(queue.wait(f"j{n}") for n in range(40))))
    assert most == 4


async def test_a_job_that_waits_in_another_gets_its_slot(lab: Lab) -> None:
    async def handler(job: Job[int]) -> int:
        if job.payload == 0:
            return 1
        return 2 * await queue.enqueue_and_wait(None, job.payload - 1)

    queue: Queue[int, int] = await lab.start(handler, concurrency=5)
    assert await within(queue.enqueue_and_wait("a", 4)) == 16


@pytest.mark.parametrize("where", ["handler", "hook"])
async def test_a_run_left_behind_by_a_closed_loop_stores_nothing(where: str) -> None:
    """The loop goes away under a run: its coroutine is closed, and may not await then."""
    gate = Gate()

    async def forever(_: Any) -> None:
        gate.began.set()
        await asyncio.Event().wait()

    async with opened(MemoryStorage(clock=FakeClock())) as storage:
        lab = Lab(storage)
        options: dict[str, Any] = {"after_execution": forever} if where == "hook" else {}
        queue = await lab.start(echo if where == "hook" else forever, **options)
        events = Recorder(queue)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        assert queue._session is not None
        worker = queue._session.worker
        assert worker is not None
        (run,) = worker._runs.values()
        ended: list[Any] = []
        coroutine = worker._execution.perform(
            Run(run.claimed, 0.0, 0.0), lambda *outcome: ended.append(outcome)
        )
        coroutine.send(None)
        coroutine.close()
        assert ended == []
        assert events.of("error") == []
        await lab.close()


async def test_a_defect_in_a_run_costs_its_lease_and_no_slot(
    lab: Lab, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    queue = await lab.start(echo)
    events = Recorder(queue)
    monkeypatch.setattr("jobqueue.worker.execution.completion", broken)
    await queue.enqueue("a", 1)
    await clock.settle()
    monkeypatch.undo()
    assert [event.doing for event in events.of("error")] == ["running job 'a'"]
    assert await within(queue.enqueue_and_wait("b", 2)) == 2
    await clock.advance(31)
    assert [swept.id for swept in await lab.storage.sweep("q", 10)] == ["a"]
    assert await within(queue.wait("a")) == 1
