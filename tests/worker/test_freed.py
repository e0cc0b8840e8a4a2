"""Runs are freed as they end: thousands of them left to the cycle collector would stop all others for it."""

from __future__ import annotations

import gc
from typing import Any

from jobqueue import Job
from jobqueue.worker.run import Run
from tests.support import Lab, within


def runs() -> int:
    # By its type: `isinstance` asks the object too, and lazy ones of other libraries do not like that.
    return sum(issubclass(type(thing), Run) for thing in gc.get_objects())


async def test_no_run_waits_for_the_cycle_collector(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> Any:
        return job.payload

    queue = await lab.start(handler, concurrency=10)

    @queue.task
    async def task(n: int) -> int:
        return n

    gc.collect()
    before = runs()
    gc.disable()
    try:
        for n in range(50):
            await within(queue.enqueue_and_wait(None, n))
            await within(task.enqueue_and_wait(n))
        left = runs() - before
    finally:
        gc.enable()
    assert left <= 5
