"""Serves until a stop signal: the first drains, the second hurries, the third ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import FrameType

__all__ = ["serve_until_signal"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve_until_signal(
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    hurry: Callable[[], None],
    broken: Callable[[], Awaitable[None]],
) -> None:
    """Start, wait for SIGTERM or SIGINT, stop. Stops as well when ``broken`` raises, and raises that.

    Ends without stopping when ``broken`` returns: then somebody else has stopped what is served.
    A second signal calls ``hurry``, a third ends the process with 128 + its number.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    count = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 2:
            os._exit(128 + number)
        loop.call_soon_threadsafe(stopping.set if count == 1 else hurry)

    with _handling(on_signal):
        await start()
        breaking = asyncio.ensure_future(broken())
        waiting = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({breaking, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
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
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
