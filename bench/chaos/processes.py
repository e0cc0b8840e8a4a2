"""`jobqueue` commands in processes of their own: started, listened to, killed and ended."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Child"]

ENDS_WITHIN = 10.0
"""Seconds that a child gets to end in order."""
LEADS = re.compile(r"reaper (\S+) leads, term (\d+)")
FOLLOWS = re.compile(r"reaper \S+ no longer leads")
RECOVERED = re.compile(r"lost its lease$")
ROOT = Path(__file__).parents[2]


class Child:
    """A worker or reaper."""

    def __init__(self, role: str, process: asyncio.subprocess.Process) -> None:
        self.role = role
        self.pid = process.pid
        self.killed = False
        self.term: int | None = None
        """The term that it leads, ``None`` if it does not."""
        self.recovered = 0
        """Jobs that it took back."""
        self.said: list[str] = []
        """Its last lines of output."""
        self._process = process
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        on_leading: Callable[[Child], None] | None = None,
    ) -> Child:
        """Start ``jobqueue`` with these arguments; call ``on_leading(child)`` when it begins to lead.

        URLs of stores go into ``environ``, not into arguments: all users of the host see those.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "jobqueue", *arguments,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        child = cls(arguments[0], process)
        child._reader = asyncio.create_task(child._read(on_leading))
        return child

    async def _read(self, on_leading: Callable[[Child], None] | None) -> None:
        assert self._process.stderr is not None
        async for data in self._process.stderr:
            line = data.decode(errors="replace").rstrip()
            self.said = [*self.said[-9:], line]
            if found := LEADS.search(line):
                self.term = int(found[2])
                if on_leading is not None:
                    on_leading(self)
            elif FOLLOWS.search(line):
                self.term = None
            elif RECOVERED.search(line):
                self.recovered += 1

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def kill(self) -> None:
        """End it as the kernel does when memory is short: it gets no chance to do anything."""
        self.killed = True
        self.term = None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._ended()

    async def end(self) -> None:
        """End it in order, or else by force."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), ENDS_WITHIN)
        except TimeoutError:
            self._process.kill()
        await self._ended()

    async def _ended(self) -> None:
        await self._process.wait()
        if self._reader is not None:
            await self._reader
