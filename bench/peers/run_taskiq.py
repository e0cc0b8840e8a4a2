"""taskiq-redis: https://github.com/taskiq-python/taskiq-redis.

The stream broker, the one of the three whose jobs survive a worker's death, as in its README.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from harness import PAYLOAD, POLL, Stop, ending, main
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker


class Taskiq:
    """Results are polled for: its own default is every 0.2 s."""

    def make(self, port: int, done: Callable[[], None]) -> RedisStreamBroker:
        url = f"redis://127.0.0.1:{port}"
        broker = RedisStreamBroker(url).with_result_backend(RedisAsyncResultBackend(url, result_ex_time=3600))

        @broker.task(task_name="noop")
        async def noop(data: object) -> bool:  # noqa: ARG001 - a job's argument
            done()
            return True

        self.noop = noop
        return broker

    async def open(self, port: int) -> None:
        self.broker = self.make(port, lambda: None)
        await self.broker.startup()

    async def close(self) -> None:
        await self.broker.shutdown()

    async def enqueue(self, _number: int) -> None:
        await self.noop.kiq(PAYLOAD)

    async def request(self, _number: int) -> None:
        task = await self.noop.kiq(PAYLOAD)
        await task.wait_result(check_interval=POLL)

    async def work(self, port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        broker = self.make(port, done)
        broker.is_worker_process = True
        await broker.startup()
        return ending(asyncio.create_task(run_receiver_task(broker, max_async_tasks=concurrency)))


main(Taskiq())
