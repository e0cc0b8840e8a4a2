"""A worker process for the tests. Says on stdout what happens; the payload says what a job does.

argv[1] is a JSON object: ``store`` (URL), ``queue``, and what differs from the defaults below.
``die_at`` names the step of a job's life at which the process kills itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jobqueue import Job, Queue, open_storage

OPTIONS = {"lease": 1.0, "job_timeout": None, "concurrency": 4, "max_stalls": 2, "die_at": "", "deaf": False}
options: dict[str, Any] = {**OPTIONS, **json.loads(sys.argv[1])}
storage = open_storage(options["store"])


def say(*words: object) -> None:
    # One write, so that lines of threads and processes do not mix.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_around_exchange(step: str) -> None:
    """Replace the store's exchange by one that kills this process before or after it does its work."""
    exchange: Any = storage.exchange

    async def deadly(queue: str, worker: str, settlements: Any, limit: int, lease: int) -> Any:
        if step == "before claim" or (settlements and step == "before settle"):
            die()
        answer = await exchange(queue, worker, settlements, limit, lease)
        if (answer.jobs and step == "after claim") or (settlements and step == "after settle"):
            die()
        return answer

    storage.exchange = deadly  # type: ignore[method-assign]


async def nothing(*_arguments: object) -> None:
    """Do nothing."""


async def handler(job: Job[Any]) -> Any:
    order = job.payload or {}
    say("run", job.id, job.attempts, job.fence)
    if options["die_at"] == "in handler" or "die" in order:
        die()
    first = job.attempts == 1
    try:
        if "until" in order:  # until a file is there
            while not Path(order["until"]).exists():
                await asyncio.sleep(0.01)
        if "forever" in order and first:
            await asyncio.Event().wait()
        if "sleep" in order:
            await asyncio.sleep(order["sleep"])
        if "block" in order and first:
            block(order["block"])
        if "spin" in order and first:
            while True:
                pass
    except asyncio.CancelledError:
        say("aborted", job.id, job.aborted_reason)
        if "linger" in order:
            await asyncio.sleep(order["linger"])
        raise
    return {"pid": os.getpid(), "attempt": job.attempts}


def block(seconds: float) -> None:
    time.sleep(seconds)


async def main() -> None:
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
    if options["die_at"] and options["die_at"] != "in handler":
        die_around_exchange(options["die_at"])
    if options["deaf"]:  # all that the store pushes is lost
        storage.subscribe = nothing  # type: ignore[method-assign]
    queue: Queue[Any, Any] = Queue(
        storage,
        options["queue"],
        concurrency=options["concurrency"],
        visibility_timeout=options["lease"],
        job_timeout=options["job_timeout"],
        max_stalls=options["max_stalls"],
        block_timeout=1.0,
    )
    queue.execute(handler)
    for name in ("completed", "stalled", "requeued", "cancelled"):
        queue.on(name, lambda event: say(event.name, event.id))
    await queue.run()


asyncio.run(main())
