"""A clock that only tests move."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from collections.abc import Callable

from jobqueue.errors import InvalidArgumentError
from jobqueue.runtime.clock import Timer

__all__ = ["EPOCH", "FakeClock"]

EPOCH = 1_700_000_000.0001
"""Where a `FakeClock` starts. The tenth of a millisecond keeps every later instant clear of a whole one,
so that truncating ``time() * 1000`` gives the millisecond meant, whatever a float rounds to."""

_NANOS = 1_000_000_000
_SETTLE_ROUNDS = 25
"""Turns of the event loop that a chain of callbacks, tasks and futures gets to come to rest."""


class _Timer:
    """A callback and the loop that it belongs to."""

    __slots__ = ("callback", "loop")

    def __init__(self, callback: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.callback: Callable[[], None] | None = callback
        self.loop = loop

    def cancel(self) -> None:
        self.callback = None

    def fire(self) -> None:
        callback, self.callback = self.callback, None
        if callback is None or self.loop.is_closed():
            return
        if self.loop.is_running() and not _is_here(self.loop):
            self.loop.call_soon_threadsafe(callback)
        else:
            callback()


class FakeClock:
    """A `Clock` for tests: time stands still until `advance` or `move` moves it.

    Both go through the timers in order of their due time (ties: in order of creation), so that a
    callback sees the instant that it asked for. `advance` lets the event loop come to rest after each
    timer; `move` does not, and needs no event loop.

    Seconds everywhere. ``seed`` decides what `uniform` draws, so that jitter repeats from run to run.
    """

    virtual = True

    def __init__(self, *, seed: int = 0) -> None:
        self._elapsed = 0  # nanoseconds: sums of floats would drift off the whole milliseconds
        self._ahead = 0
        self._timers: list[tuple[int, int, _Timer]] = []
        self._order = itertools.count()
        self.uniform = random.Random(seed).uniform  # noqa: S311 - jitter, not a secret

    def __repr__(self) -> str:
        return f"FakeClock(+{self._elapsed / _NANOS:g}s)"

    def time(self) -> float:
        return EPOCH + (self._elapsed + self._ahead) / _NANOS

    def monotonic(self) -> float:
        return self._elapsed / _NANOS

    def now_ms(self) -> int:
        """Return the instant as stores write it: whole milliseconds since the epoch."""
        return int(self.time() * 1000)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        loop = asyncio.get_running_loop()
        if delay <= 0:
            return loop.call_soon(callback)
        timer = _Timer(callback, loop)
        heapq.heappush(self._timers, (self._elapsed + _nanos(delay), next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, and everything happen that was due in them."""
        target = self._elapsed + _checked(seconds)
        await self.settle()
        while self._fire_next(target):
            await self.settle()
        self._elapsed = max(self._elapsed, target)

    def move(self, seconds: float) -> None:
        """Let ``seconds`` pass and fire the due timers, without waiting for what they start."""
        target = self._elapsed + _checked(seconds)
        while self._fire_next(target):
            pass
        self._elapsed = max(self._elapsed, target)

    def step(self, seconds: float) -> None:
        """Set the wall clock ahead, or back if negative. No time passes: `monotonic` stands still."""
        self._ahead += _nanos(seconds)

    async def settle(self) -> None:
        """Let the event loop run what is ready, without time passing."""
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)

    def _fire_next(self, target: int) -> bool:
        """Go to the next timer up to ``target`` and fire it; say whether there was one."""
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not timers or timers[0][0] > target:
            return False
        due, _, timer = heapq.heappop(timers)
        self._elapsed = max(self._elapsed, due)
        timer.fire()
        return True


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _nanos(seconds: float) -> int:
    return round(seconds * _NANOS)


def _checked(seconds: float) -> int:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidArgumentError("seconds", f"must be finite and not negative, not {seconds!r}")
    return _nanos(seconds)
