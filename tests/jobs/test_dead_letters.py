"""Dead letters as users meet them, on every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import (
    EnqueueRequest,
    FailureReason,
    Fatal,
    InvalidArgumentError,
    Job,
    JobDeadLettered,
    JobNotFoundError,
    JobState,
    Queue,
    Reaper,
)
from jobqueue.storage.values import DEAD_LETTER_TTL, Counts, NewJob
from jobqueue.testing import FakeClock
from tests.support import Lab, Recorder, die, within


async def handler(job: Job[Any]) -> Any:
    if job.payload == "fail":
        raise Fatal(f"{job.id} is bad")
    return job.payload


async def gone(queue: Queue[Any, Any], id: str) -> None:
    """Wait until an id is free."""
    async with asyncio.timeout(30):
        while await queue.get_status(id) is not None:
            await asyncio.sleep(0.01)


async def test_a_letter_outlives_its_id_and_runs_again(lab: Lab) -> None:
    queue = await lab.start(handler, result_ttl=0.01, dead_letter_ttl=1000.0)
    heard = Recorder(queue)
    await queue.enqueue("a", "fail")
    await heard.wait("dead_lettered")
    await gone(queue, "a")
    assert await queue.get_result("a", "default") == "default"
    with pytest.raises(JobNotFoundError):
        await queue.wait("a", timeout=5.0)
    page = await queue.jobs.list(state="failed")
    assert [job.id for job in page.jobs] == ["a"]
    letter = await queue.jobs.get("a")
    assert letter is not None
    assert (letter.payload, letter.reason, len(letter.history)) == ("fail", FailureReason.FATAL, 1)
    await queue.update_result_ttl("a", 1000.0)
    assert await queue.jobs.retry("a", payload="good") == 1
    await heard.wait("completed")
    completed = heard.of("completed")[0]
    assert (completed.result, completed.attempts) == ("good", 1)


async def test_a_new_job_takes_the_place_of_the_letter(lab: Lab) -> None:
    queue = await lab.start(handler, result_ttl=0.01)
    heard = Recorder(queue)
    first = await queue.enqueue("a", "fail")
    await heard.wait("dead_lettered")
    await gone(queue, "a")
    again = await queue.enqueue("a", "good", result_ttl=1000.0)
    assert (again.status, again.seq > first.seq) == ("queued", True)
    assert await queue.wait("a") == "good"
    assert (await queue.jobs.list(state="failed")).jobs == []
    assert await queue.jobs.retry("a") == 0


async def test_without_letters_none_is_kept(lab: Lab) -> None:
    queue = await lab.start(handler, result_ttl=0.01, dead_letter_ttl=0)
    heard = Recorder(queue)
    await queue.enqueue("a", "fail", priority=1)
    await heard.wait("dead_lettered")
    await gone(queue, "a")
    assert await queue.jobs.get("a") is None
    assert (await lab.storage.counts("q")).failed == 0


async def test_it_is_kept_for_seven_days_unless_told_otherwise(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(handler)
    await queue.enqueue("a", "fail")
    await clock.advance(1)
    await within(queue.stop())
    producer = await lab.start()
    clock.move(DEAD_LETTER_TTL / 1000 - 2)
    assert await producer.jobs.get("a") is not None
    clock.move(2)
    assert await producer.jobs.get("a") is None


def test_an_ordinary_job_says_nothing_of_it() -> None:
    told: list[int | None] = []
    for ttl in (604_800, 5.0):
        builder = Queue("memory://", dead_letter_ttl=ttl)._builder
        told += [builder.build_requested(EnqueueRequest("a", 1, priority=n)).dead_letter_ttl for n in (0, 5)]
    assert told == [None, None, 5000, 5000]


@pytest.mark.parametrize("ttl", [-1, float("nan"), "1", None])
def test_a_bad_time_is_refused(ttl: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="dead_letter_ttl"):
        Queue("memory://", dead_letter_ttl=ttl)


# -- the event ------------------------------------------------------------------------------------


async def test_every_end_as_failed_is_told_once_with_its_reason(lab: Lab, clock: FakeClock) -> None:
    async def fails(job: Job[Any]) -> Any:
        match job.payload:
            case "timeout":
                await clock.sleep(50)
            case "result":
                return object()
            case "fatal":
                raise Fatal("fatal")
            case "cancel" | "good":
                return None
        raise ValueError("error")

    queue = await lab.start(fails, job_timeout=5.0, max_attempts=2, concurrency=20, worker_id="w")
    heard = Recorder(queue)
    payloads = ["timeout", "result", "fatal", "error", "good"]
    await queue.enqueue_many([(payload, payload) for payload in payloads])
    await lab.storage.insert("q", [NewJob("unreadable", b"{"), NewJob("stranger", b"1", task="stranger")])
    for _ in range(300):
        await clock.advance(0.5)
    told = {event.id: (event.reason, event.attempts, event.task) for event in heard.of("dead_lettered")}
    strange = told.pop("stranger")
    assert (strange[0], strange[2]) == (FailureReason.NO_HANDLER, "stranger")
    assert told == {
        "timeout": (FailureReason.TIMEOUT, 2, ""),
        "result": (FailureReason.SERIALIZATION, 1, ""),
        "fatal": (FailureReason.FATAL, 1, ""),
        "error": (FailureReason.ERROR, 2, ""),
        "unreadable": (FailureReason.SERIALIZATION, 1, ""),
    }
    assert len(heard.of("dead_lettered")) == len(heard.of("failed")) == 6
    assert {event.worker_id for event in heard.of("dead_lettered")} == {"w"}


async def test_a_reaper_tells_what_stalled_too_often(lab: Lab) -> None:
    storage = lab.storage
    reaper = Reaper(storage, ["q"])
    heard = Recorder(reaper)
    await die(storage, "a", max_stalls=0)
    await die(storage, "b", max_stalls=1)
    await within(reaper.start())
    try:
        async with asyncio.timeout(60):
            while len(heard.of("stalled")) < 2:
                await within(reaper.sweep())
                await asyncio.sleep(0.05)
    finally:
        await within(reaper.stop())
    (letter,) = heard.of("dead_lettered")
    assert isinstance(letter, JobDeadLettered)
    assert (letter.id, letter.reason, letter.attempts, letter.worker_id) == ("a", "stalled", 1, "dead")
    assert letter.error.type == "Stalled"
    assert await storage.counts("q") == Counts(queued=1, failed=1, oldest=(await lab.record("b")).created_at)


async def test_what_is_tried_again_or_cancelled_is_no_letter(lab: Lab, clock: FakeClock) -> None:
    async def retried(job: Job[Any]) -> None:
        if job.attempts == 1:
            raise ValueError("once")
        await clock.sleep(100)

    queue = await lab.start(retried)
    heard = Recorder(queue)
    await queue.enqueue("a", 1)
    await clock.advance(5)
    await queue.cancel("a", running=True)
    await clock.advance(1)
    assert await lab.state("a") == JobState.CANCELLED
    assert heard.of("dead_lettered") == []
