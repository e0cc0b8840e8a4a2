"""`conflict=` of an enqueue, on every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import Conflict, EnqueueRequest, InvalidArgumentError, Job, JobState
from tests.support import Gate, Lab, Recorder, echo, within


async def test_a_waiting_job_is_replaced_and_its_callers_get_the_new_result(lab: Lab) -> None:
    queue = await lab.start()
    heard = Recorder(queue)
    waiting = asyncio.ensure_future(queue.enqueue_and_wait("a", "old", timeout=60.0, delay=1000.0))
    await heard.wait("enqueued")
    late = asyncio.ensure_future(queue.enqueue_and_wait("a", "newer", timeout=60.0, conflict="replace"))
    answer = await queue.enqueue("a", "newest", conflict=Conflict.REPLACE)
    assert answer.status == "replaced"
    status = await queue.jobs.get("a")
    assert status is not None
    assert status.state is JobState.QUEUED
    await lab.start(echo)
    first, second = await within(asyncio.gather(waiting, late), 60)
    assert first == second
    assert first in {"newer", "newest"}
    assert len(heard.of("enqueued")) == 1


async def test_a_burst_runs_once(lab: Lab) -> None:
    seen: list[Any] = []

    async def handler(job: Job[Any]) -> Any:
        seen.append(job.payload)
        return job.payload

    queue = await lab.start(handler)
    answers = [await queue.enqueue("a", n, delay=0.5, conflict="debounce") for n in range(5)]
    assert [str(answer.status) for answer in answers] == ["queued"] + 4 * ["replaced"]
    assert {answer.seq for answer in answers} == {answers[0].seq}
    assert await answers[-1].wait(60.0) == 4
    assert seen == [4]


async def test_a_running_job_is_joined(lab: Lab) -> None:
    gate = Gate("done")
    queue = await lab.start(gate)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    answer = await queue.enqueue("a", 2, conflict="replace")
    assert (answer.status, answer.state) == ("duplicate", JobState.PROCESSING)
    gate.go.set()
    assert await within(queue.wait("a"), 60) == "done"
    assert (await queue.enqueue("a", 3, conflict="replace")).status == "completed"


async def test_many_and_tasks(lab: Lab) -> None:
    queue = lab.queue()

    @queue.task(id=lambda n, m: f"sum:{n}")
    async def add(n: int, m: int) -> int:
        return n + m

    async with queue.producer():
        await queue.enqueue_many([add.request(n, 1) for n in range(3)])
        answers = await queue.enqueue_many(
            [add.using(conflict="replace").request(n, 10) for n in range(4)]
            + [EnqueueRequest("plain", 1, conflict="replace")]
        )
        assert [str(answer.status) for answer in answers] == 3 * ["replaced"] + 2 * ["queued"]
        assert (await queue.jobs.remove("plain")) == 1
    await within(queue.start())
    assert [await within(queue.wait(f"sum:{n}"), 60) for n in range(4)] == [10, 11, 12, 13]


async def test_of_many_that_replace_one_the_last_stays(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", -1)
    answers = await within(
        asyncio.gather(*(queue.enqueue("a", n, conflict="replace", priority=n % 2) for n in range(40))), 60
    )
    assert {answer.status for answer in answers} == {"replaced"}
    status = await queue.jobs.get("a")
    assert status is not None
    assert status.payload in range(40)
    assert status.payload % 2 == status.priority, "one call wrote all of it"
    assert (await lab.storage.counts("q")).queued == 1


async def test_what_is_refused(lab: Lab) -> None:
    queue = await lab.start()
    bad: list[Any] = ["merge", None, 5]
    for value in bad:
        with pytest.raises(InvalidArgumentError, match="conflict"):
            await queue.enqueue("a", 1, conflict=value)
        with pytest.raises(InvalidArgumentError, match=r"requests\[0\].conflict"):
            await queue.enqueue_many([EnqueueRequest("a", 1, conflict=value)])
    for delay in (None, 0):
        with pytest.raises(InvalidArgumentError, match="delay"):
            await queue.enqueue("a", 1, delay=delay, conflict="debounce")
    assert await queue.get_status("a") is None
