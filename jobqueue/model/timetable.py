"""Timetables: the instants at which a schedule has its ticks. Pure; instants are milliseconds since 1970.

Daylight saving time, for cron. An expression that picks hours names *local times*: one that does not exist
is the next instant that does, and one that exists twice is the first. An expression of every hour names none:
it is an interval, and goes on with the hours that pass, so that none is without its ticks and none has them
twice. cronsim alone decides by a star at the beginning of a field, as Debian's cron does, which loses
``*/30 2 * * *`` and ``0 */2 * * *`` in spring and doubles them in autumn. So it is asked for local times
only, and what these are in the zone is decided here.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import import_module
from typing import Any, Protocol

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import MAX_INSTANT, check_seconds, millis, shown

__all__ = ["MAX_CRON", "Cron", "Every", "Timetable", "make_timetable"]

MAX_CRON = 256
"""Largest number of characters of a cron expression, and of the name of a time zone."""
MIN_EVERY = 1.0
"""Seconds between two ticks, at the least: their ids tell seconds."""

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = "minute hour day-of-month month day-of-week"
_EXAMPLE = f"five fields, {_FIELDS}, as in '30 2 * * mon-fri', or one of {', '.join(_MACROS)}"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times have no zone here
_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_LAST = datetime(9990, 1, 1)  # noqa: DTZ001
"""No later local time is looked for: `datetime` ends soon after."""


class _LocalTimes(Protocol):
    """The part of ``cronsim.CronSim`` that is used: an iterator over the local times that match."""

    dt: datetime
    """It goes on after this."""
    hours: set[int]

    def __next__(self) -> datetime: ...


class Timetable(Protocol):
    """The ticks of a schedule."""

    def after(self, instant: int) -> Iterator[int]:
        """Yield the ticks after an instant, rising; it may end."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """A tick at each multiple of ``interval`` milliseconds since 1970."""

    interval: int

    def after(self, instant: int) -> Iterator[int]:
        """Yield the ticks after an instant."""
        tick = instant // self.interval * self.interval
        while (tick := tick + self.interval) <= MAX_INSTANT:
            yield tick


@dataclass(frozen=True, slots=True)
class Cron:
    """The ticks of a cron expression in a time zone. Use `make_timetable`, which checks both."""

    expression: str
    zone: tzinfo

    def after(self, instant: int) -> Iterator[int]:
        """Yield the ticks after an instant."""
        sim = _parsed(self.expression)
        if self.zone is UTC:
            yield from self._local(sim, instant)
        elif len(sim.hours) == 24:
            yield from self._of_every_hour(sim, instant)
        else:
            last = instant
            for local in _matches(sim, _local_time(instant, self.zone)):
                tick = _instant_of(local, self.zone)
                if tick > last:  # else it has been: in an hour that comes twice, or one that is left out
                    yield tick
                    last = tick

    @staticmethod
    def _local(sim: _LocalTimes, instant: int) -> Iterator[int]:
        for local in _matches(sim, _local_time(instant, UTC)):
            yield _since_epoch(local)

    def _of_every_hour(self, sim: _LocalTimes, instant: int) -> Iterator[int]:
        """Follow the local time with one offset until the next change of it, and then with the new one."""
        at, last = instant, instant
        while True:
            offset = _offset(at, self.zone)
            local = next(_matches(sim, _EPOCH + timedelta(milliseconds=at) + offset), None)
            if local is None:
                return
            tick = _since_epoch(local - offset)
            if _offset(tick, self.zone) == offset:
                if tick > last:
                    yield tick
                    last = tick
                at = tick
                continue
            change = _change(at, tick, self.zone)
            skipped, offset = -offset, _offset(change, self.zone)
            skipped += offset
            # There may be a tick at the very change: look from a second before it, in the new local time.
            until = _EPOCH + timedelta(milliseconds=change) + offset
            at_change = next(_matches(sim, until - _SECOND), None) == until
            # Where less than an hour is left out, as on Lord Howe Island, that hour would have no tick.
            if (at_change or (local < until and skipped % _HOUR)) and change > last:
                yield change
                last = change
            at = change


def make_timetable(cron: object, every: object, timezone: object) -> Timetable:
    """Return the timetable of a schedule, given either ``cron`` or ``every`` seconds.

    Raises `InvalidArgumentError`, also for a cron expression that never comes true.
    """
    if (cron is None) == (every is None):
        raise InvalidArgumentError("cron", "give either cron or every, one of the two")
    zone = check_timezone(timezone)
    if cron is None:
        if check_seconds("every", every) < MIN_EVERY:
            raise InvalidArgumentError("every", f"must be at least {MIN_EVERY:g} second, not {shown(every)}")
        return Every(millis(check_seconds("every", every)))
    if not isinstance(cron, str):
        raise InvalidArgumentError("cron", f"must be a str, not {type(cron).__name__}")
    table = Cron(_expression(cron), zone)
    if next(_matches(_parsed(table.expression), datetime(2000, 1, 1)), None) is None:  # noqa: DTZ001
        raise InvalidArgumentError("cron", f"{cron!r} never comes true")
    return table


def check_timezone(name: object) -> tzinfo:
    """Return a time zone by its IANA name."""
    if not isinstance(name, str):
        raise InvalidArgumentError("timezone", f"must be a str, not {type(name).__name__}")
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - loaded by those who name one

    try:
        if not 0 < len(name) <= MAX_CRON:
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a directory
        raise InvalidArgumentError(
            "timezone",
            f"{shown(name)} is not known here: use an IANA name such as Europe/Berlin, and install tzdata "
            "where the system has no time zones",
        ) from error


def _expression(cron: str) -> str:
    """Return the five fields that are meant."""
    text = " ".join(cron.split())
    if text.startswith("@"):
        if text.lower() not in _MACROS:
            raise InvalidArgumentError("cron", f"{shown(cron)} is not {_EXAMPLE}")
        return _MACROS[text.lower()]
    if len(text) > MAX_CRON or text.count(" ") != 4:
        raise InvalidArgumentError("cron", f"{shown(cron)} is not {_EXAMPLE}")
    try:
        _parsed(text)
    except (_cronsim().CronSimError, ValueError) as error:
        raise InvalidArgumentError("cron", f"{shown(cron)}: {error}; it takes {_EXAMPLE}") from error
    return text


@functools.lru_cache(maxsize=1024)
def _parsed(expression: str) -> _LocalTimes:
    """Return the fields of an expression; what is in them is shared, and so never stepped itself."""
    parsed: _LocalTimes = _cronsim().CronSim(expression, _EPOCH)
    return parsed


def _cronsim() -> Any:
    return import_module("cronsim")  # for those who have a cron expression


def _matches(sim: _LocalTimes, after: datetime) -> Iterator[datetime]:
    """Yield the local times after one that match."""
    sim = copy.copy(sim)
    sim.dt = after.replace(microsecond=0)
    while True:
        try:
            found = next(sim)
        except (StopIteration, OverflowError, ValueError):  # none within 50 years, or the end of time
            return
        if found > _LAST:
            return
        yield found


def _local_time(instant: int, zone: tzinfo) -> datetime:
    utc = (_EPOCH + timedelta(milliseconds=instant)).replace(tzinfo=UTC)
    return utc.astimezone(zone).replace(tzinfo=None)


def _since_epoch(utc: datetime) -> int:
    return (utc - _EPOCH) // _SECOND * 1000


def _offset(instant: int, zone: tzinfo) -> timedelta:
    utc = (_EPOCH + timedelta(milliseconds=instant)).replace(tzinfo=UTC)
    return utc.astimezone(zone).utcoffset() or timedelta()


def _instant_of(local: datetime, zone: tzinfo) -> int:
    """Return when a local time is: for the first time, or when the next one is that exists."""
    aware = local.replace(tzinfo=zone, fold=0)
    tick = _since_epoch(local - (aware.utcoffset() or timedelta()))
    if _local_time(tick, zone) == local:
        return tick
    # In a gap, fold=0 gives the offset of before it, and fold=1 that of after.
    later = local - (aware.replace(fold=1).utcoffset() or timedelta())
    return _change(_since_epoch(later), tick, zone)


def _change(low: int, high: int, zone: tzinfo) -> int:
    """Return the first instant of a new offset, in whole seconds, after ``low`` and until ``high``."""
    before, low, high = _offset(low, zone), low // 1000, high // 1000
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle * 1000, zone) == before:
            low = middle
        else:
            high = middle
    return high * 1000
