"""Middleware: around what is enqueued, and around every attempt."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    EnqueueNext,
    EnqueueRequest,
    EnqueueResult,
    EnqueueStatus,
    Fatal,
    InvalidArgumentError,
    Job,
    JobCancelledError,
    JobFailedError,
    JobQueueError,
    JobState,
    MaxRetriesError,
    Queue,
    QueueFullError,
    RunNext,
    StoppedError,
    StorageUnavailableError,
    WaitTimeoutError,
)
from jobqueue.client.around import Sender
from jobqueue.testing import FakeClock
from jobqueue.worker.execution import Execution
from tests.support import DeafStorage, Gate, Hold, Lab, Recorder, WireStorage, echo, standing, until, within

Enqueue = Callable[[Queue[Any, Any], str | None, Any], Awaitable[Any]]


async def one(queue: Queue[Any, Any], id: str | None, payload: Any) -> Any:
    return (await queue.enqueue(id, payload)).status


async def many(queue: Queue[Any, Any], id: str | None, payload: Any) -> Any:
    return (await queue.enqueue_many([(id, payload)]))[0].status


async def and_wait(queue: Queue[Any, Any], id: str | None, payload: Any) -> Any:
    return await within(queue.enqueue_and_wait(id, payload))


ways = pytest.mark.parametrize("enqueue", [one, many, and_wait])


async def passing(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
    return await call_next(requests)


# -- around enqueueing --------------------------------------------------------------------------------


@ways
async def test_the_first_that_was_added_is_the_outermost(lab: Lab, enqueue: Enqueue) -> None:
    told: list[str] = []
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def outer(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        told.append(f"outer {[(request.id, request.payload) for request in requests]}")
        answers = await call_next(requests)
        told.append(f"outer {[answer.id for answer in answers]}")
        return answers

    @queue.around_enqueue
    async def inner(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        told.append("inner")
        answers = await call_next(requests)
        told.append("inner")
        return answers

    await queue.start()
    await enqueue(queue, "a", 1)
    assert told == ["outer [('a', 1)]", "inner", "inner", "outer ['a']"]


@ways
async def test_it_may_change_payload_and_options(lab: Lab, enqueue: Enqueue) -> None:
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def stamp(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        return await call_next(
            [replace(request, payload=[request.payload, "stamped"], priority=7) for request in requests]
        )

    await queue.start()
    await enqueue(queue, "a", 1)
    assert await within(queue.wait("a")) == [1, "stamped"]
    status = await queue.get_status("a")
    assert status is not None
    assert status.priority == 7


@ways
async def test_headers_travel_from_middleware_to_middleware(lab: Lab, enqueue: Enqueue) -> None:
    queue = lab.queue(lambda job: dict(job.headers), backoff=Backoff.fixed(0.001))
    seen: list[Any] = []

    @queue.around_enqueue
    async def inject(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        return await call_next(
            [replace(r, headers={**(r.headers or {}), "trace": f"of {r.id}"}) for r in requests]
        )

    @queue.around_run
    async def enclose(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        seen.append(job.headers["trace"])
        if job.attempts == 1:
            raise OSError("they are there on every attempt")
        return await call_next(job)

    await queue.start()
    await lab.finish(enqueue(queue, "a", 1))  # type: ignore[arg-type]
    assert await lab.finish(queue.wait("a")) == {"trace": "of a"}
    assert seen == ["of a", "of a"]


async def test_headers_of_a_request_and_of_none(lab: Lab) -> None:
    queue = await lab.start(lambda job: dict(job.headers))
    await queue.enqueue_many([EnqueueRequest("a", 1, headers={"request": "7"}), ("b", 1)])
    await queue.enqueue("c", 1)
    assert [await within(queue.wait(id)) for id in "abc"] == [{"request": "7"}, {}, {}]
    with pytest.raises(InvalidArgumentError, match=r"^requests\[1\]\.headers: must map texts to texts"):
        await queue.enqueue_many([("d", 1), EnqueueRequest("e", 1, headers={"a": 1})])  # type: ignore[dict-item]
    assert await lab.state("d") is None


async def test_an_id_that_is_not_given_is_drawn_before(lab: Lab) -> None:
    seen: list[Any] = []
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def look(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        seen.extend(request.id for request in requests)
        return await call_next(requests)

    await queue.start()
    answers = [await queue.enqueue(None, 1), *await queue.enqueue_many([(None, 2), EnqueueRequest(None, 3)])]
    assert seen == [answer.id for answer in answers]
    assert len(set(seen)) == 3


async def test_many_are_one_call_of_the_middleware_in_their_order(lab: Lab) -> None:
    calls: list[int] = []
    queue = lab.queue()

    @queue.around_enqueue
    async def look(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        calls.append(len(requests))
        return await call_next(requests)

    await queue.start()
    ids = [f"{n}" for n in range(1200)]
    answers = await within(queue.enqueue_many((id, None) for id in ids))
    assert [answer.id for answer in answers] == ids
    assert calls == [1200]
    assert await queue.enqueue_many([]) == []
    assert calls == [1200, 0]


@ways
async def test_what_it_raises_refuses_the_job(lab: Lab, enqueue: Enqueue) -> None:
    class Refused(Exception):
        pass

    queue = lab.queue(echo)

    @queue.around_enqueue
    async def refuse(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        raise Refused

    await queue.start()
    with pytest.raises(Refused):
        await enqueue(queue, "a", 1)
    assert await lab.state("a") is None


@ways
async def test_it_may_send_again_after_a_fault(wire: WireStorage, enqueue: Enqueue) -> None:
    lab = Lab(wire)
    queue = lab.queue(echo)
    sent: list[int] = []

    @queue.around_enqueue
    async def again(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        for number in range(3):
            sent.append(number)
            try:
                return await call_next(requests)
            except StorageUnavailableError:
                continue
        raise AssertionError

    await queue.start()
    wire.fault("insert", times=1, lost=StorageUnavailableError("the answer is lost"))
    await enqueue(queue, None, 1)
    assert sent == [0, 1]
    assert await lab.total() == 1
    await lab.close()


@ways
async def test_it_may_answer_itself(lab: Lab, enqueue: Enqueue) -> None:
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def known(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        return [
            EnqueueResult(str(request.id), EnqueueStatus.COMPLETED, JobState.COMPLETED, "cached")
            for request in requests
        ]

    await queue.start()
    assert await enqueue(queue, "a", 1) in {EnqueueStatus.COMPLETED, "cached"}
    assert await lab.state("a") is None


async def test_it_may_send_a_part_and_answer_the_rest(lab: Lab) -> None:
    queue = lab.queue()

    @queue.around_enqueue
    async def halves(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        sent = {answer.id: answer for answer in await call_next([r for r in requests if r.payload])}
        rest = EnqueueResult("", EnqueueStatus.DUPLICATE, JobState.QUEUED)
        return [sent.get(str(r.id), rest._replace(id=str(r.id))) for r in requests]

    await queue.start()
    answers = await queue.enqueue_many([("a", 1), ("b", 0), ("c", 2)])
    assert [answer.status.value for answer in answers] == ["queued", "duplicate", "queued"]
    assert [await lab.state(id) for id in "abc"] == ["queued", None, "queued"]


async def test_waiting_for_a_job_that_was_not_sent_is_an_error(lab: Lab) -> None:
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def drop(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        return [EnqueueResult(str(r.id), EnqueueStatus.QUEUED, JobState.QUEUED) for r in requests]

    await queue.start()
    with pytest.raises(JobQueueError, match="did not send job 'a'"):
        await within(queue.enqueue_and_wait("a", 1))
    assert (await queue.enqueue("a", 1)).status is EnqueueStatus.QUEUED


@ways
@pytest.mark.parametrize(
    ("passed", "problem"),
    [
        (None, "requests: call_next takes a list of EnqueueRequest, not NoneType"),
        ([("a", 1)], r"requests\[0\]: must be an EnqueueRequest, not tuple"),
        ([EnqueueRequest("other", 1)], r"requests\[0\]\.id: is not one that was enqueued"),
        ([EnqueueRequest(None, 1)], r"requests\[0\]\.id: is not one that was enqueued"),
    ],
)
async def test_what_it_passes_on_is_checked_before_anything_is_stored(
    lab: Lab, enqueue: Enqueue, passed: Any, problem: str
) -> None:
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def bad(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        return await call_next(passed)

    await queue.start()
    with pytest.raises(InvalidArgumentError, match=problem):
        await enqueue(queue, "a", 1)
    assert await lab.total() == 0


@ways
@pytest.mark.parametrize(
    "answer",
    [None, [], 7, [None], [EnqueueResult("other", EnqueueStatus.QUEUED, JobState.QUEUED)], "call_next"],
    ids=str,
)
async def test_what_it_returns_is_checked(lab: Lab, enqueue: Enqueue, answer: Any) -> None:
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def bad(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        answers = await call_next(requests)
        return answers * 2 if answer == "call_next" else answer  # type: ignore[no-any-return]

    await queue.start()
    with pytest.raises(JobQueueError, match="must return what call_next returned"):
        await enqueue(queue, "a", 1)


async def test_arguments_are_named_as_without_middleware(lab: Lab) -> None:
    queue = lab.queue(echo)
    queue.around_enqueue(passing)
    await queue.start()
    with pytest.raises(InvalidArgumentError, match=r"^priority: "):
        await queue.enqueue("a", 1, priority=5000)
    with pytest.raises(InvalidArgumentError, match=r"^delay: "):
        await queue.enqueue_and_wait("a", 1, delay=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"^id: "):
        await queue.enqueue("", 1)
    with pytest.raises(InvalidArgumentError, match=r"^timeout: "):
        await queue.enqueue_and_wait("a", 1, timeout=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"^requests\[1\]\.priority: "):
        await queue.enqueue_many([("a", 1), EnqueueRequest("b", 1, priority=5000)])
    with pytest.raises(InvalidArgumentError, match=r"^requests\[1\]\.id: "):
        await queue.enqueue_many([("a", 1), ("", 1)])
    with pytest.raises(InvalidArgumentError, match=r"^requests\[1\]: must be \(id, payload\)"):
        await queue.enqueue_many([("a", 1), 7])  # type: ignore[list-item]
    assert await lab.total() == 0


async def test_answers_are_those_of_a_queue_without_middleware(lab: Lab) -> None:
    queue = lab.queue(max_length=1)
    queue.around_enqueue(passing)
    events = Recorder(queue)
    await queue.start()
    assert (await queue.enqueue("a", 1)).status is EnqueueStatus.QUEUED
    assert (await queue.enqueue("a", 1)).status is EnqueueStatus.DUPLICATE
    with pytest.raises(QueueFullError):
        await queue.enqueue("b", 1)
    with pytest.raises(QueueFullError):
        await queue.enqueue_and_wait("b", 1)
    assert [event.id for event in events.of("enqueued")] == ["a"]


async def test_ended_jobs_are_replayed_through_middleware(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> Any:
        if job.payload == "fail":
            raise Fatal("no")
        return job.payload

    queue = lab.queue(handler)
    queue.around_enqueue(passing)
    await queue.start()
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    assert await within(queue.enqueue_and_wait("a", 2)) == 1
    assert (await queue.enqueue("a", 2)).result == 1
    for _ in range(2):
        with pytest.raises(JobFailedError, match="no"):
            await within(queue.enqueue_and_wait("b", "fail"))


async def test_a_cancelled_job_and_a_stop_end_the_wait_through_middleware(lab: Lab) -> None:
    queue = lab.queue()
    queue.around_enqueue(passing)
    await queue.start()
    calls = [asyncio.create_task(queue.enqueue_and_wait(id, 1)) for id in "ab"]
    await until(lambda: standing(queue) == 2)
    while await lab.total() < 2:
        await asyncio.sleep(0.001)
    await queue.cancel("a")
    with pytest.raises(JobCancelledError):
        await within(calls[0])
    await queue.stop()
    with pytest.raises(StoppedError):
        await within(calls[1])


@pytest.mark.parametrize("where", ["before", "store", "after"])
async def test_the_timeout_includes_the_middleware_and_leaves_nothing_behind(
    wire: WireStorage, clock: FakeClock, where: str
) -> None:
    lab, hold, cut = Lab(wire), Hold(), list[str]()
    queue = lab.queue()

    @queue.around_enqueue
    async def slow(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        try:
            if where == "before":
                await hold()
            answers = await call_next(requests)
            if where == "after":
                await hold()
            return answers
        except asyncio.CancelledError:
            cut.append(where)
            raise

    if where == "store":
        wire.fault("insert", before=hold)
    await queue.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=5.0))
    await within(hold.reached.wait())
    await clock.advance(4.9)
    assert not call.done()
    await clock.advance(0.2)
    why = {
        "before": "a middleware of around_enqueue has not sent job 'a' in time",
        "store": "the store has not answered in time: job 'a' may be stored or not",
        "after": "job 'a' is stored, but a middleware of around_enqueue has not returned in time",
    }
    with pytest.raises(WaitTimeoutError, match=why[where]):
        await within(call)
    assert cut == [where]
    assert standing(queue) == 0
    hold.go.set()
    await lab.close()


async def test_the_timeout_includes_a_slow_middleware_on_a_store_that_never_waits(
    lab: Lab, clock: FakeClock
) -> None:
    hold = Hold()
    queue = lab.queue()

    @queue.around_enqueue
    async def slow(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        await hold()
        return await call_next(requests)

    await queue.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=5.0))
    await within(hold.reached.wait())
    await clock.advance(5.1)
    with pytest.raises(WaitTimeoutError, match="has not sent job 'a' in time"):
        await within(call)
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_an_outcome_that_comes_and_expires_while_a_middleware_is_slow_is_returned(
    clock: FakeClock,
) -> None:
    store, hold = DeafStorage(clock=clock), Hold()
    lab = Lab(store)
    queue = lab.queue(echo, block_timeout=0.1)

    @queue.around_enqueue
    async def slow(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        answers = await call_next(requests)
        await hold()
        return answers

    ran = Recorder(queue)
    await queue.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, result_ttl=8.0))
    await within(hold.reached.wait())
    await lab.finish(ran.wait("completed"), step=0.1)
    await clock.advance(6.0)  # the poll reads it: no reply comes
    await clock.advance(4.0)
    assert await store.get("q", ["a"]) == [None]
    hold.go.set()
    assert await within(call) == 1
    await lab.close()


async def test_after_sending_twice_the_last_job_is_waited_for(wire: WireStorage) -> None:
    lab, sent = Lab(wire), list[Any]()
    queue = lab.queue(echo)

    @queue.around_enqueue
    async def twice(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        await call_next(requests)
        await ran.wait("completed")
        sent.append("again")
        return await call_next([replace(r, payload="second", reuse="rerun") for r in requests])

    ran = Recorder(queue)
    await queue.start()
    assert await within(queue.enqueue_and_wait("a", "first")) == "second"
    assert sent == ["again"]
    await lab.close()


@ways
async def test_the_cancellation_of_the_caller_passes_through(lab: Lab, enqueue: Enqueue) -> None:
    hold, ended = Hold(), list[str]()
    queue = lab.queue()

    @queue.around_enqueue
    async def slow(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
        try:
            await hold()
        finally:
            ended.append("ended")
        return await call_next(requests)

    await queue.start()
    call = asyncio.ensure_future(enqueue(queue, "a", 1))
    await within(hold.reached.wait())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(call)
    assert ended == ["ended"]


# -- around runs --------------------------------------------------------------------------------------


def threaded(job: Job[Any]) -> Any:
    return job.payload


@pytest.mark.parametrize("handler", [echo, threaded])
async def test_around_runs_the_first_that_was_added_is_the_outermost(lab: Lab, handler: Any) -> None:
    told: list[Any] = []
    queue = lab.queue(handler)

    @queue.around_run
    async def outer(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        told.append(("outer", job.id, job.payload))
        return ["outer", await call_next(job)]

    @queue.around_run
    async def inner(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        told.append("inner")
        return ["inner", await call_next(job)]

    await queue.start()
    assert await within(queue.enqueue_and_wait("a", 1)) == ["outer", ["inner", 1]]
    assert told == [("outer", "a", 1), "inner"]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_an_error_of_the_handler_passes_through_and_may_be_changed(lab: Lab, kind: str) -> None:
    def fail(job: Job[Any]) -> Any:
        raise LookupError(job.payload)

    async def fail_async(job: Job[Any]) -> Any:
        fail(job)

    queue = lab.queue(fail if kind == "thread" else fail_async, max_attempts=1)

    @queue.around_run
    async def translate(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        try:
            return await call_next(job)
        except LookupError:
            if job.payload == "saved":
                return "saved"
            raise Fatal("translated") from None

    await queue.start()
    assert await within(queue.enqueue_and_wait("a", "saved")) == "saved"
    with pytest.raises(JobFailedError, match="translated") as failed:
        await within(queue.enqueue_and_wait("b", "lost"))
    assert failed.value.error.type == "jobqueue.Fatal"


async def test_an_error_of_the_middleware_is_that_of_the_attempt_which_is_tried_again(lab: Lab) -> None:
    queue = lab.queue(echo, backoff=Backoff.fixed(0.001))

    @queue.around_run
    async def flaky(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        if job.attempts < 3:
            raise OSError("not yet")
        return await call_next(job)

    await queue.start()
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == 1


async def test_without_call_next_the_handler_is_not_called(lab: Lab) -> None:
    handler = Gate()
    queue = lab.queue(handler)

    @queue.around_run
    async def skip(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        return "skipped"

    await queue.start()
    assert await within(queue.enqueue_and_wait("a", 1)) == "skipped"
    assert handler.jobs == []


async def test_a_second_call_and_another_job_are_errors(lab: Lab) -> None:
    calls: list[Any] = []

    async def handler(job: Job[Any]) -> Any:
        calls.append(job.id)

    queue = lab.queue(handler, max_attempts=1)

    @queue.around_run
    async def twice(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        if job.payload == "other":
            return await call_next(7)  # type: ignore[arg-type]
        await call_next(job)
        return await call_next(job)

    await queue.start()
    with pytest.raises(MaxRetriesError, match=r"jobqueue\.JobQueueError: call_next was called twice"):
        await within(queue.enqueue_and_wait("a", 1))
    with pytest.raises(MaxRetriesError, match="job: call_next takes the job that the middleware was given"):
        await within(queue.enqueue_and_wait("b", "other"))
    assert calls == ["a"]


async def test_every_attempt_may_call_it_once(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> Any:
        if job.attempts == 1:
            raise OSError
        return job.attempts

    queue = lab.queue(handler, backoff=Backoff.fixed(0.001))

    @queue.around_run
    async def around(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        return await call_next(job)

    await queue.start()
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == 2


@pytest.mark.parametrize("where", ["before", "handler", "after"])
async def test_a_job_timeout_includes_the_middleware(lab: Lab, clock: FakeClock, where: str) -> None:
    seen: list[Any] = []

    async def forever() -> None:
        await asyncio.Event().wait()

    async def handler(job: Job[Any]) -> Any:
        if where == "handler":
            await forever()

    queue = lab.queue(handler, job_timeout=5, max_attempts=1)

    @queue.around_run
    async def around(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        try:
            if where == "before":
                await forever()
            await call_next(job)
            if where == "after":
                await forever()
        except asyncio.CancelledError:
            seen.append(job.aborted_reason)
            raise

    await queue.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=60.0))
    await clock.advance(4.9)
    assert not call.done()
    await clock.advance(1)
    with pytest.raises(MaxRetriesError) as failed:
        await within(call)
    assert failed.value.reason == "timeout"
    assert seen == ["timeout"]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_cancelled_job_and_a_shutdown_reach_middleware_and_handler(lab: Lab, kind: str) -> None:
    ended: list[Any] = []
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_in_thread(job: Job[Any]) -> Any:
        loop.call_soon_threadsafe(began.set)
        end = time.monotonic() + 10
        while not job.aborted.is_set() and time.monotonic() < end:
            time.sleep(0.001)
        return "late"

    async def wait(job: Job[Any]) -> Any:
        began.set()
        await asyncio.Event().wait()

    queue = lab.queue(wait if kind == "async" else wait_in_thread)

    @queue.around_run
    async def around(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        try:
            return await call_next(job)
        finally:
            ended.append(job.aborted_reason)

    await queue.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(began.wait())
    await queue.cancel("a", running=True)
    with pytest.raises(JobCancelledError):
        await lab.finish(call)  # type: ignore[arg-type]
    await until(lambda: ended == ["cancelled"])
    began.clear()
    await queue.enqueue("b", 1)
    await within(began.wait())
    await lab.finish(queue.stop(timeout=0))
    # A thread reads `aborted` in real time, which the queue does not wait for here.
    await until(lambda: ended == ["cancelled", "shutdown"])


async def test_after_a_thread_the_middleware_is_cancelled_at_a_shutdown_like_any_task(lab: Lab) -> None:
    hold, ended = Hold(), list[Any]()
    queue = lab.queue(threaded)

    @queue.around_run
    async def around(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        await call_next(job)
        try:
            await hold()
        finally:
            ended.append(job.aborted_reason)

    await queue.start()
    await queue.enqueue("a", 1)
    await within(hold.reached.wait())
    await lab.finish(queue.stop(timeout=0))
    assert ended == ["shutdown"]
    assert await lab.state("a") == "queued"


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_context_variable_of_the_middleware_is_seen_by_the_handler(lab: Lab, kind: str) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")

    def handler(job: Job[Any]) -> Any:
        return tenant.get()

    async def handler_async(job: Job[Any]) -> Any:
        return tenant.get()

    queue = lab.queue(handler if kind == "thread" else handler_async)

    @queue.around_run
    async def around(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        tenant.set(f"of {job.id}")
        return await call_next(job)

    await queue.start()
    assert await within(queue.enqueue_and_wait("a", 1)) == "of a"


async def test_after_execution_sees_what_the_middleware_returned(lab: Lab) -> None:
    seen: list[Any] = []
    queue = lab.queue(echo, after_execution=lambda context: seen.append(context.result))

    @queue.around_run
    async def around(job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        return ["around", await call_next(job)]

    await queue.start()
    assert await within(queue.enqueue_and_wait("a", 1)) == ["around", 1]
    assert seen == [["around", 1]]


# -- adding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["around_run", "around_enqueue"])
async def test_it_is_added_before_the_start_or_after_a_stop(lab: Lab, kind: str) -> None:
    calls: list[str] = []

    async def around(value: Any, call_next: Any) -> Any:
        calls.append(kind)
        return await call_next(value)

    queue = lab.queue(echo)
    await queue.start()
    with pytest.raises(JobQueueError, match=r"is started: configure it before start\(\)"):
        getattr(queue, kind)(around)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    assert calls == []
    await queue.stop()
    assert getattr(queue, kind)(around) is around
    await queue.start()
    assert await within(queue.enqueue_and_wait("b", 1)) == 1
    assert calls == [kind]


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, value: Any, call_next: Any) -> Any:
        self.calls += 1
        return await call_next(value)


@pytest.mark.parametrize("kind", ["around_run", "around_enqueue"])
async def test_an_object_with_an_async_call_and_the_same_one_twice_will_do(lab: Lab, kind: str) -> None:
    counted = Counted()
    queue = lab.queue(echo)
    for _ in range(2):
        getattr(queue, kind)(counted)
    await queue.start()
    await within(queue.enqueue_and_wait("a", 1))
    assert counted.calls == 2


@pytest.mark.parametrize("kind", ["around_run", "around_enqueue"])
@pytest.mark.parametrize(
    "bad",
    [None, 7, "x", lambda value, call_next: call_next(value), Counted],
    ids=["None", "number", "text", "plain function", "class"],
)
def test_what_is_no_async_function_is_refused(kind: str, bad: Any) -> None:
    queue: Queue[Any, Any] = Queue("memory://")
    with pytest.raises(InvalidArgumentError, match=rf"^{kind}: must be an async function"):
        getattr(queue, kind)(bad)


async def test_a_queue_without_middleware_takes_the_short_way(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a queue without middleware came here")

    for kind, name in ((Sender, "send_one"), (Sender, "send_all"), (Sender, "send_and_wait")):
        monkeypatch.setattr(kind, name, never)
    monkeypatch.setattr(Execution, "_call_indirectly", never)
    queue = await lab.start(echo)
    with caplog.at_level(logging.ERROR):
        await queue.enqueue("a", 1)
        await queue.enqueue_many([("b", 1)])
        assert await within(queue.enqueue_and_wait("c", 1)) == 1
    assert caplog.records == []


async def test_a_stop_cancels_a_middleware_that_has_left_its_thread(lab: Lab) -> None:
    go, left, cancelled = threading.Event(), asyncio.Event(), asyncio.Event()

    def blocks(job: Job[Any]) -> None:
        go.wait(10)

    async def goes_on(job: Job[Any], call_next: RunNext) -> Any:
        calling = asyncio.ensure_future(call_next(job))
        await asyncio.sleep(0)
        calling.cancel()
        left.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    queue = lab.queue(blocks)
    queue.around_run(goes_on)
    await queue.start()
    await queue.enqueue("a", None)
    await within(left.wait())
    stopping = asyncio.ensure_future(queue.stop(timeout=0))
    try:
        await within(cancelled.wait())
    finally:
        go.set()
    await within(stopping)
