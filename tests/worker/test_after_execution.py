"""`after_execution`: the last word on final outcomes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    AfterExecution,
    Backoff,
    ErrorInfo,
    Fatal,
    InvalidArgumentError,
    Job,
    JobFailedError,
    MaxRetriesError,
    Retry,
    SerializationError,
)
from jobqueue.testing import FakeClock
from tests.support import Gate, Lab, Recorder, echo, within


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_it_sees_and_replaces_the_result(lab: Lab, kind: str) -> None:
    seen: list[Any] = []

    def hook(context: AfterExecution) -> None:
        seen.append((context.job.id, context.result, context.error, context.ttl))
        context.result = {"was": context.result}

    async def slow(context: AfterExecution) -> None:
        await asyncio.sleep(0)
        hook(context)

    queue = await lab.start(echo, after_execution=hook if kind == "sync" else slow, result_ttl=50)
    events = Recorder(queue)
    assert await within(queue.enqueue_and_wait("a", 1)) == {"was": 1}
    assert seen == [("a", 1, None, 50.0)]
    assert (await events.wait("completed")).result == {"was": 1}
    assert await queue.get_result("a") == {"was": 1}


async def test_a_result_changed_in_place_is_stored_as_it_then_is(lab: Lab) -> None:
    def hook(context: AfterExecution) -> None:
        context.result["seen"] = True

    queue = await lab.start(echo, after_execution=hook)
    assert await within(queue.enqueue_and_wait("a", {"x": 1})) == {"x": 1, "seen": True}


@pytest.mark.parametrize("result", [None, 0, "", False], ids=repr)
async def test_it_may_set_a_falsy_result(lab: Lab, result: Any) -> None:
    def hook(context: AfterExecution) -> None:
        context.result = result

    queue = await lab.start(echo, after_execution=hook)
    assert await within(queue.enqueue_and_wait("a", "long")) == result


async def test_it_may_change_the_ttl(lab: Lab, clock: FakeClock) -> None:
    def hook(context: AfterExecution) -> None:
        context.ttl = context.job.payload

    queue = await lab.start(echo, after_execution=hook)
    await within(queue.enqueue_and_wait("a", 5))
    await within(queue.enqueue_and_wait("b", 0.0004))
    await clock.advance(4.9)
    assert await queue.get_result("a") == 5
    await clock.advance(0.2)
    assert await queue.get_status("a") is None
    assert await queue.get_status("b") is None


async def test_it_may_fail_a_job_that_succeeded_and_that_is_final(lab: Lab) -> None:
    def hook(context: AfterExecution) -> None:
        context.error = ErrorInfo("app.Rejected", "not good enough")

    queue = await lab.start(echo, after_execution=hook, max_attempts=3)
    events = Recorder(queue)
    with pytest.raises(JobFailedError) as caught:
        await within(queue.enqueue_and_wait("a", 1))
    assert caught.value.error == ErrorInfo("app.Rejected", "not good enough")
    assert (caught.value.attempts, caught.value.reason) == (1, "fatal")
    assert (await events.wait("failed")).error.type == "app.Rejected"
    assert not {"completed", "failing"} & set(events.names)


async def test_it_may_complete_a_job_that_failed(lab: Lab) -> None:
    def hook(context: AfterExecution) -> None:
        assert context.error is not None
        assert context.result is None
        context.error, context.result = None, "a default"

    async def handler(job: Job[Any]) -> None:
        raise Fatal("no")

    queue = await lab.start(handler, after_execution=hook)
    events = Recorder(queue)
    assert await within(queue.enqueue_and_wait("a", 1)) == "a default"
    assert (await events.wait("completed")).result == "a default"
    assert events.of("failed") == []


@pytest.mark.parametrize(
    "error",
    [ErrorInfo(5, "m"), ErrorInfo("T", None), ErrorInfo("T", "m", b"t")],  # type: ignore[arg-type]
)
async def test_an_error_that_is_no_text_is_refused_and_the_outcome_stands(lab: Lab, error: ErrorInfo) -> None:
    def hook(context: AfterExecution) -> None:
        context.error = error

    queue = await lab.start(echo, after_execution=hook)
    events = Recorder(queue)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
    assert isinstance(events.of("error")[0].error, InvalidArgumentError)


async def test_it_may_replace_the_error_but_not_the_reason(lab: Lab) -> None:
    def hook(context: AfterExecution) -> None:
        context.error = ErrorInfo("Hidden", "see the log")

    async def handler(job: Job[Any]) -> None:
        raise Fatal("secret") if job.payload == "fatal" else ValueError("secret")

    queue = await lab.start(handler, after_execution=hook, max_attempts=1)
    for payload, reason in (("fatal", "fatal"), ("error", "error")):
        with pytest.raises(JobFailedError) as caught:
            await within(queue.enqueue_and_wait(payload, payload))
        assert (caught.value.error.message, caught.value.reason) == ("see the log", reason)


async def test_it_is_called_once_for_the_last_attempt_only(lab: Lab) -> None:
    seen: list[tuple[int, str | None]] = []

    def hook(context: AfterExecution) -> None:
        seen.append((context.job.attempts, context.error and context.error.message))

    async def handler(job: Job[Any]) -> None:
        if job.attempts == 1:
            raise Retry(0)
        raise ValueError(f"attempt {job.attempts}")

    queue = await lab.start(handler, after_execution=hook, max_attempts=3, backoff=Backoff.fixed(0))
    with pytest.raises(MaxRetriesError):
        await lab.finish(queue.enqueue_and_wait("a", 1))
    assert seen == [(3, "attempt 3")]


async def test_it_is_called_for_the_last_timeout(lab: Lab, clock: FakeClock) -> None:
    seen: list[Any] = []

    async def handler(job: Job[Any]) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "swallowed"
        return "unreachable"

    def hook(context: AfterExecution) -> None:
        seen.append((context.job.attempts, context.result, context.error and context.error.type))

    queue = await lab.start(
        handler, after_execution=hook, max_attempts=2, job_timeout=1, backoff=Backoff.fixed(1)
    )
    await queue.enqueue("a", 1)
    await clock.advance(10)
    assert seen == [(2, None, "TimeoutError")]
    assert await lab.state("a") == "failed"


async def test_it_is_not_called_for_what_is_cancelled_or_given_back(lab: Lab, clock: FakeClock) -> None:
    seen: list[str] = []
    gate = Gate()
    queue = await lab.start(gate, after_execution=lambda context: seen.append(context.job.id), concurrency=2)
    await queue.enqueue_many([("a", 1), ("b", 2)])
    await clock.settle()
    await queue.cancel("a", running=True)
    await clock.settle()
    await within(queue.stop(timeout=0))
    assert (await lab.state("a"), await lab.state("b")) == ("cancelled", "queued")
    assert seen == []


async def test_it_sees_what_could_not_be_serialized(lab: Lab) -> None:
    seen: list[Any] = []

    def hook(context: AfterExecution) -> None:
        seen.append((context.job.payload, context.result, context.error and context.error.type))
        context.error, context.result = None, "repaired"

    async def handler(job: Job[Any]) -> Any:
        return object()

    queue = await lab.start(handler, after_execution=hook)
    assert await within(queue.enqueue_and_wait("a", 1)) == "repaired"
    assert seen == [(1, None, "jobqueue.SerializationError")]


async def test_it_sees_a_job_whose_payload_cannot_be_read(lab: Lab) -> None:
    from jobqueue import MsgpackSerde

    seen: list[Any] = []
    producer = await lab.start(payload_serde=MsgpackSerde())
    queue = await lab.start(
        echo, after_execution=lambda context: seen.append((context.job.id, context.job.payload))
    )
    await producer.enqueue("a", b"\xff")
    with pytest.raises(JobFailedError, match="serialization"):
        await within(queue.wait("a"))
    assert seen == [("a", None)]


def _raise(error: BaseException) -> Any:
    raise error


BAD = {
    "raises": lambda context: _raise(ValueError("hook")),
    "exits": lambda context: _raise(SystemExit(1)),
    "cancels": lambda context: _raise(asyncio.CancelledError()),
    "generator exit": lambda context: _raise(GeneratorExit()),
    "bad str": lambda context: _raise(type("BadStr", (Exception,), {"__str__": lambda self: 1 / 0})()),
    "zero ttl": lambda context: setattr(context, "ttl", 0),
    "nan ttl": lambda context: setattr(context, "ttl", float("nan")),
    "bool ttl": lambda context: setattr(context, "ttl", True),
    "text ttl": lambda context: setattr(context, "ttl", "soon"),
    "no error": lambda context: setattr(context, "error", ValueError("not an ErrorInfo")),
    "unserialisable": lambda context: setattr(context, "result", object()),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("outcome", ["success", "failure"])
async def test_a_hook_that_goes_wrong_is_reported_and_the_original_stored(
    lab: Lab, bad: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(job: Job[Any]) -> Any:
        if outcome == "failure":
            raise Fatal("original")
        return "original"

    def hook(context: AfterExecution) -> None:
        if bad == "unserialisable":
            context.error = None
        BAD[bad](context)

    monkeypatch.setattr("jobqueue.emitter.log.disabled", True)  # pytest's handler cannot print a bad str()
    queue = await lab.start(handler, after_execution=hook)
    events = Recorder(queue)
    if outcome == "success":
        assert await within(queue.enqueue_and_wait("a", 1)) == "original"
    else:
        with pytest.raises(JobFailedError, match="original"):
            await within(queue.enqueue_and_wait("a", 1))
    error = await events.wait("error")
    assert error.doing == "after_execution of job 'a'"
    if "ttl" in bad or bad == "no error":
        assert isinstance(error.error, InvalidArgumentError)
    if bad == "unserialisable":
        assert isinstance(error.error, SerializationError)
    status = await queue.get_status("a")
    assert status is not None
    assert status.expires_at is not None
    assert 3590 < (status.expires_at - status.updated_at).total_seconds() <= 3600


async def test_a_result_over_the_cap_from_the_hook_is_refused(lab: Lab) -> None:
    def hook(context: AfterExecution) -> None:
        context.result = "x" * 1000

    queue = await lab.start(echo, after_execution=hook, max_payload_bytes=100)
    assert await within(queue.enqueue_and_wait("a", "small")) == "small"


async def test_an_abort_cuts_the_hook_off_and_keeps_the_outcome(lab: Lab, clock: FakeClock) -> None:
    cut: list[str] = []

    async def hook(context: AfterExecution) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.append(context.job.id)
            raise

    queue = await lab.start(echo, after_execution=hook, job_timeout=5)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.advance(6)
    assert await within(call) == 1
    assert cut == ["a"]
