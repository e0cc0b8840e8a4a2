"""The work that kills cut off, the digest of a file; and each worker's notes about its runs.

Each start and end of a run is a line of JSON, appended to one file in one write: so it is there even if the
process is killed by the next instruction.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from jobqueue import Job, Queue

LEASE = 2.0
PACE = 0.05
"""Seconds that a job takes at least, so that a kill finds jobs running."""
NOTES_VARIABLE = "BENCH_NOTES"
"""Names the file for the notes."""
QUEUE_VARIABLE = "BENCH_QUEUE"
"""Names the queue."""
FILES = sorted(str(path) for path in Path(sysconfig.get_path("stdlib")).glob("*.py"))
"""The files to digest."""


class Outcome(TypedDict):
    """The result of a run: the answer, and the run that gave it."""

    digest: str
    fence: int


@dataclass(slots=True)
class Run:
    """One run of a job, as noted by its worker."""

    id: str
    fence: int
    pid: int
    started: float
    """Seconds since the epoch."""
    ended: float | None = None
    """``None`` if its worker did not live to note it."""


def digest(path: str) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_runs(notes: Path) -> list[Run]:
    """Return all runs, in the order in which they began."""
    runs: dict[int, Run] = {}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        kind, id, fence, pid, at = json.loads(line)
        if kind == "start":
            runs[fence] = Run(id, fence, pid, at)
        else:
            runs[fence].ended = at
    return list(runs.values())


def _note(kind: str, job: Job[str]) -> None:
    line = json.dumps([kind, job.id, job.fence, os.getpid(), time.time()])
    file = os.open(os.environ[NOTES_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


# The store comes from the environment, as it does for every worker.
queue: Queue[str, Outcome] = Queue(
    "memory://",
    os.environ.get(QUEUE_VARIABLE, "chaos"),
    worker_id=f"worker-{os.getpid()}",
    visibility_timeout=LEASE,
    result_ttl=600.0,
)
idle: Queue[None, None] = Queue("memory://", "idle")


@queue.execute
async def handle(job: Job[str]) -> Outcome:
    """Digest one file."""
    _note("start", job)
    try:
        await asyncio.sleep(PACE)
        return {"digest": await asyncio.to_thread(digest, job.payload), "fence": job.fence}
    finally:
        _note("end", job)


@idle.execute
async def nothing(_job: Job[None]) -> None:
    """Do nothing."""
