"""A worker process of the demo: ``python -m jobqueue.cli.demo.guarded.worker``.

What it has to do comes as one line of JSON on its standard input, since the URL of a ledger may have a
password. It works until that input ends: so it ends with the process that has started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from jobqueue.maintenance.leadership import LeaderElection
from jobqueue.maintenance.reaper import Reaper
from jobqueue.queue import Queue
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.redis import RedisStorage
from jobqueue.worker.job import Job

__all__ = ["QUEUE", "RESULTS", "guarded"]

QUEUE = "demo"
LEASE = 5.0
RESULTS = 86_400.0


def guarded(spec: dict[str, Any]) -> GuardedStorage:
    """Return the store of the demo."""
    return GuardedStorage(
        RedisStorage(spec["redis"], retry_for=30.0), PostgresLedger(spec["ledger"], spec["schema"])
    )


async def main() -> None:
    """Work."""
    spec: dict[str, Any] = json.loads(sys.stdin.readline())
    runs = os.open(spec["runs"], os.O_WRONLY | os.O_APPEND)
    storage = guarded(spec)
    queue: Queue[float, int] = Queue(
        storage, QUEUE, concurrency=spec["slots"], visibility_timeout=LEASE, result_ttl=RESULTS
    )

    @queue.execute
    async def handle(job: Job[float]) -> int:
        await SYSTEM_CLOCK.sleep(job.payload)
        os.write(runs, f"{job.id} {os.getpid()} {job.attempts}\n".encode())  # one write: a line is never torn
        return job.attempts

    reaper = Reaper(storage, sweep_interval=1.0, leader_election=LeaderElection())
    async with queue, reaper:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)  # until it ends


if __name__ == "__main__":
    asyncio.run(main())
