"""RQ: https://python-rq.org.

A worker runs one job at a time, in a process of its own. A job of a dead worker is found by the maintenance
of another, when its heartbeat is 60 s overdue, and runs again if it has `Retry` left.
"""

from __future__ import annotations

import asyncio
import sys

import producer
from job import LEASE, URL, work
from redis import Redis
from rq import Queue, Retry, Worker
from rq.job import Job

queue = Queue("chaos", connection=Redis.from_url(URL))


class Rq:
    """The producer; the library blocks, so its calls run in threads."""

    async def open(self) -> None:
        """Connect with the first call."""

    async def enqueue(self, id: str, number: int) -> None:
        await asyncio.to_thread(
            queue.enqueue,
            work,
            id,
            number,
            job_id=id,
            job_timeout=LEASE,
            result_ttl=3600,
            retry=Retry(max=5),
        )

    async def outcome(self, id: str) -> producer.Outcome:
        return await asyncio.to_thread(self._outcome, id)

    def _outcome(self, id: str) -> producer.Outcome:
        job = Job.fetch(id, connection=queue.connection)
        if job.is_finished:
            return "completed", job.return_value()
        if not job.is_failed:
            return None
        latest = job.latest_result()
        return "failed", "" if latest is None else str(latest.exc_string)[-200:]


if __name__ == "__main__":
    if sys.argv[1] == "work":
        Worker([queue], connection=queue.connection, job_monitoring_interval=1, maintenance_interval=1).work()
    else:
        producer.main(Rq())
