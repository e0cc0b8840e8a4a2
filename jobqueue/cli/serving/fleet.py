"""A fleet: child processes that are restarted when they die, or when the sources change.

A child is this program again with fewer options. Each is tied to the parent by a socket pair: it
tells there whether it can claim, and sees there that the parent has died, which it takes for SIGTERM,
so that no child outlives its parent for longer than it takes to drain. Children have process groups
of their own: Ctrl-C reaches them once, through the parent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.serving.fleet_metrics import METRICS_VARIABLE, ChildMetrics, merged
from jobqueue.cli.serving.health import Exporter
from jobqueue.cli.serving.notify import LINK_VARIABLE
from jobqueue.cli.serving.sources import changes
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger

__all__ = ["Fleet", "exit_text", "restart_delay"]

log = get_logger("jobqueue.cli")

STABLE = 10.0
"""Seconds after which a child counts as having run well, so that its next failure is a first one."""
HEARD_FOR = 10.0
"""Seconds of silence after which a child no longer counts as ready."""
RELOAD_DRAIN = 3.0
"""Seconds that running jobs get to end after a change of the sources."""


def restart_delay(failures: int) -> float:
    """Return the seconds to wait before the next start after so many failures in a row: 0.5, 1, 2, ... 30."""
    return min(30.0, 0.25 * 2.0 ** min(failures, 10))


def exit_text(code: int) -> str:
    """Describe the end of a process. A negative code is a signal, as in `subprocess`."""
    if code >= 0:
        return f"exited with code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


class _Child:
    """One process and the link to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, link: socket.socket, metrics: ChildMetrics | None
    ) -> None:
        self.process = process
        self.metrics = metrics
        self.pid = process.pid
        self.started = self.heard = SYSTEM_CLOCK.monotonic()
        self.replaced = False
        self._claims = False
        self._link = link
        self._listener = asyncio.create_task(self._listen(), name=f"jobqueue-child-{self.pid}")

    @property
    def ready(self) -> bool:
        return self._claims and SYSTEM_CLOCK.monotonic() - self.heard < HEARD_FOR

    def terminate(self) -> None:
        # Not `Process.terminate`: before CPython 3.13 it polls, which may reap the child before
        # asyncio's own watcher does, and its exit code is lost.
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    async def wait(self) -> int:
        code = await self.process.wait()
        self._listener.cancel()
        self._link.close()
        if self.metrics is not None:
            await self.metrics.close()
        return code

    async def _listen(self) -> None:
        loop, rest = asyncio.get_running_loop(), b""
        with suppress(OSError):
            while data := await loop.sock_recv(self._link, 4096):
                self.heard = SYSTEM_CLOCK.monotonic()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"X_READY="):
                        self._claims = line == b"X_READY=1"


class Fleet:
    """Keeps ``count`` processes running, from `start` to `stop`: ``command`` returns that of each number.

    With ``sources``, a directory, they are replaced whenever a Python file in it changes. With ``burst``, one
    that ends in order has done all there was to do: it is not replaced, and the fleet ends with the last.
    With ``measured``, the children can be asked for their metrics.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        environ: Mapping[str, str],
        count: int,
        sources: Path | None = None,
        *,
        burst: bool = False,
        measured: bool = False,
    ) -> None:
        self._command = command
        self._environ = environ
        self._count = count
        self._sources = sources
        self._burst = burst
        self.metrics: Exporter | None = self._collect if measured else None
        """Returns the metrics of all children."""
        self._children: dict[int, _Child] = {}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._hopeless = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reloading: asyncio.Task[None] | None = None
        self.unclean = 0
        """Number of children that did not end in order when they were stopped."""

    @property
    def ready(self) -> bool:
        """Whether all children can claim."""
        return len(self._children) == self._count and all(child.ready for child in self._children.values())

    async def start(self) -> None:
        """Start the children."""
        self._tasks = [asyncio.create_task(self._keep(slot)) for slot in range(self._count)]
        if self._sources is not None:
            self._reloading = asyncio.create_task(self._reload(self._sources))

    async def stop(self) -> None:
        """Make every child drain, and wait for their ends."""
        self._stopping.set()
        if self._reloading is not None:
            self._reloading.cancel()
        self._each(_Child.terminate)
        await asyncio.gather(*self._tasks)

    def hurry(self) -> None:
        """Signal the children again: they give their jobs back."""
        self._each(_Child.terminate)

    async def until_broken(self) -> None:
        """Wait until a restart of a child cannot help, and raise the error; return when all have done."""
        kept = asyncio.gather(*self._tasks)
        hopeless = asyncio.ensure_future(self._hopeless.wait())
        try:
            waits: set[asyncio.Future[Any]] = {asyncio.shield(kept), hopeless}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hopeless.cancel()
        if not self._hopeless.is_set():
            kept.result()
            return
        raise Failure("the worker processes cannot start: the reason is in the message above", Exit.USAGE)

    def _each(self, action: Callable[[_Child], None]) -> None:
        for child in tuple(self._children.values()):
            action(child)

    async def _keep(self, slot: int) -> None:
        failures = 0
        while not self._stopping.is_set():
            changed = self._changed
            child = self._children[slot] = await self._spawn(slot)
            if self._stopping.is_set():  # it was told while there was nobody to pass it on to
                child.terminate()
            code = await child.wait()
            del self._children[slot]
            if self._stopping.is_set():
                # SIGTERM kills only a child that has no handler for it: not yet serving, or no longer.
                if code not in {0, -signal.SIGTERM}:
                    self.unclean += 1
                    log.warning("worker process %d %s while stopping", child.pid, exit_text(code))
                return
            if self._burst and code == 0:
                return
            if child.replaced:
                failures = 0
                continue
            if code == Exit.USAGE and self._sources is None:
                self._hopeless.set()
                return
            lived = SYSTEM_CLOCK.monotonic() - child.started
            failures = 1 if lived > STABLE else failures + 1
            delay = None if code == Exit.USAGE else restart_delay(failures)
            after = "when the sources change" if delay is None else f"in {delay:g} s"
            log.warning("worker process %d %s, next one %s", child.pid, exit_text(code), after)
            await _first(delay, self._stopping, changed)

    async def _spawn(self, slot: int) -> _Child:
        ours, theirs = socket.socketpair()
        asks, answers = socket.socketpair() if self.metrics is not None else (None, None)
        with theirs, answers or nullcontext():
            environ = {**self._environ, LINK_VARIABLE: str(theirs.fileno())}
            passed = [theirs.fileno()]
            if answers is not None:
                environ[METRICS_VARIABLE] = str(answers.fileno())
                passed.append(answers.fileno())
            process = await asyncio.create_subprocess_exec(
                *self._command(slot),
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=passed,
                process_group=0,
            )
        log.info("worker process %d started", process.pid)
        ours.settimeout(0)
        if asks is not None:
            asks.settimeout(0)
        return _Child(process, ours, None if asks is None else ChildMetrics(asks))

    async def _collect(self) -> bytes:
        asked = [(slot + 1, child.metrics) for slot, child in sorted(self._children.items()) if child.metrics]
        texts = await asyncio.gather(*(metrics.ask() for _, metrics in asked))
        return merged(
            (number, text) for (number, _), text in zip(asked, texts, strict=True) if text is not None
        )

    async def _reload(self, sources: Path) -> None:
        async for paths in changes(sources):
            log.info("%s has changed: restarting", paths[0])
            self._changed.set()
            self._changed = asyncio.Event()
            for child in tuple(self._children.values()):
                child.replaced = True
                child.terminate()
                SYSTEM_CLOCK.call_later(RELOAD_DRAIN, child.terminate)


async def _first(timeout: float | None, *events: asyncio.Event) -> None:
    """Wait for one of the events, or for ``timeout`` seconds."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
