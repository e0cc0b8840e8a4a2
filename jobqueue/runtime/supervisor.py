"""Owns the background tasks of a queue or reaper: one `asyncio.TaskGroup`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from jobqueue.errors import BrokenError

__all__ = ["Supervisor"]


class Supervisor:
    """Runs background tasks until it is stopped.

    They are built to go on whatever happens, so one that ends with an exception, or that other code
    cancels, is a defect: all others are cancelled too, and ``on_crash`` gets the exception. Nothing goes
    on half alive.

    Each runs in an empty context: what was started in a request must not go on in its name.
    """

    def __init__(self, on_crash: Callable[[BaseException], None]) -> None:
        self._on_crash = on_crash
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the task group. Call it before `spawn`."""
        ready = asyncio.Event()
        self._main = asyncio.create_task(self._run(ready), name="jobqueue-supervisor", context=Context())
        self._main.add_done_callback(lambda _: ready.set())
        await ready.wait()
        if self._group is None:
            raise _cancelled(self._main)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` until it ends, is dismissed, or the supervisor stops."""
        assert self._group is not None, "spawn() before start()"
        task = self._group.create_task(work, name=f"jobqueue-{name}", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def dismiss(self, task: asyncio.Task[None]) -> None:
        """Cancel a task that is not needed any more."""
        self._tasks.discard(task)
        task.cancel()

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end."""
        self._stopping = True
        self._end()
        for task in tuple(self._tasks):
            self.dismiss(task)
        if self._main is not None:
            await asyncio.wait([self._main])

    def _end(self, defect: BaseException | None = None) -> None:
        if self._over.done():
            return
        if defect is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(defect)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:
            self._tasks.discard(task)
            if task.cancelled():
                self._end(_cancelled(task))

    async def _run(self, ready: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                ready.set()
                await self._over
        except BaseExceptionGroup as group:
            self._on_crash(group.exceptions[0] if len(group.exceptions) == 1 else group)
        except asyncio.CancelledError:
            if not self._stopping:
                self._on_crash(_cancelled(asyncio.current_task()))


def _cancelled(task: asyncio.Task[Any] | None) -> BrokenError:
    name = "the task" if task is None else f"the task {task.get_name()}"
    return BrokenError(
        f"{name} was cancelled by other code, or its event loop ended before stop(): "
        "cancel tasks of your own only"
    )
