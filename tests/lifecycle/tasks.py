"""The queue of ``jobqueue worker tasks:queue`` in these tests."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from jobqueue import Job, Queue

queue: Queue[Any, Any] = Queue(os.environ["STORE"], "q", visibility_timeout=2.0, block_timeout=1.0)


@queue.execute
async def work(job: Job[Any]) -> int:
    order = job.payload or {}
    print("run", job.id, job.attempts, os.getpid(), flush=True)
    if "die" in order:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(order.get("sleep", 0))
    return os.getpid()


calm: Queue[Any, Any] = Queue(os.environ["STORE"], "calm")
calm.execute(work)
