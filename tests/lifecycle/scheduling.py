"""A process that enqueues the ticks of schedules. Says on stdout which jobs it has created.

argv[1] is a JSON object: ``store`` (URL), and ``die_at``: the step of a tick at which it kills itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from jobqueue import Reaper, open_storage
from jobqueue.schedules.stored import STAMPS

options: dict[str, Any] = {"die_at": "", **json.loads(sys.argv[1])}
storage: Any = open_storage(options["store"])
insert, write_documents = storage.insert, storage.write_documents


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def die_at(step: str) -> None:
    if options["die_at"] == step:
        os.kill(os.getpid(), signal.SIGKILL)


async def told_insert(queue: str, jobs: Any, **others: Any) -> Any:
    die_at("before insert")
    answers = await insert(queue, jobs, **others)
    for job, answer in zip(jobs, answers, strict=True):
        say(answer.status, job.id)
    if jobs:
        die_at("after insert")
    return answers


async def told_write(space: str, changes: Any) -> Any:
    versions = await write_documents(space, changes)
    if space.startswith(STAMPS) and changes:
        die_at("after write")
    return versions


async def main() -> None:
    storage.insert, storage.write_documents = told_insert, told_write
    reaper = Reaper(storage, sweep_interval=1.0)
    reaper.on("error", lambda event: say("error", event.error))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with reaper:
        say("schedules")
        await stopped.wait()


asyncio.run(main())
