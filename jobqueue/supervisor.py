"""The background tasks of a queue or reaper: one `asyncio.TaskGroup` with one owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Supervisor"]


class Supervisor:
    """Runs background tasks until it is stopped.

    They are built to go on whatever happens, so one that ends with an exception is a defect: all
    others are cancelled too, and ``on_crash`` gets the exception. Nothing goes on half alive.
    """

    def __init__(self, on_crash: Callable[[BaseException], None]) -> None:
        self._on_crash = on_crash
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the task group. Call it before `spawn`."""
        ready = asyncio.Event()
        self._main = asyncio.create_task(self._run(ready), name="jobqueue-supervisor")
        await ready.wait()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` until it ends or the supervisor stops."""
        assert self._group is not None, "spawn() before start()"
        task = self._group.create_task(work, name=f"jobqueue-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end."""
        self._stop.set()
        for task in tuple(self._tasks):
            task.cancel()
        if self._main is not None:
            await asyncio.wait([self._main])

    async def _run(self, ready: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                ready.set()
                await self._stop.wait()
        except BaseExceptionGroup as group:
            self._on_crash(group.exceptions[0] if len(group.exceptions) == 1 else group)
