"""Serving until a signal says stop: once to drain, twice to hurry, thrice to leave at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

__all__ = ["serve_until_signal"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve_until_signal(
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    hurry: Callable[[], None],
    broken: Callable[[], Awaitable[None]],
) -> None:
    """Start, wait for SIGTERM or SIGINT (or for ``broken`` to raise), stop.

    A second signal calls ``hurry``, a third ends the process with 128 + its number.
    """
    stopping = asyncio.Event()
    count = 0

    def on_signal(number: int) -> None:
        nonlocal count
        count += 1
        stopping.set()
        if count == 2:
            hurry()
        elif count > 2:
            os._exit(128 + number)

    with _handling(on_signal):
        await start()
        breaking = asyncio.ensure_future(broken())
        waiting = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({breaking, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await stop()
        if breaking.done():
            breaking.result()
        breaking.cancel()


@contextmanager
def _handling(on_signal: Callable[[int], None]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, int(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
