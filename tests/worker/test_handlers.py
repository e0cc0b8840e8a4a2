"""What handlers do, and what becomes of it: nothing of it harms the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    ErrorInfo,
    Fatal,
    Job,
    JobFailedError,
    JobState,
    MaxRetriesError,
    Retry,
)
from jobqueue.testing import FakeClock
from tests.support import Lab, Recorder, within


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Outer:
    class Inner(Exception):
        """Its qualified name has a dot."""


def raiser(error: BaseException) -> Callable[[Job[Any]], Any]:
    async def handler(job: Job[Any]) -> Any:
        if job.payload == "ok":
            return "ok"
        raise error

    return handler


def sync_raiser(error: BaseException) -> Callable[[Job[Any]], Any]:
    def handler(job: Job[Any]) -> Any:
        if job.payload == "ok":
            return "ok"
        raise error

    return handler


RAISED = [
    (ValueError("bad"), "ValueError", "bad"),
    (Exception(), "Exception", ""),
    (Outer.Inner("x"), f"{__name__}.Outer.Inner", "x"),
    (BaseException("base"), "BaseException", "base"),
    (SystemExit(3), "SystemExit", "3"),
    (KeyboardInterrupt(), "KeyboardInterrupt", ""),
    (GeneratorExit("gone"), "GeneratorExit", "gone"),
    (asyncio.CancelledError("mine"), "asyncio.exceptions.CancelledError", "mine"),
    (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), "ExceptionGroup", "two (2 sub-exceptions)"),
    (BaseExceptionGroup("base", [SystemExit(1)]), "BaseExceptionGroup", "base (1 sub-exception)"),
    (BadStr(), f"{__name__}.BadStr", "<str() of this exception raised RuntimeError>"),
    (RecursionError("deep"), "RecursionError", "deep"),
    (MemoryError(), "MemoryError", ""),
    (TimeoutError("its own"), "TimeoutError", "its own"),
    (UnicodeError("\ud800"), "UnicodeError", "\ud800"),
    (StopAsyncIteration("end"), "StopAsyncIteration", "end"),
    (StopIteration("end"), "RuntimeError", "coroutine raised StopIteration"),
]


@pytest.mark.parametrize("make", [raiser, sync_raiser])
@pytest.mark.parametrize(("error", "type_", "message"), RAISED, ids=lambda value: type(value).__name__)
async def test_whatever_a_handler_raises_fails_the_attempt_and_nothing_else(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Any],
    error: BaseException,
    type_: str,
    message: str,
) -> None:
    monkeypatch.setattr("jobqueue.emitter.log.disabled", True)  # a lone surrogate has no place in a report
    queue = await lab.start(make(error), max_attempts=2, backoff=Backoff.fixed(0))
    events = Recorder(queue)
    with pytest.raises(MaxRetriesError) as caught:
        await lab.finish(queue.enqueue_and_wait("a", "bad"))
    assert caught.value.error.type == type_
    assert caught.value.error.message.startswith(message)
    assert (caught.value.attempts, caught.value.reason) == (2, "error")
    assert await within(queue.enqueue_and_wait("b", "ok")) == "ok"
    assert [event.attempts for event in events.of("failing")] == [1]
    assert events.of("error") == []
    await within(lab.finish(queue.stop()))


async def test_the_attempts_left_decide(lab: Lab, clock: FakeClock) -> None:
    runs: list[tuple[int, float]] = []

    async def handler(job: Job[Any]) -> None:
        runs.append((job.attempts, clock.monotonic()))
        raise ValueError(f"attempt {job.attempts}")

    queue = await lab.start(handler, backoff=Backoff.exponential(1, factor=3, max=4, jitter=0))
    events = Recorder(queue)
    await queue.enqueue("a", 1, max_attempts=4)
    await clock.advance(0.5)
    status = await queue.get_status("a")
    assert status is not None
    assert (status.state, status.attempts, status.max_attempts) == (JobState.FAILING, 1, 4)
    assert status.error == ErrorInfo("ValueError", "attempt 1")
    await clock.advance(20)
    assert runs == [(1, 0), (2, 1), (3, 4), (4, 8)]
    assert [(event.attempts, event.delay) for event in events.of("failing")] == [(1, 1), (2, 3), (3, 4)]
    (failed,) = events.of("failed")
    assert (failed.attempts, failed.reason, failed.error.message) == (4, "error", "attempt 4")
    assert await lab.state("a") == "failed"


async def test_jitter_spreads_the_retries(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(raiser(ValueError()), concurrency=50, backoff=Backoff.exponential(10, jitter=0.5))
    events = Recorder(queue)
    await queue.enqueue_many((f"j{n}", None) for n in range(50))
    await clock.advance(0.1)
    delays = [event.delay for event in events.of("failing")]
    assert len(set(delays)) > 40
    assert min(delays) >= 5
    assert max(delays) <= 15


@pytest.mark.parametrize(
    "bad", [ValueError("rule"), -1, "soon", None, float("nan"), float("inf"), True, SystemExit(2)], ids=repr
)
async def test_a_backoff_that_makes_no_sense_waits_a_second(lab: Lab, clock: FakeClock, bad: Any) -> None:
    def rule(attempts: int) -> Any:
        if isinstance(bad, BaseException):
            raise bad
        return bad

    queue = await lab.start(raiser(KeyError("x")), max_attempts=2, backoff=Backoff.custom(rule))
    events = Recorder(queue)
    await queue.enqueue("a", "bad")
    await clock.advance(0.9)
    assert [event.delay for event in events.of("failing")] == [1.0]
    (error,) = events.of("error")
    assert "backoff after 1 attempts" in error.doing
    await clock.advance(0.2)
    assert await lab.state("a") == "failed"


async def test_custom_backoff_gets_the_attempts(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(
        raiser(KeyError()), max_attempts=3, backoff=Backoff.custom(lambda attempts: attempts * 2)
    )
    events = Recorder(queue)
    await queue.enqueue("a", "bad")
    await clock.advance(10)
    assert [event.delay for event in events.of("failing")] == [2, 4]


async def test_retry_asks_for_another_run_whatever_attempts_are_left(lab: Lab, clock: FakeClock) -> None:
    runs: list[tuple[int, float]] = []

    async def handler(job: Job[Any]) -> str:
        runs.append((job.attempts, clock.monotonic()))
        if job.attempts < 5:
            raise Retry(delay=0.25)
        return "at last"

    queue = await lab.start(handler, max_attempts=2)
    events = Recorder(queue)
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == "at last"
    assert runs == [(1, 0), (2, 0.25), (3, 0.5), (4, 0.75), (5, 1.0)]
    assert [event.delay for event in events.of("failing")] == [0.25] * 4
    assert {event.error.type for event in events.of("failing")} == {"jobqueue.Retry"}


async def test_retry_without_delay_takes_the_backoff_and_with_zero_none(lab: Lab, clock: FakeClock) -> None:
    runs: list[float] = []

    def handler(job: Job[Any]) -> str:
        runs.append(clock.monotonic())
        if job.attempts == 1:
            raise Retry
        if job.attempts == 2:
            raise Retry(0)
        return "done"

    queue = await lab.start(handler, backoff=Backoff.fixed(3), max_attempts=1)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    while not call.done():
        await asyncio.sleep(0.001)
        await clock.advance(0.5)
    assert await call == "done"
    assert runs[1] - runs[0] >= 3
    assert runs[2] - runs[1] <= 1


@pytest.mark.parametrize("delay", [-1, "soon", float("nan"), float("inf"), True, 10**12], ids=repr)
async def test_retry_with_a_bad_delay_is_an_error_of_the_attempt(lab: Lab, delay: Any) -> None:
    queue = await lab.start(raiser(Retry(delay)), max_attempts=1)
    with pytest.raises(MaxRetriesError) as caught:
        await within(queue.enqueue_and_wait("a", "bad"))
    assert caught.value.error.type == "jobqueue.InvalidArgumentError"
    assert "delay" in caught.value.error.message


@pytest.mark.parametrize("make", [raiser, sync_raiser])
async def test_fatal_ends_the_job_at_once(lab: Lab, make: Callable[..., Any]) -> None:
    queue = await lab.start(make(Fatal("no way")), max_attempts=10)
    events = Recorder(queue)
    with pytest.raises(JobFailedError) as caught:
        await within(queue.enqueue_and_wait("a", "bad"))
    assert not isinstance(caught.value, MaxRetriesError)
    assert (caught.value.reason, caught.value.attempts) == ("fatal", 1)
    assert caught.value.error == ErrorInfo("jobqueue.Fatal", "no way")
    assert events.of("failing") == []


async def test_a_long_message_is_cut(lab: Lab) -> None:
    queue = await lab.start(raiser(ValueError("x" * 100_000)), max_attempts=1)
    with pytest.raises(MaxRetriesError) as caught:
        await within(queue.enqueue_and_wait("a", "bad"))
    assert caught.value.error.message == "x" * 4096


async def test_tracebacks_are_kept_if_asked(lab: Lab) -> None:
    plain = await lab.start(raiser(ValueError("v")), name="plain", max_attempts=1)
    full = await lab.start(raiser(BadStr()), name="full", max_attempts=1, tracebacks=True)
    with pytest.raises(MaxRetriesError) as caught:
        await within(plain.enqueue_and_wait("a", "bad"))
    assert caught.value.error.traceback is None
    with pytest.raises(MaxRetriesError) as caught:
        await within(full.enqueue_and_wait("a", "bad"))
    assert "in handler" in (caught.value.error.traceback or "")
    assert "raise error" in (caught.value.error.traceback or "")


def group(*errors: BaseException, text: str = "several") -> BaseException:
    return BaseExceptionGroup(text, list(errors))


@pytest.mark.parametrize(
    "error",
    [
        group(Fatal("no way")),
        group(ValueError("x"), group(KeyError("y"), Fatal("no way"))),
        group(Retry(), group(Fatal("no way"))),
        group(asyncio.CancelledError(), Fatal("no way"), Fatal("nor this")),
    ],
    ids=["alone", "nested", "with Retry", "twice"],
)
async def test_fatal_in_a_group_decides(lab: Lab, error: BaseException) -> None:
    queue = await lab.start(raiser(error), max_attempts=5)
    with pytest.raises(JobFailedError) as caught:
        await within(queue.enqueue_and_wait("a", 1))
    assert (caught.value.reason, caught.value.attempts) == ("fatal", 1)
    assert caught.value.error.type in {"ExceptionGroup", "BaseExceptionGroup"}
    assert caught.value.error.message.startswith(f"{error}: jobqueue.Fatal: no way")


@pytest.mark.parametrize(
    "error",
    [group(Retry(0)), group(group(Retry(0)), ValueError("x")), group(ValueError("x"), Retry(0), Retry(99))],
    ids=["alone", "nested", "the first counts"],
)
async def test_retry_in_a_group_is_obeyed(lab: Lab, error: BaseException) -> None:
    async def handler(job: Job[Any]) -> int:
        if job.attempts < 4:
            raise error
        return job.attempts

    queue = await lab.start(handler, max_attempts=1)
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == 4


async def test_the_cause_in_a_task_group_is_kept(lab: Lab) -> None:
    async def part() -> None:
        raise ValueError("row 17 is bad")

    async def handler(job: Job[Any]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(part())
            tasks.create_task(asyncio.sleep(5))

    queue = await lab.start(handler, max_attempts=1)
    with pytest.raises(MaxRetriesError) as caught:
        await within(queue.enqueue_and_wait("a", 1))
    assert caught.value.error == ErrorInfo(
        "ExceptionGroup", "unhandled errors in a TaskGroup (1 sub-exception): ValueError: row 17 is bad"
    )
