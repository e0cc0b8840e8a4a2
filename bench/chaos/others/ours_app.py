"""This library: each worker has a reaper in its process, as `jobqueue worker` has.

All of them sweep: were one elected, and it died every few seconds, the others would wait for its lock first.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import producer
from job import LEASE, URL, work_async

from jobqueue import Job, JobState, Queue, Reaper
from jobqueue.model.states import ENDED

queue: Queue[Any, Any] = Queue(URL, "chaos", concurrency=8, visibility_timeout=LEASE)


class Ours:
    """The producer."""

    async def open(self) -> None:
        await queue.start()

    async def enqueue(self, id: str, number: int) -> None:
        await queue.enqueue(id, [id, number])

    async def outcome(self, id: str) -> producer.Outcome:
        status = await queue.get_status(id)
        if status is None or status.state not in ENDED:
            return None
        if status.state is JobState.COMPLETED:
            return "completed", await queue.get_result(id)
        return "failed", str(status.error)


async def handle(job: Job[Any]) -> int:
    """Do one job."""
    return await work_async(*job.payload)


async def serve() -> None:
    """Work until killed."""
    queue.execute(handle)
    async with Reaper(URL, sweep_interval=1.0):
        await queue.run()


if sys.argv[1] == "work":
    asyncio.run(serve())
else:
    producer.main(Ours())
