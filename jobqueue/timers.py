"""Timeouts by the ten thousand: one timer of the event loop serves all of them.

A timing wheel (Varghese and Lauck, 1987) with buckets made on demand. Setting and cancelling cost a
dict write each, against 4 to 5 µs for `asyncio.timeout` or `asyncio.wait_for`. The price is
precision: a timeout fires up to `TICK` late, never early.
"""

from __future__ import annotations

import heapq
from typing import Protocol

from jobqueue.runtime import Clock, Timer

__all__ = ["TICK", "Expiring", "Timers"]

TICK = 0.01
"""Seconds that one bucket spans."""


class Expiring(Protocol):
    """What can time out. It is its own handle, so that a timeout needs no object and no closure."""

    tick: int
    """The bucket that it is in; kept by `Timers`, 0 when in none."""

    def expire(self) -> None:
        """Take the end of the time. Must not raise."""


class Timers:
    """All timeouts of one owner, in one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[int, dict[Expiring, None]] = {}
        self._ticks: list[int] = []  # heap of the keys of _buckets
        self._timer: Timer | None = None
        self._armed = 0

    def start(self, item: Expiring, seconds: float) -> None:
        """Call ``item.expire()`` once after ``seconds``, unless stopped."""
        tick = int((self._clock.monotonic() + seconds) / TICK) + 1
        item.tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {item: None}
            heapq.heappush(self._ticks, tick)
            if self._timer is None or tick < self._armed:
                self._arm()
        else:
            bucket[item] = None

    def stop(self, item: Expiring) -> None:
        """Do not call. Harmless when it already was, or never started."""
        bucket = self._buckets.get(item.tick)
        if bucket is not None:
            bucket.pop(item, None)

    def close(self) -> None:
        """Forget all timeouts without calling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._ticks.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._ticks[0]
        delay = self._armed * TICK - self._clock.monotonic()
        self._timer = self._clock.call_later(max(0.0, delay), self._fire)

    def _fire(self) -> None:
        self._timer = None
        # Half a tick of slack: the loop's timer may fire a hair before the instant asked for.
        now = self._clock.monotonic() / TICK + 0.5
        while self._ticks and self._ticks[0] <= now:
            for item in self._buckets.pop(heapq.heappop(self._ticks)):
                item.expire()
        if self._ticks and self._timer is None:
            self._arm()
