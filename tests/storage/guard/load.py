"""Jobs that are made and run while something is done to the servers: all of them have to have run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from jobqueue import Job, JobQueueError, Queue, Reaper
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.redis import RedisStorage
from tests.services import Server
from tests.storage.postgres.server import PostgresServer
from tests.storage.postgres.support import connection

CALLERS = 8
ENDS_WITHIN = 40.0


class Load:
    """Callers that enqueue, a worker that runs, and whoever compares."""

    def __init__(self, redis: Server, postgres: PostgresServer) -> None:
        self._redis = redis
        self._postgres = postgres
        self.enqueued: list[str] = []
        """Jobs whose enqueue has returned."""
        self.ran: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def store(self) -> GuardedStorage:
        """Return a store on both servers."""
        ledger = PostgresLedger(self._postgres.url, retry_for=0.1, connect_timeout=1.0, statement_timeout=1.0)
        redis = RedisStorage(self._redis.url)
        return GuardedStorage(redis, ledger, interval=1.0, breaker_failures=2, breaker_reset=0.3)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Have jobs made and run; in the end all of them have to have run."""
        worker: Queue[Any, Any] = Queue(self.store(), "q", concurrency=8, visibility_timeout=2.0)

        @worker.execute
        async def handle(job: Job[Any]) -> None:
            await asyncio.sleep(0.005)
            self.ran[job.id] += 1

        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(Queue[Any, Any](self.store(), "q"))
            await stack.enter_async_context(worker)
            await stack.enter_async_context(Reaper(self.store(), sweep_interval=0.2))
            callers = [asyncio.create_task(self._call(producer, n)) for n in range(CALLERS)]
            await self.more(100)
            yield
            await self.more(100)
            self._stopping.set()
            await asyncio.gather(*callers)
            async with asyncio.timeout(ENDS_WITHIN):
                while any(not self.ran[id] for id in self.enqueued):
                    await asyncio.sleep(0.05)
                while not await self._all_completed():
                    await asyncio.sleep(0.1)

    async def _call(self, queue: Queue[Any, Any], caller: int) -> None:
        number = 0
        while not self._stopping.is_set():
            id = f"{caller}-{number}"
            try:
                await queue.enqueue(id, number)
            except JobQueueError:
                await asyncio.sleep(0.05)  # again, under the same id
                continue
            self.enqueued.append(id)
            number += 1
            await asyncio.sleep(0.01)

    async def more(self, jobs: int) -> None:
        """Wait until so many more jobs have been enqueued."""
        until = len(self.enqueued) + jobs
        async with asyncio.timeout(ENDS_WITHIN):
            while len(self.enqueued) < until:
                await asyncio.sleep(0.01)

    async def _all_completed(self) -> bool:
        async with connection(self._postgres.url) as admin:
            rows = await admin.fetch("select id, state from jobqueue_ledger.job where state <> 8")
        states = {row["id"]: row["state"] for row in rows}
        return all(states.get(id) == 5 for id in self.enqueued)
