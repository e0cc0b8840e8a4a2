"""SAQ: https://saq-py.readthedocs.io.

A job of a dead worker is found by `Queue.sweep`, a timer of the worker, once its `timeout` is over, and runs
again if it has `retries`.
"""

from __future__ import annotations

from typing import Any

import producer
from job import LEASE, URL, work_async
from saq import Queue, Status

queue = Queue.from_url(URL)


async def handle(_context: dict[str, Any], *, id: str, number: int) -> int:
    """Do one job."""
    return await work_async(id, number)


settings = {
    "queue": queue,
    "functions": [("handle", handle)],
    "concurrency": 8,
    "timers": {"schedule": 1, "worker_info": 10, "sweep": 1, "abort": 1},
}


class Saq:
    """The producer."""

    async def open(self) -> None:
        await queue.connect()

    async def enqueue(self, id: str, number: int) -> None:
        await queue.enqueue("handle", key=id, timeout=LEASE, retries=5, ttl=3600, id=id, number=number)

    async def outcome(self, id: str) -> producer.Outcome:
        job = await queue.job(id)
        if job is None or job.status not in {Status.COMPLETE, Status.FAILED, Status.ABORTED}:
            return None
        if job.status is Status.COMPLETE:
            return "completed", job.result
        return "failed", str(job.error)


if __name__ == "__main__":
    producer.main(Saq())
