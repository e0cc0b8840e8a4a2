"""A worker that says when the jobs that it runs begin and end.

argv[1] is a JSON object: ``store`` (URL), ``take``: seconds that a job takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

from jobqueue import Job, Queue

options: dict[str, Any] = json.loads(sys.argv[1])
queue: Queue[Any, None] = Queue(options["store"], "q", concurrency=5, visibility_timeout=1.0)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


@queue.execute
async def handler(job: Job[Any]) -> None:
    say("begin", job.id, job.group or "-", f"{time.monotonic():.6f}")
    await asyncio.sleep(options["take"])
    say("end", job.id, job.group or "-", f"{time.monotonic():.6f}")


async def main() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with queue:
        say("works")
        await stopped.wait()


asyncio.run(main())
