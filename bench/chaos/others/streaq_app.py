"""streaQ: https://streaq.readthedocs.io.

A running task's entry of the stream is renewed; after `idle_timeout` without that another worker claims it.
"""

from __future__ import annotations

from typing import Any

import producer
from job import LEASE, URL, work_async
from streaq import TaskStatus, Worker

worker: Worker[Any] = Worker(redis_url=URL, concurrency=8, idle_timeout=LEASE)


@worker.task(name="handle", silent=True, ttl=3600, max_tries=5)
async def handle(id: str, number: int) -> int:
    """Do one job."""
    return await work_async(id, number)


class Streaq:
    """The producer."""

    async def open(self) -> None:
        await worker.__aenter__()
        self.tasks: dict[str, Any] = {}

    async def enqueue(self, id: str, number: int) -> None:
        self.tasks[id] = await handle.enqueue(id, number)

    async def outcome(self, id: str) -> producer.Outcome:
        task = self.tasks[id]
        if await task.status() is not TaskStatus.DONE:
            return None
        result = await task.result(timeout=5)
        return ("completed", result.result) if result.success else ("failed", repr(result.exception))


if __name__ == "__main__":
    producer.main(Streaq())
