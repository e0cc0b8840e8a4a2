"""arq: https://arq-docs.helpmanual.io.

A job stays in the queue until it has ended; the key that says it is in progress expires 10 s after the
longest `timeout`, and then another worker takes it, `max_tries` times.
"""

from __future__ import annotations

from typing import Any

import producer
from arq import create_pool, func
from arq.connections import RedisSettings
from arq.jobs import Job
from job import LEASE, PORT, work_async


async def handle(_context: dict[Any, Any], id: str, number: int) -> int:
    """Do one job."""
    return await work_async(id, number)


class WorkerSettings:
    """What `arq arq_app.WorkerSettings` reads."""

    functions = [func(handle, name="handle", timeout=LEASE, keep_result=3600)]  # noqa: RUF012 - as documented
    redis_settings = RedisSettings(port=PORT)
    max_jobs = 8
    job_timeout = LEASE
    poll_delay = 0.05


class Arq:
    """The producer."""

    async def open(self) -> None:
        self.pool = await create_pool(RedisSettings(port=PORT))

    async def enqueue(self, id: str, number: int) -> None:
        await self.pool.enqueue_job("handle", id, number, _job_id=id)

    async def outcome(self, id: str) -> producer.Outcome:
        info = await Job(id, self.pool).result_info()
        if info is None:
            return None
        return ("completed", info.result) if info.success else ("failed", repr(info.result))


if __name__ == "__main__":
    producer.main(Arq())
