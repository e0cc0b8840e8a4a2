"""taskiq-redis: https://github.com/taskiq-python/taskiq-redis.

The stream broker, whose messages are acknowledged. What a dead worker has not acknowledged is claimed by
another after `idle_timeout`, when that one has got a new message; `unacknowledged_lock_timeout` frees the
lock of one that dies while claiming.
"""

from __future__ import annotations

import producer
from job import LEASE, URL, work_async
from taskiq import AsyncTaskiqTask
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

results: RedisAsyncResultBackend[int] = RedisAsyncResultBackend(URL, result_ex_time=3600)
broker = RedisStreamBroker(
    URL, idle_timeout=LEASE * 1000, unacknowledged_lock_timeout=LEASE, xread_count=8
).with_result_backend(results)


@broker.task(task_name="handle")
async def handle(id: str, number: int) -> int:
    """Do one job."""
    return await work_async(id, number)


class Taskiq:
    """The producer."""

    async def open(self) -> None:
        await broker.startup()
        self.tasks: dict[str, AsyncTaskiqTask[int]] = {}

    async def enqueue(self, id: str, number: int) -> None:
        self.tasks[id] = await handle.kiq(id, number)

    async def outcome(self, id: str) -> producer.Outcome:
        task = self.tasks[id]
        if not await task.is_ready():
            return None
        result = await task.get_result()
        return ("failed", repr(result.error)) if result.is_err else ("completed", result.return_value)


if __name__ == "__main__":
    producer.main(Taskiq())
