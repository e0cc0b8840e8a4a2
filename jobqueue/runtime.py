"""The clock, ids, randomness and sleep. No other module names them.

Tests replace the `Clock` by building a store with ``clock=FakeClock()``; queues, workers and
reapers run by the clock of their store.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
import time as _time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "Timer", "unique_id"]


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Do not call back. Harmless when it already has."""


@runtime_checkable
class Clock(Protocol):
    """Time as the package sees it."""

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
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter needs no secrecy


SYSTEM_CLOCK = SystemClock()

_counter = itertools.count()
_prefix = secrets.token_hex(10)


def unique_id() -> str:
    """Make an id that no other process, thread or call makes.

    80 random bits per process and a counter: a tenth of the cost of ``uuid4`` on the enqueue path.
    """
    return f"{_prefix}-{next(_counter):x}"


def _renew_prefix() -> None:
    global _prefix
    _prefix = secrets.token_hex(10)


# A forked child shares the counter's value: only a new prefix keeps its ids apart.
os.register_at_fork(after_in_child=_renew_prefix)
