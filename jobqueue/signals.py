"""Serves until a stop signal: the first drains, the second hurries, the third ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["serve_until_signal"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve_until_signal(
    start: Callable[[], Coroutine[Any, Any, None]],
    stop: Callable[[], Awaitable[None]],
    hurry: Callable[[], None],
    broken: Callable[[], Awaitable[None]],
) -> int | None:
    """Start, wait for SIGTERM or SIGINT, stop. Stops as well when ``broken`` raises, and raises that.

    Ends without stopping when ``broken`` returns: then somebody else has stopped what is served.
    A second signal calls ``hurry``, a third ends the process with 128 + its number.

    A signal during ``start`` cancels it, and a second one ends the process. Returns the number of the
    signal that kept it from starting, ``None`` if it has started.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    numbers: list[int] = []
    started = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)
        if len(numbers) > (2 if started else 1):
            os._exit(128 + number)
        loop.call_soon_threadsafe(stopping.set if len(numbers) == 1 else hurry)

    with _handling(on_signal):
        told = asyncio.create_task(stopping.wait())
        try:
            started = await _start(start, stop, told)
            if not started:
                return numbers[0]
            await _serve(told, stop, broken)
        finally:
            told.cancel()
    return None


async def _start(
    start: Callable[[], Coroutine[Any, Any, None]],
    stop: Callable[[], Awaitable[None]],
    told: asyncio.Task[Any],
) -> bool:
    """Start, and give it up when ``told`` ends first; return whether it has started."""
    starting = asyncio.create_task(start())
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if await _completed(starting):
            await stop()
        raise
    if await _completed(starting):
        return True
    if not (starting.cancelled() and told.done()):
        starting.result()  # raises its error, if it failed
    return False


async def _completed(task: asyncio.Task[None]) -> bool:
    """Cancel a task unless it has ended; return whether it has done its work."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    return not task.cancelled() and task.exception() is None


async def _serve(
    told: asyncio.Task[Any], stop: Callable[[], Awaitable[None]], broken: Callable[[], Awaitable[None]]
) -> None:
    breaking = asyncio.ensure_future(broken())
    try:
        await asyncio.wait({breaking, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        over = breaking.done()
        breaking.cancel()
        if not over or breaking.exception() is not None:
            await stop()
    if over:
        breaking.result()


@contextmanager
def _handling(on_signal: Callable[[int, FrameType | None], None]) -> Generator[None]:
    # Not the event loop's own handlers: those wait for their turn, and a handler that blocks the loop
    # must not keep a third signal from ending the process.
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS if not _ignored(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignored(number: signal.Signals) -> bool:
    # A shell starts background jobs with SIGINT ignored: Ctrl-C is not meant for them.
    return number is signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN
