"""The processes of the chaos demo: started, listened to, killed and ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from jobqueue.cli.notify import LINK_VARIABLE

__all__ = ["Child"]

PATIENCE = 10.0
"""Seconds that a child gets to end in order."""
LEADS = re.compile(r"reaper (\S+) leads, term (\d+)")
FOLLOWS = re.compile(r"reaper \S+ no longer leads")
RECOVERED = re.compile(r"lost its lease$")


class Child:
    """A worker or reaper in a process of its own, tied to this one: it ends when this one has gone."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, link: socket.socket) -> None:
        self.role = role
        self.process = process
        self.pid = process.pid
        self.killed = False
        self.reaper_id: str | None = None
        """Known once it has led."""
        self.term: int | None = None
        """The term that it leads, ``None`` if it does not."""
        self.recovered = 0
        """Jobs that it took back."""
        self.said: list[str] = []
        """Its last lines of output."""
        self._link = link
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        role: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        tell: Callable[[Child, str], None],
    ) -> Child:
        """Start ``jobqueue`` with these arguments; ``tell(child, what)`` is called at what it does."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "jobqueue", *arguments,
                env={**os.environ, **environ, LINK_VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        child = cls(role, process, ours)
        child._reader = asyncio.create_task(child._read(tell))
        return child

    async def _read(self, tell: Callable[[Child, str], None]) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            line = data.decode(errors="replace").rstrip()
            self.said = [*self.said[-9:], line]
            if found := LEADS.search(line):
                self.reaper_id, self.term = found[1], int(found[2])
                tell(self, f"leads, term {self.term}")
            elif FOLLOWS.search(line):
                self.term = None
            elif RECOVERED.search(line):
                self.recovered += 1

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.returncode is None

    async def kill(self) -> None:
        """End it as the kernel does when memory is short: it gets no chance to do anything."""
        self.killed = True
        self.term = None
        self.process.kill()
        await self._ended()

    async def end(self) -> None:
        """End it in order, or else by force."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), PATIENCE)
        except TimeoutError:
            self.process.kill()
        await self._ended()

    async def _ended(self) -> None:
        await self.process.wait()
        self._link.close()
        if self._reader is not None:
            await self._reader
