"""`run` in a process of its own, told to end by signals: once, twice, three times."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import LIMIT

PIPE = asyncio.subprocess.PIPE
ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
import jobqueue.worker.worker
from jobqueue import MemoryStorage, Queue

storage = MemoryStorage()
queue = Queue(storage, "q")
stubborn = sys.argv[1] == "stubborn"
jobqueue.worker.worker.ABORT_GRACE = 60.0  # the third signal must come before the second has had its way
go = asyncio.Event()

def say(*words):
    print(*words, flush=True)

@queue.execute
async def handler(job):
    say("began")
    while True:
        try:
            await go.wait()
            break
        except asyncio.CancelledError:
            say("aborted", job.aborted_reason)
            if not stubborn:
                raise
    say("ended")

@queue.on("started")
async def enqueue(event):
    await queue.enqueue("a", 1)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), go.set)
    while queue.ready or not queue._session.worker._draining:
        await asyncio.sleep(0.002)
    say("draining")

async def main():
    await storage.open()
    await queue.run()
    (record,) = await storage.get("q", ["a"])
    say("stopped", record.state, record.attempts)

asyncio.run(main())
"""


@asynccontextmanager
async def program(kind: str = "kind") -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, kind, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    try:
        async with asyncio.timeout(LIMIT * 2):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def says(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdout is not None
    assert (await process.stdout.readline()).decode().strip() == line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains(number: signal.Signals) -> None:
    async with program() as process:
        await says(process, "began")
        process.send_signal(number)
        await says(process, "draining")
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        await says(process, "ended")
        await says(process, "stopped completed 1")
        assert await process.wait() == 0


async def test_the_second_signal_gives_the_running_jobs_back() -> None:
    async with program() as process:
        await says(process, "began")
        process.send_signal(signal.SIGTERM)
        await says(process, "draining")
        process.send_signal(signal.SIGINT)
        await says(process, "aborted shutdown")
        await says(process, "stopped queued 0")
        assert await process.wait() == 0


async def test_the_third_signal_ends_the_process() -> None:
    async with program("stubborn") as process:
        await says(process, "began")
        process.send_signal(signal.SIGTERM)
        await says(process, "draining")
        process.send_signal(signal.SIGTERM)
        await says(process, "aborted shutdown")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 128 + signal.SIGTERM
