"""Limits: how many jobs may run at once, and how many may start within a time.

A rate is kept by the generic cell rate algorithm: one number for each queue or group, ``tat``, the instant
at which the next start would be exactly in time. Every store computes `admit` and `opens_at` by itself, in
Lua and in SQL too, and comes to the same numbers: all are whole, and below 2^53.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import MAX_ID_BYTES, check_count, check_number, millis

__all__ = [
    "MAX_GROUP_BYTES",
    "MAX_WEIGHT",
    "NO_LIMIT",
    "Limit",
    "Limits",
    "Rate",
    "admit",
    "clamped",
    "opens_at",
]

MAX_GROUP_BYTES = MAX_ID_BYTES
MAX_WEIGHT = 100
"""Largest number of turns that a group takes for one of another."""
MAX_COUNT = 1_000_000
"""Largest number of starts per millisecond or more, and of starts in a burst."""
MAX_PER = 366 * 86_400.0
"""Longest time of a rate in seconds; and the longest that a burst may be worth."""
_WITHIN = 999
"""Microseconds by which a start may be early: instants are whole milliseconds, and a start at one of them may
have been at its end."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many starts within a time.

    ``count`` starts in ``per`` seconds, evenly spread: ``Rate(100, per=60.0)`` is one start every 0.6 s.
    After a pause up to ``burst`` starts may follow each other at once. In no span of time are there more
    starts than its share of the rate, and ``burst``. ``per`` is rounded up to whole milliseconds.
    """

    count: int
    per: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        check_count("count", self.count, high=MAX_COUNT)
        check_number("per", self.per, low=0.001, high=MAX_PER)
        check_count("burst", self.burst, high=MAX_COUNT)
        object.__setattr__(self, "per", millis(self.per) / 1000)
        if self.interval * self.burst > MAX_PER * 1_000_000:
            raise InvalidArgumentError(
                "burst", f"is {self.burst} starts, for which this rate takes more than 366 days: give fewer"
            )

    @property
    def interval(self) -> int:
        """Microseconds from one start to the next, rounded up."""
        return -(-round(self.per * 1000) * 1000 // self.count)

    @property
    def tolerance(self) -> int:
        """Microseconds by which a start may come before its time."""
        return max((self.burst - 1) * self.interval, _WITHIN)


class Limit(NamedTuple):
    """What holds for a queue, or for each of its groups. ``None``: no limit."""

    running: int | None = None
    """Most leases at once."""
    rate: Rate | None = None
    """Most starts within a time."""


NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may run of a queue and of each of its groups, on all workers together. ``None``: no limit."""

    running: int | None = None
    """Most jobs of the queue that run at once."""
    rate: Rate | None = None
    """Most jobs of the queue that start within a time. Retries are starts, too."""
    group_running: int | None = None
    """Most jobs of one group that run at once."""
    group_rate: Rate | None = None
    """Most jobs of one group that start within a time."""

    def __post_init__(self) -> None:
        for name in ("running", "group_running"):
            value = getattr(self, name)
            if value == 0 and type(value) is int:
                raise InvalidArgumentError(name, "must be at least 1: to start nothing, pause the queue")
            if value is not None:
                check_count(name, value)
        for name in ("rate", "group_rate"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Rate):
                raise InvalidArgumentError(name, f"must be a Rate or None, not {type(value).__name__}")


def clamped(limit: Limit, tat: int, now: int) -> int:
    """Return ``tat``, or the latest that this limit could have come to by ``now``, if that is earlier.

    A later one is that of a slower rate, or of a clock that was set back since.
    """
    rate = limit.rate
    return tat if rate is None else min(tat, now * 1000 + rate.tolerance + rate.interval)


def admit(limit: Limit, running: int, tat: int, now: int, want: int) -> tuple[int, int]:
    """Return how many of ``want`` jobs may start at ``now`` (milliseconds), and the ``tat`` after them.

    ``running``: leases that are held already. ``tat``: microseconds since the epoch; 0 before the first
    start.
    """
    granted = want if limit.running is None else max(0, min(want, limit.running - running))
    rate = limit.rate
    if rate is None:
        return granted, tat
    instant = now * 1000
    tat = clamped(limit, tat, now)
    early = max(0, tat - instant)
    fits = 0 if early > rate.tolerance else (rate.tolerance - early) // rate.interval + 1
    granted = min(granted, fits)
    return granted, (max(tat, instant) + granted * rate.interval if granted else tat)


def opens_at(limit: Limit, running: int, tat: int) -> int | None:
    """Return the instant (milliseconds) from which on one more may start; 0 if nothing is known against it.

    ``None``: not before a run ends.
    """
    if limit.running is not None and running >= limit.running:
        return None
    return 0 if limit.rate is None else max(0, -(-(tat - limit.rate.tolerance) // 1000))
