"""The job of the comparison, and the notes that each run leaves behind.

A line is written in one call, so it is there even if the process is killed by the next instruction. This file
is imported in the environment of every library: it imports nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

PACE = 0.05
"""Seconds that a job takes, so that a kill finds jobs running."""
LEASE = 5
"""Seconds after which a job of a dead worker may be given to another, where a library has such a setting."""
PORT = int(os.environ.get("CHAOS_PORT", "6379"))
URL = f"redis://127.0.0.1:{PORT}"


def note(kind: str, id: str) -> None:
    """Write down that a run begins or has ended."""
    line = json.dumps([kind, id, os.environ["CHAOS_WORKER"], time.time()])
    file = os.open(os.environ["CHAOS_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def work(id: str, number: int) -> int:
    """Do the job, blocking."""
    note("start", id)
    time.sleep(PACE)
    note("end", id)
    return number * number


async def work_async(id: str, number: int) -> int:
    """Do the job."""
    note("start", id)
    await asyncio.sleep(PACE)
    note("end", id)
    return number * number
