"""Celery: https://docs.celeryq.dev.

Late acknowledgement: what a dead worker has taken and not acknowledged is restored after the transport's
`visibility_timeout`. The lost process of a living worker rejects its task at once.
"""

from __future__ import annotations

import asyncio

import producer
from celery import Celery
from celery.result import AsyncResult
from job import LEASE, URL, work

app = Celery("chaos", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_concurrency=8,
    broker_transport_options={
        "visibility_timeout": LEASE,
        "unacked_mutex_expire": LEASE,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    broker_connection_retry_on_startup=True,
    result_expires=3600,
    worker_hijack_root_logger=False,
)


@app.task(name="handle")
def handle(id: str, number: int) -> int:
    """Do one job."""
    return work(id, number)


class TheCelery:
    """The producer; the library blocks, so its calls run in threads."""

    async def open(self) -> None:
        """Connect with the first call."""

    async def enqueue(self, id: str, number: int) -> None:
        await asyncio.to_thread(handle.apply_async, (id, number), task_id=id)

    async def outcome(self, id: str) -> producer.Outcome:
        return await asyncio.to_thread(self._outcome, id)

    def _outcome(self, id: str) -> producer.Outcome:
        result = AsyncResult(id, app=app)
        state = result.state
        if state == "SUCCESS":
            return "completed", result.result
        return ("failed", repr(result.result)) if state in {"FAILURE", "REVOKED"} else None


if __name__ == "__main__":
    producer.main(TheCelery())
