"""Real processes for the tests: workers, reapers, and what they say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from jobqueue import Queue
from jobqueue.storage.contract import Storage

__all__ = ["BOUND", "Process", "Start", "eventually", "within"]

BOUND = 45.0
"""Seconds that a test waits for what must come. The machine may be busy: it says nothing of speed."""
ROOT = Path(__file__).parents[2]
T = TypeVar("T")


async def within(awaitable: Awaitable[T], bound: float = BOUND) -> T:
    """Wait for what must come."""
    return await asyncio.wait_for(awaitable, bound)


async def eventually(look: Callable[[], Awaitable[T]], bound: float = BOUND) -> T:
    """Look until there is something true to see: for what no event tells, such as what a store holds."""
    async with asyncio.timeout(bound):
        while not (seen := await look()):
            await asyncio.sleep(0.02)
        return seen


class Process:
    """A child process and the lines that it has written."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.lines: list[str] = []
        self._seen = 0
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *arguments: str, **environ: str) -> Process:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
        kept |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=kept, cwd=Path(__file__).parent,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
            self._news.set()
        self._news.set()

    async def expect(self, pattern: str, bound: float = BOUND) -> re.Match[str]:
        """Wait for a line, after the last one expected, that matches."""
        try:
            async with asyncio.timeout(bound):
                while True:
                    self._news.clear()
                    while self._seen < len(self.lines):
                        self._seen += 1
                        if found := re.search(pattern, self.lines[self._seen - 1]):
                            return found
                    if self._reader.done():
                        raise AssertionError(f"ended without a line {pattern!r}: {self.said}")
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no line {pattern!r} within {bound} s: {self.said}") from None

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def count(self, pattern: str) -> int:
        """How many lines match."""
        return sum(re.search(pattern, line) is not None for line in self.lines)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def freeze(self, storage: Storage) -> None:
        """Stop it as a debugger or a suspended machine would, but not while it holds the lock of a store.

        A store whose lock a stopped process holds waits for that process: nothing would go on to be tested.
        """
        for _ in range(20):
            self.signal(signal.SIGSTOP)
            try:
                await asyncio.wait_for(storage.lock_acquire("probe", "test", 1), 2.0)
            except TimeoutError:
                self.signal(signal.SIGCONT)
            else:
                return
        raise AssertionError("the process always held the store's lock")

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.signal(signal.SIGKILL)
        assert await self.wait() == -signal.SIGKILL

    async def wait(self) -> int:
        """Return the exit code, once all that was written has been read."""
        code = await within(self.process.wait())
        await within(self._reader)
        return code

    async def end(self) -> None:
        if self.process.returncode is None:
            for number in (signal.SIGKILL, signal.SIGCONT):
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    break
        await self.wait()


class Start:
    """Starts processes on one store and ends them with the test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._started: list[Process] = []

    async def worker(self, queue: str = "q", **options: Any) -> Process:
        """Start a worker; see `host.py` for the options."""
        process = await self._start("host.py", json.dumps({"store": self._url, "queue": queue, **options}))
        await process.expect(f"queue {queue} started")
        return process

    async def script(self, *arguments: str) -> Process:
        """Start a script of this directory."""
        return await self._start("-W", "ignore::DeprecationWarning", *arguments)

    async def cli(self, *arguments: str, **environ: str) -> Process:
        """Start a command."""
        return await self._start("-P", "-m", "jobqueue", *arguments, **environ)

    async def chaos(self, *options: str) -> Process:
        """Start ``python -m bench chaos`` on the store."""
        return await self._start("-P", "-m", "bench", "chaos", *options, JOBQUEUE_STORAGE=self._url)

    async def reaper(self, *options: str) -> Process:
        """Start a reaper process that sweeps often."""
        return await self.cli("reaper", "-s", self._url, "--sweep-interval", "0.2", *options)

    async def _start(self, *arguments: str, **environ: str) -> Process:
        process = await Process.start(*arguments, **environ)
        self._started.append(process)
        return process

    async def end(self) -> None:
        for process in self._started:
            await process.end()


async def state_of(queue: Queue[Any, Any], id: str) -> tuple[str, int]:
    """Return a job's state and how often it was claimed."""
    status = await queue.get_status(id)
    assert status is not None
    return str(status.state), status.attempts
