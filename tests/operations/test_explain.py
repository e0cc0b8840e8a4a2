"""`queue.jobs.explain`, on every store: each reason why a job does not run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import Fatal, InvalidArgumentError, Job, JobState, Queue, ReasonKind, Retry
from tests.support import Lab, within

S, K = JobState, ReasonKind


async def kinds(queue: Queue[Any, Any], id: str) -> list[ReasonKind]:
    explanation = await within(queue.jobs.explain(id))
    assert explanation.id == id
    assert explanation.reasons
    assert all(reason.detail for reason in explanation.reasons)
    return [reason.kind for reason in explanation.reasons]


async def reports(queue: Queue[Any, Any]) -> None:
    """Wait until the workers have said what they run."""
    async with asyncio.timeout(10):
        while not ((workers := (await queue.stats()).workers) and all(worker.host for worker in workers)):
            await asyncio.sleep(0.01)


async def test_there_is_no_such_job(lab: Lab) -> None:
    queue = await lab.start()
    explanation = await within(queue.jobs.explain("nothing"))
    assert (explanation.state, [reason.kind for reason in explanation.reasons]) == (None, [K.NOT_FOUND])
    with pytest.raises(InvalidArgumentError, match="id"):
        await queue.jobs.explain("")


async def test_it_has_ended(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> Any:
        if job.payload == "bad":
            raise Fatal("it is bad")
        return job.payload

    queue = await lab.start(handler)
    assert await within(queue.enqueue_and_wait("good", 1)) == 1
    bad = await queue.enqueue("bad", "bad")
    with pytest.raises(Exception, match="bad"):
        await within(bad.wait())
    explanation = await within(queue.jobs.explain("bad"))
    (reason,) = explanation.reasons
    assert (explanation.state, reason.kind) == (S.FAILED, K.ENDED)
    assert "it is bad" in reason.detail
    assert reason.until is not None
    assert await kinds(queue, "good") == [K.ENDED]


async def test_it_runs(lab: Lab) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(_job: Job[Any]) -> None:
        started.set()
        await go.wait()

    queue = await lab.start(handler, worker_id="the worker")
    await queue.enqueue("a", 1)
    await within(started.wait())
    await queue.enqueue("b", 1)
    await queue.enqueue("c", 1, priority=-1)
    await queue.enqueue("d", 1, priority=1)
    explanation = await within(queue.jobs.explain("a"))
    (reason,) = explanation.reasons
    assert (explanation.state, reason.kind) == (S.PROCESSING, K.RUNNING)
    assert "the worker" in reason.detail
    assert reason.until is not None
    assert reason.until > datetime.now(UTC) - timedelta(seconds=60)
    # The others stand behind each other, by priority.
    assert await kinds(queue, "d") == await kinds(queue, "b") == await kinds(queue, "c") == [K.BEHIND]
    details = [(await queue.jobs.explain(id)).reasons[0].detail for id in "dbc"]
    assert details[0].startswith("it is the next")
    assert details[1].startswith("1 job is")
    assert details[2].startswith("2 jobs are")
    go.set()


async def test_its_time_has_not_come(lab: Lab) -> None:
    async def handler(_job: Job[Any]) -> None:
        raise Retry(1000.0)

    queue = await lab.start(handler)
    await queue.enqueue("later", 1, delay=1000.0)
    await queue.enqueue("again", 1)
    async with asyncio.timeout(10):
        while (await queue.stats()).counts[S.FAILING] == 0:
            await asyncio.sleep(0.01)
    for id, kind in (("later", K.SCHEDULED), ("again", K.RETRYING)):
        (reason,) = (await within(queue.jobs.explain(id))).reasons
        assert reason.kind is kind
        assert reason.until is not None
        assert 900 < (reason.until - datetime.now(UTC)).total_seconds() < 1100


async def test_several_reasons_at_once(lab: Lab) -> None:
    queue = await lab.start()
    await queue.pause()
    await queue.enqueue("a", 1)
    await queue.enqueue("b", 1)
    await queue.enqueue("later", 1, delay=1000.0)
    assert await kinds(queue, "a") == [K.PAUSED, K.NO_WORKER]
    assert await kinds(queue, "b") == [K.PAUSED, K.NO_WORKER, K.BEHIND]
    assert await kinds(queue, "later") == [K.SCHEDULED, K.PAUSED, K.NO_WORKER]
    await queue.resume()
    assert await kinds(queue, "a") == [K.NO_WORKER]


async def test_no_worker_has_the_handler(lab: Lab) -> None:
    queue = lab.queue(handler_patience=1000.0)

    @queue.task
    async def known() -> None: ...

    await within(queue.start())
    await reports(queue)
    await queue.pause()
    producer = lab.queue()

    @producer.task
    async def unknown() -> None: ...

    @producer.task(name="known")
    async def known_there() -> None: ...

    await within(producer.start(work=False))
    lost = await unknown.enqueue()
    plain = await producer.enqueue("plain", 1)
    fine = await known_there.enqueue()
    assert K.NO_HANDLER in await kinds(producer, lost.id)
    assert K.NO_HANDLER in await kinds(producer, plain.id)
    assert K.NO_HANDLER not in await kinds(producer, fine.id)
    await producer.resume()
    # Now the worker meets it, and puts it back.
    async with asyncio.timeout(10):
        while (await producer.stats()).counts[S.FAILING] < 2:
            await asyncio.sleep(0.01)
    explanation = await within(producer.jobs.explain(lost.id))
    if explanation.state is S.FAILING:  # else it is being looked at again just now
        assert explanation.reasons[0].kind is K.NO_HANDLER


async def test_a_long_line_is_told_by_its_length(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue_many([(f"{n}", n) for n in range(1_200)])
    reason = (await within(queue.jobs.explain("700"))).reasons[-1]
    assert (reason.kind, reason.detail) == (K.BEHIND, "up to 1199 jobs are in front of it")
