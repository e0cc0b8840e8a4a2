"""Which ticks of a schedule are to be enqueued now, and under which ids. Pure: no I/O, no clock.

A schedule has a *mark*, an instant up to which every tick has been decided: enqueued, or left out. Ticks
after the mark and until now are due.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from zlib import crc32

from jobqueue.model.timetable import Timetable

__all__ = ["PUNCTUAL", "CatchUp", "Due", "due_ticks", "jitter_of", "next_tick", "tick_id"]

PUNCTUAL = 60_000
"""Milliseconds that a tick may be late and is enqueued all the same: a failover is no downtime."""


class CatchUp(StrEnum):
    """What becomes of ticks that nobody enqueued in time: those more than a minute old."""

    SKIP = "skip"
    """They are left out."""
    LAST = "last"
    """The last one that was missed is enqueued, for all."""
    ALL = "all"
    """Each one is enqueued, the oldest first."""


class Due(NamedTuple):
    """What to do for a schedule now."""

    ticks: list[int]
    """To be enqueued, rising."""
    mark: int
    """The mark when that is done."""
    more: bool
    """There are more ticks than were asked for: ask again with the new mark."""


def due_ticks(table: Timetable, mark: int, now: int, catch_up: CatchUp, most: int) -> Due:
    """Decide about the ticks after the mark and until now, ``most`` of them at once."""
    if now <= mark:
        return Due([], mark, more=False)
    begin = mark
    older: list[int] = []
    if catch_up is not CatchUp.ALL and now - PUNCTUAL > mark:
        begin = now - PUNCTUAL - 1  # what is a minute late to the millisecond is punctual
        if catch_up is CatchUp.LAST:
            older = [last] if (last := _last_tick(table, mark, begin)) is not None else []
    found = list(itertools.islice(_until(table, begin, now), most + 1))
    if len(found) > most:
        return Due(found[:most], found[most - 1], more=True)
    return Due(found or older, now, more=False)


def next_tick(table: Timetable, after: int) -> int | None:
    """Return the first tick after an instant, ``None`` if there is none any more."""
    return next(table.after(after), None)


def tick_id(name: str, tick: int) -> str:
    """Return the id of the job of a tick: ``report@2026-11-26T02:00:00Z``."""
    return f"{name}@{datetime.fromtimestamp(tick // 1000, UTC):%Y-%m-%dT%H:%M:%S}Z"


def jitter_of(id: str, jitter: int) -> int:
    """Return how many of ``jitter`` milliseconds the job of a tick starts later: the same for everybody."""
    return crc32(id.encode()) % (jitter + 1)


def _until(table: Timetable, after: int, until: int) -> Iterator[int]:
    return itertools.takewhile(lambda tick: tick <= until, table.after(after))


def _last_tick(table: Timetable, after: int, until: int) -> int | None:
    """Return the last tick in a span, looked for in ever longer parts of its end."""
    width = PUNCTUAL
    while True:
        begin = max(after, until - width)
        last = None
        for last in _until(table, begin, until):  # noqa: B007 - its last value
            pass
        if last is not None or begin == after:
            return last
        width *= 2
