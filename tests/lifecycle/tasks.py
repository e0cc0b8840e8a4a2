"""The queue of ``jobqueue worker tasks:queue`` in these tests."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from jobqueue import App, Job, Queue, open_storage

queue: Queue[Any, Any] = Queue(os.environ["STORE"], "q", visibility_timeout=2.0, block_timeout=1.0)


@queue.execute
async def work(job: Job[Any]) -> int:
    order = job.payload or {}
    # One write: lines of several processes share a pipe, and this one may be its last.
    os.write(1, f"run {job.id} {job.attempts} {os.getpid()}\n".encode())
    if "die" in order:
        os.kill(os.getpid(), signal.SIGKILL)
    if "step" in order:
        return await take_step(job, order["step"])
    if not ("once" in order and job.attempts > 1):
        await asyncio.sleep(order.get("sleep", 0))
    return os.getpid()


async def take_step(job: Job[Any], dies: str) -> int:
    """Do a step once; the worker of the first attempt is killed in it, or after it."""

    async def step() -> int:
        os.write(1, f"step {job.id} {job.attempts}\n".encode())
        if dies == "inside" and job.attempts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return job.attempts

    done: int = await job.run_once("step", step)
    if job.attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return done


calm: Queue[Any, Any] = Queue(
    os.environ["STORE"], "calm", visibility_timeout=float(os.environ.get("LEASE", "30"))
)
calm.execute(work)

store = open_storage(os.environ["STORE"])
queues: list[Queue[Any, Any]] = [Queue(store, f"q{number}") for number in range(10)]
for each in queues:
    each.execute(work)
ten = App(store, queues)
