"""Tasks apart from the caller: its context and its cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["all_at_once", "apart", "end_cancellation"]


T = TypeVar("T")


def apart(call: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run a call in an empty context: its tasks and connections keep no context variables of a request."""
    return asyncio.create_task(call, name=f"jobqueue-{name}", context=Context())


async def all_at_once(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run calls at the same time, until all have ended; then raise the first error, with notes of the others.

    Cancelled, it cancels them all and waits for their ends.
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"and at the same time {other!r}")
        raise errors[0]


async def end_cancellation() -> None:
    """Undo a cancellation of the running task that was meant for an earlier part of it."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # one that is still to be raised
    while task.uncancel():
        pass
