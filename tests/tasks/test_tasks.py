"""Tasks on every store: typed calls become jobs, and jobs become calls."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    BrokenError,
    Depends,
    EnqueueStatus,
    FailureReason,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobQueueError,
    JobState,
    MaxRetriesError,
    Queue,
    Storage,
    current_job,
)
from jobqueue.testing import FakeClock
from tests.support import Lab, Recorder, until, within


@dataclass
class Mail:
    to: str
    on: date


DAY = date(2026, 2, 3)


async def test_a_call_becomes_a_job_and_its_result_comes_back_typed(lab: Lab) -> None:
    queue = lab.queue()

    @queue.task
    async def send(mail: Mail, *others: date, copies: int = 1) -> Mail:
        assert isinstance(mail, Mail)
        assert all(isinstance(other, date) for other in others)
        return Mail(mail.to * copies, mail.on)

    @queue.task
    def where(prefix: str) -> str:
        return prefix + threading.current_thread().name

    await within(queue.start())
    assert await within(send.enqueue_and_wait(Mail("a", DAY), DAY, copies=2)) == Mail("aa", DAY)
    assert await within(where.enqueue_and_wait("in ")) != f"in {threading.main_thread().name}"

    ticket = await send.using(id="x").enqueue(Mail("b", DAY))
    assert ticket.status is EnqueueStatus.QUEUED
    assert await within(ticket.wait()) == Mail("b", DAY)
    again = await send.using(id="x").enqueue(Mail("c", DAY))
    assert (again.status, again.result) == (EnqueueStatus.COMPLETED, Mail("b", DAY))
    assert await within(again.wait()) == Mail("b", DAY)
    assert await send.using(id="x").enqueue_and_wait(Mail("c", DAY)) == Mail("b", DAY)
    assert await queue.get_result("x") == Mail("b", DAY)
    status = await queue.get_status("x")
    assert status is not None
    assert (status.task, status.result) == ("send", Mail("b", DAY))
    assert await within(queue.wait("x")) == Mail("b", DAY)

    many = await queue.enqueue_many([send.request(Mail("d", DAY)), where.using(priority=5).request("")])
    assert await within(many[0].wait()) == Mail("d", DAY)
    assert isinstance(await within(many[1].wait()), str)
    # A plain call needs no job.
    assert await send(Mail("e", DAY)) == Mail("e", DAY)
    assert threading.main_thread().name not in await where("in ")


async def test_another_process_reads_plain_values(lab: Lab, storage: Storage) -> None:
    """One that does not have the task gets what JSON has."""
    queue, other = lab.queue(), lab.queue()

    @queue.task
    async def send(mail: Mail) -> Mail:
        return mail

    await within(queue.start())
    await within(other.start())
    await within(send.using(id="x").enqueue_and_wait(Mail("a", DAY)))
    assert await other.get_result("x") == {"to": "a", "on": "2026-02-03"}
    (record,) = await storage.get("q", ["x"])
    assert record is not None
    assert (record.task, json.loads(record.result or b"")) == ("send", {"to": "a", "on": "2026-02-03"})


async def test_the_handler_and_tasks_share_a_queue(lab: Lab) -> None:
    async def handler(job: Job[int]) -> str:
        return f"handler {job.payload} {job.task!r} {job.args}"

    queue = lab.queue(handler)

    @queue.task(name="add up")
    async def add(a: int, b: int, job: Job[Any]) -> str:
        assert current_job() is job
        return f"{job.task} {job.args} {job.kwargs} {job.group}"

    await within(queue.start())
    assert await within(queue.enqueue_and_wait(None, 7)) == "handler 7 '' ()"
    assert await within(add.using(group="g").enqueue_and_wait(1, b=2)) == "add up (1, 2) {} g"


async def test_tasks_and_a_handler_that_come_after_the_start(lab: Lab) -> None:
    queue = await lab.start()

    @queue.task
    async def first() -> int:
        return 1

    assert await within(first.enqueue_and_wait()) == 1

    @queue.task
    async def second() -> int:
        return 2

    @queue.execute
    async def handler(job: Job[Any]) -> int:
        return 3

    assert await within(second.enqueue_and_wait()) == 2
    assert await within(queue.enqueue_and_wait(None, None)) == 3


async def test_the_declaration_decides(lab: Lab) -> None:
    queue = lab.queue(max_attempts=9, backoff=Backoff.fixed(100.0), job_timeout=100.0)
    seen: list[tuple[int, int]] = []

    @queue.task(
        id=lambda n: f"job:{n}", group=lambda n: f"group:{n}", max_attempts=2, backoff=Backoff.fixed(0.0),
        timeout=0.05, priority=7, result_ttl=1000.0,
    )  # fmt: skip
    async def slow(n: int) -> None:
        job = current_job()
        seen.append((job.attempts, job.max_attempts))
        await asyncio.sleep(30)

    await within(queue.start())
    with pytest.raises(MaxRetriesError) as caught:
        await within(slow.enqueue_and_wait(5))
    assert caught.value.reason == FailureReason.TIMEOUT
    assert seen == [(1, 2), (2, 2)]
    status = await queue.get_status("job:5")
    assert status is not None
    assert (status.group, status.priority, status.task) == ("group:5", 7, "slow")
    assert status.expires_at is not None
    assert 990 < (status.expires_at - status.updated_at).total_seconds() <= 1000


async def test_nothing_is_stored_for_arguments_that_do_not_fit(lab: Lab, storage: Storage) -> None:
    queue = lab.queue()

    @queue.task
    async def send(mail: Mail) -> None: ...

    async with queue:
        with pytest.raises(TypeError, match="send"):
            await send.enqueue()  # type: ignore[call-arg]
        with pytest.raises(InvalidArgumentError, match=r"send\(mail\)"):
            await send.enqueue("a")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="nonsense"):
            send.using(nonsense=1)  # type: ignore[call-arg]
    assert (await storage.scan("q", JobState.QUEUED, 9)).records == []


async def test_what_a_declaration_refuses(lab: Lab) -> None:
    queue = lab.queue()

    @queue.task
    async def send() -> None: ...

    with pytest.raises(JobQueueError, match="send"):
        queue.task(send.function)
    for options in ({"max_attempts": 0}, {"timeout": -1.0}, {"backoff": 1.0}, {"priority": "a"}, {"id": 5}):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            queue.task(**options)
    with pytest.raises(InvalidArgumentError, match="name"):
        queue.task(lambda: None)
    assert list(queue.task) == ["send"]


async def test_a_stored_job_whose_arguments_do_not_fit_any_more_fails_at_once(lab: Lab) -> None:
    old, new = lab.queue(), lab.queue()

    @old.task(name="send")
    async def send(to: str, cc: str) -> None: ...

    @new.task(name="send")
    async def renewed(to: str) -> None: ...

    await within(lab.storage.open())
    await within(new.start())
    request = send.request("a", "b")
    answers = await new.enqueue_many([request])
    with pytest.raises(JobFailedError, match=r"cc|too many") as caught:
        await within(answers[0].wait())
    assert caught.value.reason == FailureReason.SERIALIZATION
    await lab.storage.close()


async def test_a_result_that_does_not_fit_its_annotation_fails(lab: Lab) -> None:
    queue = lab.queue()

    @queue.task
    async def number() -> int:
        return "seven"  # type: ignore[return-value]

    await within(queue.start())
    with pytest.raises(JobFailedError) as caught:
        await within(number.enqueue_and_wait())
    assert caught.value.reason == FailureReason.SERIALIZATION


async def test_dependencies_are_made_once_per_job_and_ended_in_reverse(lab: Lab) -> None:
    queue = lab.queue()
    told: list[str] = []

    def settings() -> str:
        told.append("settings")
        return "S"

    async def pool(of: str = Depends(settings)) -> AsyncIterator[str]:
        told.append("pool")
        try:
            yield f"pool of {of}"
        finally:
            told.append("pool ended")

    def session(job: Job[Any], pool: str = Depends(pool), of: str = Depends(settings)) -> Iterator[str]:
        yield f"session {job.id} on {pool}"
        told.append("session ended")

    @queue.task
    async def work(pool: str = Depends(pool), session: str = Depends(session)) -> list[str]:
        told.append("work")
        return [pool, session]

    @queue.task
    def threaded(session: str = Depends(session)) -> str:
        return session

    await within(queue.start())
    assert await within(work.using(id="x").enqueue_and_wait()) == ["pool of S", "session x on pool of S"]
    assert told == ["settings", "pool", "work", "session ended", "pool ended"]
    assert await within(threaded.using(id="y").enqueue_and_wait()) == "session y on pool of S"


async def test_what_a_dependency_raises_is_the_error_of_the_attempt(lab: Lab) -> None:
    queue = lab.queue(backoff=Backoff.fixed(0.0), max_attempts=2)
    made: list[int] = []

    def pool() -> int:
        made.append(1)
        raise ConnectionError("no pool")

    @queue.task
    async def work(pool: int = Depends(pool)) -> int:
        return pool

    await within(queue.start())
    with pytest.raises(MaxRetriesError, match="no pool"):
        await within(work.enqueue_and_wait())
    assert len(made) == 2


async def test_resources_live_as_long_as_the_worker(lab: Lab) -> None:
    told: list[str] = []
    entered_by: list[Any] = []

    @asynccontextmanager
    async def lifespan(queue: Queue[Any, Any]) -> AsyncIterator[str]:
        entered_by.append(asyncio.current_task())
        told.append(f"enter {queue.name}")
        yield "resources"
        entered_by.append(asyncio.current_task())
        told.append("leave")

    async def handler(job: Job[Any]) -> str:
        told.append("run")
        resources: str = job.resources
        return resources

    queue = await lab.start(handler, lifespan=lifespan)
    assert await within(queue.enqueue_and_wait(None, None)) == "resources"
    await within(queue.stop())
    assert told == ["enter q", "run", "leave"]
    assert entered_by[0] is entered_by[1]

    producer = await lab.start(lifespan=lifespan)
    await within(producer.stop())
    assert len(told) == 3, "a queue that only produces does not enter it"


async def test_a_lifespan_that_raises(lab: Lab) -> None:
    @asynccontextmanager
    async def refuses(queue: Queue[Any, Any]) -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    @asynccontextmanager
    async def breaks(queue: Queue[Any, Any]) -> AsyncIterator[None]:
        yield
        raise ConnectionError("not closed")

    async def handler(job: Job[Any]) -> None: ...

    queue = lab.queue(handler, lifespan=refuses)
    with pytest.raises(ConnectionError, match="no database"):
        await within(queue.start())
    queue = await lab.start(handler, lifespan=breaks)
    heard = Recorder(queue)
    await within(queue.stop())
    assert "not closed" in str(heard.of("error")[0].error)


async def test_a_worker_without_the_task_gives_the_job_back(lab: Lab, clock: FakeClock) -> None:
    queue = lab.queue(handler_patience=60.0, max_attempts=1)
    knows = lab.queue(max_attempts=1)

    @queue.task
    async def other() -> None: ...

    @knows.task
    async def send() -> int:
        return current_job().attempts

    await within(queue.start())
    (ticket,) = await queue.enqueue_many([send.request()])
    for _ in range(20):
        await clock.advance(0.5)
    status = await queue.get_status(ticket.id)
    assert status is not None
    assert (status.state, status.attempts) == (JobState.FAILING, 0)
    assert {attempt.reason for attempt in status.history} == {FailureReason.NO_HANDLER}
    # A deploy brings the handler: the job runs, in its first attempt.
    await within(queue.stop())
    await within(knows.start())
    assert await lab.finish(knows.wait(ticket.id, timeout=100.0)) == 1


async def test_a_job_that_no_worker_knows_fails_when_patience_is_over(lab: Lab, clock: FakeClock) -> None:
    queue = lab.queue(handler_patience=60.0)
    stranger = lab.queue()

    @queue.task
    async def other() -> None: ...

    @stranger.task
    async def send() -> None: ...

    await within(queue.start())
    started = clock.monotonic()
    (ticket,) = await queue.enqueue_many([send.request()])
    with pytest.raises(JobFailedError, match="send") as caught:
        await lab.finish(queue.wait(ticket.id, timeout=500.0))
    assert caught.value.reason == FailureReason.NO_HANDLER
    assert 60 <= clock.monotonic() - started <= 75
    # So does a plain job where there are only tasks.
    plain = await queue.enqueue(None, 1)
    with pytest.raises(JobFailedError, match="no handler"):
        await lab.finish(queue.wait(plain.id, timeout=500.0))


async def test_steps_and_checkpoints_survive_attempts(lab: Lab) -> None:
    queue = lab.queue(backoff=Backoff.fixed(0.0), max_attempts=3)
    charged: list[int] = []

    @queue.task
    async def order(amount: int) -> tuple[Any, ...]:
        job = current_job()
        if job.attempts == 1:
            assert job.saved is None

        def charge() -> str:
            charged.append(job.attempts)
            return f"receipt {amount}"

        first, second = await asyncio.gather(job.run_once("charge", charge), job.run_once("charge", charge))
        assert first == second == "receipt 5"
        saved = job.saved
        await job.checkpoint({"page": job.attempts})
        assert job.saved == {"page": job.attempts}
        if job.attempts < 3:
            raise ConnectionError
        return saved, first

    await within(queue.start())
    assert await within(order.enqueue_and_wait(5)) == ({"page": 2}, "receipt 5")
    assert charged == [1]


async def test_a_step_that_raises_is_not_stored(lab: Lab) -> None:
    queue = lab.queue(backoff=Backoff.fixed(0.0), max_attempts=2)
    calls: list[int] = []

    async def charge() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return 7

    @queue.task
    async def order() -> int:
        return await current_job().run_once("charge", charge)

    await within(queue.start())
    assert await within(order.enqueue_and_wait()) == 7
    assert len(calls) == 2


async def test_what_cannot_be_saved_is_refused(lab: Lab) -> None:
    queue = lab.queue(max_payload_bytes=1000, max_attempts=1)

    @queue.task
    async def save(what: str) -> None:
        job = current_job()
        if what == "key":
            await job.run_once("", lambda: 1)
        elif what == "object":
            await job.checkpoint(object())
        elif what == "large":
            await job.checkpoint("x" * 1001)
        else:
            for n in range(10):
                await job.run_once(f"{n}", lambda: "x" * 300)

    await within(queue.start())
    for what, message in (
        ("key", "key"),
        ("object", "checkpoint"),
        ("large", "checkpoint"),
        ("", "saved state"),
    ):
        with pytest.raises(MaxRetriesError, match=message):
            await within(save.enqueue_and_wait(what))


async def test_there_is_no_current_job_outside_of_one() -> None:
    with pytest.raises(LookupError, match="no job"):
        current_job()


async def test_tasks_declared_at_once_after_the_start_have_one_worker(lab: Lab) -> None:
    queue = await lab.start(concurrency=1)
    running: list[int] = []
    most: list[int] = []

    def declare(name: str) -> Any:
        @queue.task(name=name)
        async def task() -> None:
            running.append(1)
            most.append(len(running))
            await current_job().checkpoint(name)
            await asyncio.sleep(0.01)
            running.pop()

        return task

    tasks = [declare(name) for name in "abc"]

    @queue.execute
    async def handler(job: Job[Any]) -> None: ...

    await within(asyncio.gather(*(task.enqueue_and_wait() for task in tasks)))
    assert max(most) == 1


async def test_a_handler_that_comes_while_the_queue_starts(lab: Lab) -> None:
    @asynccontextmanager
    async def lifespan(queue: Queue[Any, Any]) -> AsyncIterator[None]:
        @queue.execute
        async def handler(job: Job[Any]) -> int:
            return 7

        yield

    queue = lab.queue(lifespan=lifespan)

    @queue.task
    async def other() -> None: ...

    await within(queue.start())
    assert await within(queue.enqueue_and_wait(None, None)) == 7


async def test_a_dependency_cannot_swallow_the_error_of_its_task(lab: Lab) -> None:
    queue = lab.queue(max_attempts=2, backoff=Backoff.fixed(0.0))
    seen: list[str] = []

    async def session() -> AsyncIterator[int]:
        try:
            yield 1
        except ConnectionError:
            seen.append("rolled back")

    @queue.task
    async def charge(session: int = Depends(session)) -> None:
        raise ConnectionError("no answer")

    await within(queue.start())
    with pytest.raises(MaxRetriesError, match="no answer"):
        await within(charge.enqueue_and_wait())
    assert seen == ["rolled back"] * 2


async def test_a_thread_that_outlives_its_job_keeps_its_dependencies(lab: Lab) -> None:
    queue = lab.queue(max_attempts=1)
    go, told = threading.Event(), []

    def connection() -> Iterator[list[str]]:
        yield told
        told.append("closed")

    @queue.task(timeout=0.05)
    def work(told: list[str] = Depends(connection)) -> None:
        go.wait(10)
        told.append("used")

    await within(queue.start())
    with pytest.raises(MaxRetriesError):
        await within(work.enqueue_and_wait())
    assert told == []
    go.set()
    await until(lambda: told == ["used", "closed"])


async def test_a_lifespan_that_ends_while_its_queue_works_breaks_it(lab: Lab) -> None:
    go = asyncio.Event()

    async def fail() -> None:
        await go.wait()
        raise ConnectionError("the pool is gone")

    @asynccontextmanager
    async def lifespan(queue: Queue[Any, Any]) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            yield

    async def handler(job: Job[Any]) -> None: ...

    queue = await lab.start(handler, lifespan=lifespan)
    go.set()
    with pytest.raises(BrokenError):
        await within(queue.until_broken())
    await within(queue.stop())


async def test_a_stop_with_a_bound_does_not_wait_for_a_lifespan_for_ever(lab: Lab, clock: FakeClock) -> None:
    @asynccontextmanager
    async def lifespan(queue: Queue[Any, Any]) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    async def handler(job: Job[Any]) -> None: ...

    queue = await lab.start(handler, lifespan=lifespan)
    await lab.finish(queue.stop(0.1))


async def test_who_hurries_waits_for_no_lifespan(lab: Lab, clock: FakeClock) -> None:
    leaving = asyncio.Event()

    @asynccontextmanager
    async def lifespan(queue: Queue[Any, Any]) -> AsyncIterator[None]:
        yield
        leaving.set()
        await asyncio.Event().wait()

    async def handler(job: Job[Any]) -> None: ...

    queue = await lab.start(handler, lifespan=lifespan)
    stopping = asyncio.ensure_future(queue.stop())
    await within(leaving.wait())
    queue.hurry()
    await lab.finish(stopping)


async def test_a_step_that_calls_itself_is_refused(lab: Lab) -> None:
    queue = lab.queue(max_attempts=1)

    @queue.task
    async def order() -> Any:
        job = current_job()
        return await job.run_once("a", lambda: job.run_once("a", lambda: 1))

    await within(queue.start())
    with pytest.raises(MaxRetriesError, match="calls itself"):
        await within(order.enqueue_and_wait())


async def test_a_task_is_no_function_for_another_task(lab: Lab) -> None:
    queue, other = lab.queue(), lab.queue()

    @queue.task
    async def send(to: str, copies: int = 2) -> None: ...

    with pytest.raises(InvalidArgumentError, match=r"send\.function"):
        other.task(send)
    named = other.task(name="send", id=lambda to, copies: f"{to}{copies}")(send.function)
    assert named.request("a").id == "a2"
