"""streaQ: https://streaq.readthedocs.io."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from harness import PAYLOAD, Stop, ending, main
from streaq import Worker


class Streaq:
    """Its request/response is `Task.result`, by pub/sub, a subscription for each."""

    def make(self, port: int, concurrency: int, done: Callable[[], None]) -> tuple[Worker[Any], Any]:
        worker: Worker[Any] = Worker(
            redis_url=f"redis://127.0.0.1:{port}",
            concurrency=concurrency,
            handle_signals=False,
            redis_kwargs={"max_connections": 256},
        )

        @worker.task(name="noop", silent=True)
        async def noop(_data: object) -> bool:
            done()
            return True

        return worker, noop

    async def open(self, port: int) -> None:
        self.worker, self.noop = self.make(port, 16, lambda: None)
        await self.worker.__aenter__()

    async def close(self) -> None:
        await self.worker.__aexit__(None, None, None)

    async def enqueue(self, _number: int) -> None:
        await self.noop.enqueue(PAYLOAD)

    async def request(self, _number: int) -> None:
        task = await self.noop.enqueue(PAYLOAD)
        await task.result(timeout=30)

    async def work(self, port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        worker, _ = self.make(port, concurrency, done)
        task = asyncio.create_task(worker.run_async())
        await asyncio.sleep(0.2)  # its consumer group has to be there before a job is
        return ending(task)


main(Streaq())
