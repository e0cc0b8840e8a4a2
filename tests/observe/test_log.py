"""The log of a queue: what is told by default, what at debug level, and what never."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from jobqueue import Backoff, Job, JobFailed, JobFailedError, JobProcessing, MaxRetriesError
from tests.support import Lab, Recorder, echo, until, within

Log = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def at_info(caplog: Log) -> None:
    caplog.set_level(logging.INFO, "jobqueue")


def of(caplog: Log, level: str) -> list[Any]:
    return [record for record in caplog.records if record.levelname == level and record.name == "jobqueue"]


async def logged(caplog: Log, level: str, count: int = 1) -> list[Any]:
    """Return what was logged at a level, as soon as it is there: a waiter may hear of the end first."""
    await until(lambda: len(of(caplog, level)) >= count)
    found = of(caplog, level)
    assert len(found) == count
    return found


def text(record: logging.LogRecord) -> str:
    return logging.Formatter().format(record)


async def fails(job: Job[Any]) -> None:
    secret = "not to be logged"  # noqa: F841
    raise ValueError("no route")


async def test_a_final_failure_is_logged_with_its_traceback(lab: Lab, caplog: Log) -> None:
    queue = await lab.start(fails, max_attempts=1)
    with pytest.raises(MaxRetriesError):
        await within(queue.enqueue_and_wait("a", "the payload"))
    (record,) = await logged(caplog, "ERROR")
    first, *lines = text(record).splitlines()
    assert first == "job 'a' of q failed (error) after 1 attempts: ValueError: no route"
    assert lines[0] == "    Traceback (most recent call last):"
    assert "in fails" in lines[1]
    assert 'raise ValueError("no route")' in lines[2]
    assert lines[-1] == "    ValueError: no route"
    assert len(lines) == 4, "frames of the queue tell nothing"
    assert "the payload" not in text(record)
    assert "not to be logged" not in text(record)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_retry_is_logged_in_one_line_with_its_place(lab: Lab, caplog: Log, threaded: bool) -> None:
    def plain(job: Job[Any]) -> int:
        if job.attempts == 1:
            raise ValueError("not\nyet")
        return job.attempts

    async def handler(job: Job[Any]) -> int:
        return plain(job)

    queue = await lab.start(plain if threaded else handler, backoff=Backoff.fixed(0.01))
    assert await lab.finish(queue.enqueue_and_wait("a", 1)) == 2
    (record,) = await logged(caplog, "WARNING")
    assert record.exc_info is None
    assert text(record).startswith("job 'a' of q failed attempt 1, again in 0.01 s: ValueError: not yet (")
    assert text(record).endswith("plain)")
    assert "test_log.py:" in text(record)
    assert "\n" not in text(record)
    assert of(caplog, "ERROR") == []


async def test_a_retry_in_a_group_names_the_place_of_the_cause(lab: Lab, caplog: Log) -> None:
    async def part() -> None:
        raise ValueError("no route")

    async def handler(job: Job[Any]) -> None:
        if job.attempts == 1:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(part())

    queue = await lab.start(handler, backoff=Backoff.fixed(0.01))
    await lab.finish(queue.enqueue_and_wait("a", 1))
    (record,) = await logged(caplog, "WARNING")
    assert "(1 sub-exception): ValueError: no route (" in text(record)
    assert text(record).endswith("part)")


async def test_a_message_forges_no_line_and_steers_no_terminal(lab: Lab, caplog: Log) -> None:
    async def handler(job: Job[Any]) -> None:
        raise ValueError("x\n2026-01-01 ERROR jobqueue all is lost\r\x1b[2Jgone\u202e\ud800")

    queue = await lab.start(handler, max_attempts=2, backoff=Backoff.fixed(0.01))
    with pytest.raises(MaxRetriesError):
        await lab.finish(queue.enqueue_and_wait("a\u202eb", 1))
    for record in (*await logged(caplog, "WARNING"), *await logged(caplog, "ERROR")):
        shown = text(record)
        assert all(line.startswith("    ") for line in shown.splitlines()[1:])
        assert shown.isascii()
        assert not {"\r", "\x1b"} & set(shown)


async def test_what_cannot_be_read_or_written_is_logged_with_its_cause(lab: Lab, caplog: Log) -> None:
    queue = await lab.start(lambda job: {1, 2})
    with pytest.raises(JobFailedError, match="serialization"):
        await within(queue.enqueue_and_wait("a", 1))
    await lab.storage.insert("q", [new("b", b"\xff")])
    with pytest.raises(JobFailedError, match="serialization"):
        await within(queue.wait("b"))
    written, read = map(text, await logged(caplog, "ERROR", 2))
    assert "TypeError: Object of type set is not JSON serializable" in written
    assert "UnicodeDecodeError" in read


async def test_a_timeout_is_logged_with_the_place_where_it_hung(lab: Lab, caplog: Log) -> None:
    async def hangs(job: Job[Any]) -> None:
        await asyncio.Event().wait()

    queue = await lab.start(hangs, max_attempts=1, job_timeout=0.05)
    with pytest.raises(MaxRetriesError, match="timeout"):
        await lab.finish(queue.enqueue_and_wait("a", 1))
    (record,) = await logged(caplog, "ERROR")
    assert "failed (timeout) after 1 attempts: TimeoutError: the attempt exceeded job_timeout" in text(record)
    assert "in hangs" in text(record)


async def test_every_job_is_logged_at_debug_level(lab: Lab, caplog: Log) -> None:
    caplog.set_level(logging.DEBUG, "jobqueue")

    async def handler(job: Job[Any]) -> Any:
        await job.progress("half of the secret")
        return "secret result"

    queue = await lab.start(handler)
    await queue.stop()
    await queue.start()  # once for each job, however often it starts
    recorder = Recorder(queue)
    await within(queue.enqueue_and_wait("a", "secret payload"))
    await recorder.wait("completed")
    lines = [
        record for record in caplog.records if record.levelno == logging.DEBUG and record.name == "jobqueue"
    ]
    assert [text(record).split(" after ")[0] for record in lines] == [
        "job 'a' of q is enqueued",
        "job 'a' of q begins attempt 1",
        "job 'a' of q has made progress",
        "job 'a' of q is completed",
    ]
    last = lines[-1]
    assert (last.job_id, last.queue, last.attempt) == ("a", "q", 1)
    assert last.duration >= 0
    assert "secret" not in caplog.text


async def test_failures_carry_fields(lab: Lab, caplog: Log) -> None:
    queue = await lab.start(fails, max_attempts=2, backoff=Backoff.fixed(0.01))
    with pytest.raises(MaxRetriesError):
        await lab.finish(queue.enqueue_and_wait("a", 1))
    (retry,), (failure,) = await logged(caplog, "WARNING"), await logged(caplog, "ERROR")
    assert (retry.job_id, retry.queue, retry.attempt) == ("a", "q", 1)
    assert (failure.attempt, failure.reason) == (2, "error")
    assert failure.duration >= 0


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_below_debug_level_the_events_of_every_job_are_not_even_made(
    lab: Lab, caplog: Log, level: int
) -> None:
    caplog.set_level(level, "jobqueue")
    queue = await lab.start(echo)
    assert (JobProcessing in queue._emitter.heard) is (level == logging.DEBUG)
    await queue.stop()
    caplog.set_level(logging.INFO, "jobqueue")
    await queue.start()
    assert JobProcessing not in queue._emitter.heard


async def test_the_event_of_a_failure_has_the_exception_and_nothing_keeps_it(lab: Lab, caplog: Log) -> None:
    caplog.set_level(logging.CRITICAL, "jobqueue")  # pytest would keep what is logged

    class Held:
        """A large thing that a handler has in a variable."""

    held: list[weakref.ref[Held]] = []
    heard: list[str] = []

    async def handler(job: Job[Any]) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        raise ValueError("no route")

    queue = await lab.start(handler, max_attempts=2, backoff=Backoff.fixed(0.01))

    def listen(event: JobFailed) -> None:
        assert event.exception is not None
        heard.append(str(event.exception))

    queue.on(JobFailed, listen)
    gc.disable()
    try:
        with pytest.raises(MaxRetriesError):
            await lab.finish(queue.enqueue_and_wait("a", 1))
        await until(lambda: heard == ["no route"])
        await lab.finish(queue.stop())
        assert [one() for one in held] == [None, None], "only the cycle collector would free it"
    finally:
        gc.enable()


def new(id: str, payload: bytes) -> Any:
    from jobqueue.storage.values import NewJob

    return NewJob(id, payload)
