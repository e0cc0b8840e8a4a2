"""Holds an asynchronous context manager open between two calls that different tasks may make."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from jobqueue.runtime.bounded import end_within
from jobqueue.runtime.clock import Clock

__all__ = ["HeldOpen"]


class HeldOpen:
    """A context manager that one task enters and leaves, as cancel scopes and task groups in it need.

    ``make`` gives a fresh one for each entry. ``lost`` is called with its error if it ends while nobody has
    asked it to, as when a task group in it fails.
    """

    def __init__(
        self, make: Callable[[], AbstractAsyncContextManager[Any]], lost: Callable[[BaseException], None]
    ) -> None:
        self._make = make
        self._lost = lost
        self._leave = asyncio.Event()
        self._entered: asyncio.Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def enter(self) -> Any:
        """Enter; return what it gives, or raise what it raises. Held already, return the same."""
        if self._entered is None:
            self._leave.clear()
            self._entered = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._hold(self._entered), name="jobqueue-lifespan")
        entered = self._entered
        try:
            return await asyncio.shield(entered)
        except BaseException:
            if entered.done() and (entered.cancelled() or entered.exception() is not None):
                self._entered = None  # so that a later call enters anew
            raise

    def cut(self) -> None:
        """End a leave that takes too long, if one is under way."""
        if self._task is not None and self._leave.is_set():
            self._task.cancel()

    async def leave(self, clock: Clock, seconds: float | None) -> None:
        """Leave, if it was entered; raise what it raises. After ``seconds`` its task is cancelled."""
        task = self._task
        if task is None:
            return
        self._leave.set()
        if self._entered is not None and not self._entered.done():
            task.cancel()  # it is still on its way in
        if seconds is None:
            await asyncio.wait([task])
        else:
            await end_within(clock, task, seconds)
            await asyncio.wait([task])
        self._task = self._entered = None
        if not task.cancelled() and (failed := task.exception()) is not None:
            raise failed

    async def _hold(self, entered: asyncio.Future[Any]) -> None:
        try:
            async with self._make() as value:
                entered.set_result(value)
                await self._leave.wait()
        except BaseException as error:
            if not entered.done():
                if isinstance(error, asyncio.CancelledError):
                    entered.cancel()
                    raise
                entered.set_exception(error)
                entered.exception()  # asked for here: the caller may be gone
                return
            if not self._leave.is_set():
                self._lost(error)
                return
            raise
        if not self._leave.is_set():
            self._lost(RuntimeError("the lifespan ended while its queue works"))
