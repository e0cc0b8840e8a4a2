"""arq: https://arq-docs.helpmanual.io."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker
from harness import PAYLOAD, POLL, Stop, ending, main


class Arq:
    """Work and results are polled for: its own default is every 0.5 s, in which it starts `max_jobs` jobs."""

    async def open(self, port: int) -> None:
        self.pool = await create_pool(RedisSettings(port=port))

    async def close(self) -> None:
        await self.pool.aclose()

    async def enqueue(self, _number: int) -> None:
        await self.pool.enqueue_job("noop", PAYLOAD)

    async def request(self, _number: int) -> None:
        job = await self.pool.enqueue_job("noop", PAYLOAD)
        await job.result(poll_delay=POLL)

    async def work(self, port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        async def noop(_context: dict[Any, Any], _data: object) -> bool:
            done()
            return True

        worker = Worker(
            functions=[func(noop, name="noop")],
            redis_settings=RedisSettings(port=port),
            max_jobs=concurrency,
            poll_delay=POLL,
            handle_signals=False,
        )
        return ending(asyncio.create_task(worker.async_run()))


main(Arq())
