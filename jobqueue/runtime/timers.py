"""Many timeouts at the cost of few: one timer of the event loop serves all of one duration.

Calls that share a duration end in the order in which they began, so they wait in one lane, first in,
first out, and only its head needs a timer. Starting and stopping cost a dict write each, against 4 to
5 µs for `asyncio.timeout` or `asyncio.wait_for`. A program uses few durations; each extra one costs
what a timer of the loop costs.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from jobqueue.runtime.clock import Clock, Timer

__all__ = ["Expiring", "Lane", "Timers"]

_HAIR = 1e-6

Lane = dict["Expiring", None]
"""Items with the same duration, in the order of their deadlines."""


class Expiring(Protocol):
    """Something with a deadline, used as its own handle, so that a timeout needs no object and no closure."""

    due: float
    """The deadline, by the monotonic clock; set by `Timers`."""
    lane: Lane | None
    """The lane it waits in; set by `Timers`."""

    def expire(self) -> None:
        """Handle the passing of the deadline. Must not raise."""


class Timers:
    """All timeouts of one owner, in one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._lanes: dict[float, Lane] = {}
        self._heads: dict[float, Timer] = {}

    def __len__(self) -> int:
        """Return how many timeouts run. For tests."""
        return sum(map(len, self._lanes.values()))

    def start(self, item: Expiring, seconds: float) -> None:
        """Call ``item.expire()`` once after ``seconds``, unless stopped."""
        monotonic = self._monotonic  # called so, as `self._monotonic()` would look for a method first
        item.due = monotonic() + seconds
        lane = self._lanes.get(seconds)
        if lane is None:
            lane = self._lanes[seconds] = {}
            self._arm(seconds, seconds)
        item.lane = lane
        lane[item] = None

    def stop(self, item: Expiring) -> None:
        """Cancel the timeout. Does nothing if it has passed or never started."""
        if item.lane is not None:
            item.lane.pop(item, None)

    def close(self) -> None:
        """Cancel all timeouts."""
        for timer in self._heads.values():
            timer.cancel()
        self._heads.clear()
        self._lanes.clear()

    def _arm(self, seconds: float, delay: float) -> None:
        self._heads[seconds] = self._clock.call_later(delay, partial(self._fire, seconds))

    def _fire(self, seconds: float) -> None:
        # The head that it was armed for has often ended since: then the next one is waited for.
        lane, now = self._lanes[seconds], self._monotonic()
        over: list[Expiring] = []
        for item in lane:
            # A timer may come a hair early, by the rounding of floats: waiting for the rest could
            # take for ever, as it may round to no time at all.
            if item.due > now + _HAIR:
                self._arm(seconds, item.due - now)
                break
            over.append(item)
        else:
            del self._lanes[seconds], self._heads[seconds]
        for item in over:
            # An earlier one may have stopped a later one.
            if lane.pop(item, self) is None:
                item.expire()
