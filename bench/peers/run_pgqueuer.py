"""PgQueuer: https://pgqueuer.readthedocs.io."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
from harness import PAYLOAD, Stop, ending, main
from pgqueuer import PgQueuer, Queries
from pgqueuer.models import Job

DATA = json.dumps(PAYLOAD, separators=(",", ":")).encode()


class PgQueuerPeer:
    """Producers share a pool of ten connections, as many as this library's; it stores no results."""

    async def open(self, _port: int) -> None:
        self.pool = await asyncpg.create_pool(os.environ["BENCH_POSTGRES"], min_size=10, max_size=10)
        self.queries = Queries.from_asyncpg_pool(self.pool)

    async def close(self) -> None:
        await self.pool.close()

    async def install(self) -> None:
        await self.open(0)
        await self.queries.install()
        await self.close()

    async def enqueue(self, _number: int) -> None:
        await self.queries.enqueue("noop", DATA)

    async def enqueue_many(self, count: int) -> None:
        await self.queries.enqueue(["noop"] * count, [DATA] * count, [0] * count)

    async def request(self, _number: int) -> None:
        raise NotImplementedError

    async def work(self, _port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        await self.open(0)
        worker = PgQueuer.from_asyncpg_pool(self.pool)

        @worker.entrypoint("noop")
        async def noop(_job: Job) -> None:
            done()

        running: Any = worker.qm.run(batch_size=concurrency, dequeue_timeout=timedelta(seconds=1))
        return ending(asyncio.create_task(running))


main(PgQueuerPeer())
