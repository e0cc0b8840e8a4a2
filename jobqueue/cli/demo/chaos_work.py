"""The handler of the chaos demo's workers, and its notes about every run.

Each start and end of a run is a line of JSON, appended to one file in one write: so it is there even
if the process is killed by the next instruction.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from jobqueue.cli.demo.files import Answer, measure, unpack
from jobqueue.job import Fatal
from jobqueue.queue import Queue
from jobqueue.run import Job
from jobqueue.runtime import SYSTEM_CLOCK

__all__ = ["LEASE", "NOTES_VARIABLE", "QUEUE_VARIABLE", "Order", "Outcome", "Run", "queue", "read_runs"]

NOTES_VARIABLE = "JOBQUEUE_CHAOS_NOTES"
"""Names the file for the notes."""
QUEUE_VARIABLE = "JOBQUEUE_CHAOS_QUEUE"
"""Names the queue, which is one of its own for every demo."""
LEASE = 2.0
"""Seconds; short, so that a demo need not last long."""
PACE = 0.05
"""Seconds that a job takes at least, so that a kill finds jobs running."""


class Order(TypedDict):
    """The payload of a job."""

    path: str


class Outcome(TypedDict):
    """The result of a run: the answer, and the run that gave it."""

    answer: Answer
    fence: int


@dataclass(slots=True)
class Run:
    """One run of a job, as noted by the worker."""

    id: str
    fence: int
    pid: int
    started: float
    """Seconds since the epoch."""
    ended: float | None = None
    """``None`` if its worker did not live to note it."""


def _note(kind: str, job: Job[Order]) -> None:
    path = os.environ.get(NOTES_VARIABLE)
    if path is None:
        return
    line = json.dumps([kind, job.id, job.fence, os.getpid(), SYSTEM_CLOCK.time()])
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def read_runs(path: Path) -> list[Run]:
    """Return all runs, in the order in which they began."""
    return _runs(path.read_text().splitlines()) if path.exists() else []


def _runs(lines: Iterable[str]) -> list[Run]:
    runs: dict[int, Run] = {}
    for line in lines:
        kind, id, fence, pid, at = json.loads(line)
        if kind == "start":
            runs[fence] = Run(id, fence, pid, at)
        else:
            runs[fence].ended = at
    return list(runs.values())


async def handle(job: Job[Order]) -> Outcome:
    """Digest and count one file."""
    _note("start", job)
    await SYSTEM_CLOCK.sleep(PACE)
    try:
        answer = await asyncio.to_thread(measure, unpack(job.payload["path"]))
    except OSError as error:
        raise Fatal(f"cannot read the file: {error.strerror}") from error
    finally:
        _note("end", job)
    return {"answer": answer, "fence": job.fence}


# The store comes from the command line, as it does for every worker.
queue: Queue[Order, Outcome] = Queue(
    "memory://",
    os.environ.get(QUEUE_VARIABLE, "chaos"),
    worker_id=f"worker-{os.getpid()}",
    visibility_timeout=LEASE,
    result_ttl=600.0,
)
queue.execute(handle)
