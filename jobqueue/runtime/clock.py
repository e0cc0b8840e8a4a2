"""The clock, randomness and sleep. No other module names them.

Tests replace the `Clock` by building a store with ``clock=FakeClock()``; queues, workers and
reapers run by the clock of their store.
"""

from __future__ import annotations

import asyncio
import random
import time as _time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Cancel the callback. Does nothing if it has already been called."""


@runtime_checkable
class Clock(Protocol):
    """The source of time, delays and jitter for the whole package."""

    virtual: bool
    """True if time only moves when a test moves it: no thread may wait for it."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back once in the running loop after ``delay`` seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller."""

    def uniform(self, low: float, high: float) -> float:
        """Draw a random number for jitter."""
        ...


class SystemClock:
    """The machine's clock."""

    virtual = False
    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Use the running loop's timer."""
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, seconds: float) -> None:
        """Sleep, as `asyncio.sleep` does."""
        await asyncio.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        """Draw from the process's own generator."""
        return random.uniform(low, high)  # noqa: S311 - jitter needs no secrecy


SYSTEM_CLOCK = SystemClock()
