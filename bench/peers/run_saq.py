"""SAQ: https://saq-py.readthedocs.io."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from harness import PAYLOAD, POLL, Stop, ending, main
from saq import Queue, Worker


class Saq:
    """`Queue.apply` is its request/response: it polls, by default every 0.5 s."""

    async def open(self, port: int) -> None:
        self.queue = Queue.from_url(f"redis://127.0.0.1:{port}")
        await self.queue.connect()

    async def close(self) -> None:
        await self.queue.disconnect()

    async def enqueue(self, _number: int) -> None:
        await self.queue.enqueue("noop", data=PAYLOAD)

    async def request(self, _number: int) -> None:
        await self.queue.apply("noop", poll_interval=POLL, data=PAYLOAD)

    async def work(self, port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        async def noop(_context: dict[str, Any], *, data: object) -> bool:  # noqa: ARG001 - a job's argument
            done()
            return True

        queue = Queue.from_url(f"redis://127.0.0.1:{port}")
        await queue.connect()
        worker = Worker(queue, [("noop", noop)], concurrency=concurrency)
        return ending(asyncio.create_task(worker.start()))


main(Saq())
