"""Waits that end, by the clock of a store: tests move it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from jobqueue.runtime.clock import Clock

__all__ = ["all_end", "end_within", "within"]

T = TypeVar("T")


async def within(clock: Clock, call: Awaitable[T], seconds: float) -> T:
    """Await a call for at most ``seconds``; cancel it then, and raise `TimeoutError`."""
    async with asyncio.timeout(None) as bound:
        timer = clock.call_later(seconds, lambda: bound.reschedule(0.0))
        try:
            return await call
        finally:
            timer.cancel()


async def all_end(clock: Clock, tasks: Collection[asyncio.Task[Any]], seconds: float) -> bool:
    """Wait up to ``seconds`` for the tasks; return whether all have finished. Cancels nothing."""
    try:
        await within(clock, asyncio.wait(tasks), seconds)
    except TimeoutError:
        return all(task.done() for task in tasks)
    return True


async def end_within(
    clock: Clock, task: asyncio.Task[Any], seconds: float, end: Callable[[], None] | None = None
) -> None:
    """Wait for the end of a task; after ``seconds``, or when this is cancelled, call ``end``: its `cancel`.

    What became of the task is for the caller to see: it raises nothing here, and cancels nobody else.
    """

    def give_up() -> None:
        if end is None:
            task.cancel()
        else:
            end()

    timer = clock.call_later(seconds, give_up)
    try:
        await asyncio.wait([task])
    finally:
        timer.cancel()
        give_up()
