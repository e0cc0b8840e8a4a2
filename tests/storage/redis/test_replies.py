"""Results that are pushed, and that arrive all the same when no push does."""

from __future__ import annotations

import asyncio
from typing import Any

from jobqueue import Job, Queue
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage
from tests.services import Server
from tests.storage.redis.proxy import chaos_proxy

POLLED_WITHIN = 8.0


async def test_without_any_message_results_come_by_the_poll(server: Server) -> None:
    async def handler(job: Job[int]) -> int:
        return job.payload + 1

    async with chaos_proxy(server.port) as proxy:
        proxy.deaf = True
        consumer: Queue[int, int] = Queue(RedisStorage(server.url), "q", concurrency=5)
        consumer.execute(handler)
        producer: Queue[int, int] = Queue(RedisStorage(proxy.url), "q")
        async with consumer, producer:
            began = SYSTEM_CLOCK.monotonic()
            calls: list[Any] = [producer.enqueue_and_wait(f"job-{i}", i, timeout=20) for i in range(5)]
            async with asyncio.timeout(POLLED_WITHIN):
                assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5]
            assert proxy.dropped, "nothing was pushed that could have been dropped"
            assert SYSTEM_CLOCK.monotonic() - began > 1, "they did not come by the poll"
