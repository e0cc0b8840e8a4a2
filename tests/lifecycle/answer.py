"""A worker process with default settings that answers at once: ``jobqueue worker answer:queue``."""

from __future__ import annotations

import os
from typing import Any

from jobqueue import Job, Queue

queue: Queue[Any, Any] = Queue(os.environ["STORE"], "rpc", concurrency=100)


@queue.execute
async def answer(job: Job[Any]) -> Any:
    return job.payload
