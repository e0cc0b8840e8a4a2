"""The processes of the comparison: workers that are killed with all their children, and the producer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from bench.chaos.contenders import Contender

__all__ = ["Cast", "kill_tree"]

ENDS_WITHIN = 10.0
REPLACED_AFTER = 0.5
"""Seconds after which a worker that ended by itself is started again, as a supervisor would."""
LONGEST_LINE = 64 * 1024 * 1024


def kill_tree(root: int) -> None:
    """Kill a process and all its descendants at once, as the end of their container would.

    They are stopped first, so that none has children that nobody sees.
    """
    tree: set[int] = set()
    while new := _descendants(root) - tree:
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        tree |= new
    for pid in tree:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    tree, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree, grown = tree | more, bool(more)
    return tree


class Cast:
    """The workers and the producer of a library. As a context manager, it ends them all."""

    def __init__(self, contender: Contender, port: int, directory: Path) -> None:
        self._contender = contender
        self._environ = {**os.environ, **contender.environ, "CHAOS_PORT": str(port),
                         "CHAOS_NOTES": str(directory / "notes")}  # fmt: skip
        self._log = (directory / "log").open("ab")
        self._workers: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._producer: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()
        self._made = 0
        self.restarts = 0
        """Workers that ended by themselves and were started again."""

    async def __aenter__(self) -> Self:
        self._producer = await self._start(
            self._contender.produce(), "producer", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, limit=LONGEST_LINE,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        for keeper in self._keepers.values():
            keeper.cancel()
        for process in [*self._workers.values(), *filter(None, [self._producer])]:
            await self._end(process)
        self._log.close()

    async def ask(self, *command: Any) -> Any:
        """Send the producer a command; return its answer."""
        producer = self._producer
        assert producer is not None
        assert producer.stdin is not None
        assert producer.stdout is not None
        async with self._asking:
            producer.stdin.write(json.dumps(command).encode() + b"\n")
            line = await producer.stdout.readline()
        if not line:
            raise SystemExit(f"the producer of {self._contender.peer.title} ended")
        return json.loads(line)

    async def add_worker(self) -> None:
        """Start a worker, and start it again should it end by itself."""
        name = f"worker-{self._made}"
        self._made += 1
        process = self._workers[name] = await self._start(
            self._contender.work(), name, stdin=asyncio.subprocess.DEVNULL, stdout=self._log
        )
        self._keepers[name] = asyncio.create_task(self._keep(name, process))

    async def _keep(self, name: str, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        del self._workers[name], self._keepers[name]
        self.restarts += 1
        await asyncio.sleep(REPLACED_AFTER)
        await self.add_worker()

    async def kill_oldest(self) -> str | None:
        """Kill the worker that has lived longest; return its name."""
        name = next(iter(self._workers), None)
        if name is None:
            return None
        self._keepers.pop(name).cancel()
        await self._end(self._workers.pop(name))
        return name

    @property
    def oldest(self) -> str | None:
        """The worker that `kill_oldest` will kill."""
        return next(iter(self._workers), None)

    async def _start(self, command: list[str], name: str, **pipes: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=self._contender.directory,
            env={**self._environ, "CHAOS_WORKER": name},
            stderr=self._log,
            start_new_session=True,
            **pipes,
        )

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            await asyncio.to_thread(kill_tree, process.pid)
        await process.wait()
