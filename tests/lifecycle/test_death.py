"""Workers that are killed, at every step of a job's life."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from jobqueue import Job, JobFailedError, Queue, Reaper
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import BOUND, Start, state_of, within

STEPS = {
    # where the worker is killed: (its runs of the handler, claims of the job in the end)
    "before claim": (0, 1),
    "after claim": (0, 2),
    "in handler": (1, 2),
    "before settle": (1, 2),
    "after settle": (1, 1),
}


async def test_sigkill_at_each_step_of_a_jobs_life(storage: Storage, start: Start, reaper: Reaper) -> None:
    async def die_and_recover(step: str) -> None:
        ours = 0

        async def handler(job: Job[Any]) -> Any:
            nonlocal ours
            ours += 1
            return "rescued"

        name = step.replace(" ", "-")
        async with Queue[Any, Any](storage, name) as producer:
            await producer.enqueue("a", None)
            doomed = await start.worker(name, die_at=step)
            assert await doomed.wait() == -signal.SIGKILL
            rescuer: Queue[Any, Any] = Queue(storage, name)
            rescuer.execute(handler)
            async with rescuer:
                result = await producer.wait("a", timeout=BOUND)
            runs, attempts = STEPS[step]
            assert doomed.count("^run a") == runs
            assert await state_of(producer, "a") == ("completed", attempts)
            assert (result == "rescued") == (step != "after settle") == (ours == 1)

    await asyncio.gather(*map(die_and_recover, STEPS))


async def test_a_poison_job_ends_stalled_and_the_others_keep_flowing(
    shared: Any, queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    await queue.enqueue("poison", {"die": 1})
    await queue.enqueue_many([(f"job-{number}", {"sleep": 0.02}) for number in range(50)])
    fleet = await start.cli("worker", "tasks:queue", "--processes", "2", STORE=shared.url)
    with pytest.raises(JobFailedError) as failed:
        await queue.wait("poison", timeout=BOUND)
    assert failed.value.reason == "stalled"
    assert fleet.count("^run poison") == 3  # max_stalls is 2
    assert fleet.count("was killed by SIGKILL, next one in") >= 2
    for number in range(50):
        await queue.wait(f"job-{number}", timeout=BOUND)
    async with asyncio.timeout(BOUND):
        while fleet.count("^run job-") < 50:  # a result may be here before the line that its run has printed
            await asyncio.sleep(0.01)
    assert fleet.count("^run job-") == 50
    # The workers that came after it work.
    assert await queue.enqueue_and_wait("last", None, timeout=BOUND)
    fleet.signal(signal.SIGTERM)
    assert await fleet.wait() == 0


async def test_a_step_that_is_stored_is_not_taken_again_and_one_that_was_cut_off_is(
    shared: Any, storage: Storage, start: Start, reaper: Reaper
) -> None:
    async def killed(name: str, queue: str, dies: str, steps: int) -> None:
        async with Queue[Any, Any](storage, queue) as producer:
            await producer.enqueue("a", {"step": dies})
            fleet = await start.cli(
                "worker", f"tasks:{name}", "--processes", "2", STORE=shared.url, LEASE="2"
            )
            assert await producer.wait("a", timeout=BOUND) == steps, "the result of the step that was stored"
            assert await state_of(producer, "a") == ("completed", 2)
            assert fleet.count("^step a") == steps
            fleet.signal(signal.SIGTERM)
            assert await fleet.wait() == 0

    await asyncio.gather(killed("queue", "q", "inside", 2), killed("calm", "calm", "after", 1))


async def test_all_workers_killed_under_load_lose_nothing(
    queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    ids = [f"job-{number}" for number in range(60)]
    doomed = [await start.worker(), await start.worker()]
    # Now that both are there: one alone would be through before the other has started, on a busy machine.
    await queue.enqueue_many([(id, {"sleep": 0.1}) for id in ids])
    for worker in doomed:
        await worker.expect("^completed")
        await worker.kill()
    heir = await start.worker(concurrency=10, lease=60.0)  # which no pause of this machine ends
    results = await within(asyncio.gather(*(queue.wait(id, timeout=BOUND) for id in ids)))
    assert len(results) == len(ids)
    runs = {id: sum(worker.count(f"^run {id} ") for worker in [*doomed, heir]) for id in ids}
    twice = [id for id in ids if runs[id] > 1]
    # Only what a killed worker was running when it was killed ran again.
    assert set(runs.values()) <= {1, 2}
    assert len(twice) <= 8
    for id in twice:
        assert any(worker.count(f"^run {id} ") and not worker.count(f"^completed {id}$") for worker in doomed)
