"""When a schedule has its ticks: cron, intervals, time zones, and what a change of the clocks does."""

# ruff: noqa: E501, DTZ001 - one case is one line; local times have no zone

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.timetable import Cron, Every, make_timetable

BERLIN = "Europe/Berlin"
SPRING = "2026-03-28T23:30"  # there, the hour from 02:00 is left out at 2026-03-29T01:00Z
AUTUMN = "2026-10-24T22:30"  # there, the hour from 02:00 comes twice, until 2026-10-25T01:00Z


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def told(tick: int) -> str:
    return datetime.fromtimestamp(tick / 1000, UTC).strftime("%Y-%m-%dT%H:%M")


def ticks(cron: str, timezone: str, after: str, count: int = 3) -> list[str]:
    table = make_timetable(cron, None, timezone)
    return [told(tick) for tick in itertools.islice(table.after(at(after)), count)]


GOLDEN = [
    # expression, zone, after, the next three ticks in UTC
    ("0 2 * * *", "UTC", "2026-11-26T01:59", ["2026-11-26T02:00", "2026-11-27T02:00", "2026-11-28T02:00"]),
    ("0 2 * * *", "UTC", "2026-11-26T02:00", ["2026-11-27T02:00", "2026-11-28T02:00", "2026-11-29T02:00"]),
    ("*/15 * * * *", "UTC", "2026-12-31T23:40", ["2026-12-31T23:45", "2027-01-01T00:00", "2027-01-01T00:15"]),
    ("0 9 * * mon-fri", "UTC", "2026-11-27T09:00", ["2026-11-30T09:00", "2026-12-01T09:00", "2026-12-02T09:00"]),
    ("0 9 * * 7", "UTC", "2026-11-27T09:00", ["2026-11-29T09:00", "2026-12-06T09:00", "2026-12-13T09:00"]),
    ("0 0 1,15 * mon", "UTC", "2026-11-26T00:00", ["2026-11-30T00:00", "2026-12-01T00:00", "2026-12-07T00:00"]),
    ("0 0 29 feb *", "UTC", "2026-11-26T00:00", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
    ("0 0 L * *", "UTC", "2026-11-26T00:00", ["2026-11-30T00:00", "2026-12-31T00:00", "2027-01-31T00:00"]),
    ("@yearly", "UTC", "2026-11-26T00:00", ["2027-01-01T00:00", "2028-01-01T00:00", "2029-01-01T00:00"]),
    ("@monthly", "UTC", "2026-11-26T00:00", ["2026-12-01T00:00", "2027-01-01T00:00", "2027-02-01T00:00"]),
    ("@Weekly", "UTC", "2026-11-26T00:00", ["2026-11-29T00:00", "2026-12-06T00:00", "2026-12-13T00:00"]),
    ("@daily", BERLIN, "2026-11-26T00:00", ["2026-11-26T23:00", "2026-11-27T23:00", "2026-11-28T23:00"]),
    ("@hourly", "Asia/Kolkata", "2026-11-26T00:00", ["2026-11-26T00:30", "2026-11-26T01:30", "2026-11-26T02:30"]),
    # a local time that does not exist runs at the next instant that does: once
    ("30 2 * * *", BERLIN, SPRING, ["2026-03-29T01:00", "2026-03-30T00:30", "2026-03-31T00:30"]),
    ("0,30 2 * * *", BERLIN, SPRING, ["2026-03-29T01:00", "2026-03-30T00:00", "2026-03-30T00:30"]),
    ("*/30 2 * * *", BERLIN, SPRING, ["2026-03-29T01:00", "2026-03-30T00:00", "2026-03-30T00:30"]),
    ("0 2,3 * * *", BERLIN, SPRING, ["2026-03-29T01:00", "2026-03-30T00:00", "2026-03-30T01:00"]),
    ("0 */2 * * *", BERLIN, SPRING, ["2026-03-29T01:00", "2026-03-29T02:00", "2026-03-29T04:00"]),
    ("0 0 * * *", "America/Santiago", "2026-09-05T12:00", ["2026-09-06T04:00", "2026-09-07T03:00", "2026-09-08T03:00"]),
    ("0 2 30 12 *", "Pacific/Apia", "2011-12-01T00:00", ["2011-12-30T10:00", "2012-12-29T12:00", "2013-12-29T12:00"]),
    # one that exists twice runs once: the first time
    ("30 2 * * *", BERLIN, AUTUMN, ["2026-10-25T00:30", "2026-10-26T01:30", "2026-10-27T01:30"]),
    ("30 2 * * *", BERLIN, "2026-10-25T01:10", ["2026-10-26T01:30", "2026-10-27T01:30", "2026-10-28T01:30"]),
    ("*/30 2 * * *", BERLIN, AUTUMN, ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-26T01:00"]),
    ("0 */2 * * *", BERLIN, AUTUMN, ["2026-10-25T00:00", "2026-10-25T03:00", "2026-10-25T05:00"]),
    # every hour: with the hours that pass
    ("30 * * * *", BERLIN, SPRING, ["2026-03-29T00:30", "2026-03-29T01:30", "2026-03-29T02:30"]),
    ("0 * * * *", BERLIN, SPRING, ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:00"]),
    ("0 0-23 * * *", BERLIN, SPRING, ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:00"]),
    ("30 * * * *", BERLIN, AUTUMN, ["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T01:30"]),
    ("*/20 * * * *", BERLIN, "2026-10-25T00:40", ["2026-10-25T01:00", "2026-10-25T01:20", "2026-10-25T01:40"]),
    ("15 * * * *", "Australia/Lord_Howe", "2026-10-03T14:00", ["2026-10-03T14:45", "2026-10-03T15:30", "2026-10-03T16:15"]),
    ("15 * * * *", "Australia/Lord_Howe", "2026-04-04T13:00", ["2026-04-04T13:15", "2026-04-04T14:15", "2026-04-04T15:45"]),
    ("0 * 1 1 *", BERLIN, "2026-02-01T00:00", ["2026-12-31T23:00", "2027-01-01T00:00", "2027-01-01T01:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("cron", "timezone", "after", "wanted"), GOLDEN)
def test_the_next_ticks(cron: str, timezone: str, after: str, wanted: list[str]) -> None:
    assert ticks(cron, timezone, after) == wanted


def test_intervals_are_multiples_since_1970() -> None:
    table = make_timetable(None, 90, "UTC")
    assert list(itertools.islice(table.after(0), 2)) == [90_000, 180_000]
    assert next(table.after(179_999)) == 180_000
    assert next(table.after(180_000)) == 270_000
    assert make_timetable(None, 1.0, BERLIN) == Every(1000)
    assert make_timetable(None, 1.5, "UTC") == Every(1500)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("cron", {}),
    ("cron", {"cron": "* * * * *", "every": 60}),
    *[("cron", {"cron": bad}) for bad in (
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "a * * * *",
        "@reboot", "@", "5-1 * * * *", "*/0 * * * *", "0 0 31 feb *", "0 0 30 2 *", "1" * 5000 + " * * * *", 5, b"* * * * *",
    )],
    *[("every", {"every": bad}) for bad in (0, -1, 0.5, float("nan"), float("inf"), True, "60", 1e12)],
    *[("timezone", {"cron": "@daily", "timezone": bad}) for bad in (
        "", "Nowhere/At_All", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 5000, 5, None,
    )],
    ("timezone", {"every": 60, "timezone": "Nowhere/At_All"}),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "given"), BAD)
def test_what_is_no_timetable_is_refused_by_name(argument: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        make_timetable(given.get("cron"), given.get("every"), given.get("timezone", "UTC"))
    assert error.value.argument == argument


ZONES = ("UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata",
         "America/Havana", "Africa/Casablanca", "Pacific/Apia", "Asia/Beirut")  # fmt: skip
FIELDS = st.tuples(
    st.sampled_from(("*", "0", "30", "*/15", "0,59", "7-9", "*/30")),
    st.sampled_from(("*", "2", "*/2", "0", "1,2,3", "0-23", "23", "1-4")),
    st.sampled_from(("*", "1", "*/7", "25-31")),
    st.sampled_from(("*", "3", "10", "*/2")),
    st.sampled_from(("*", "sun", "mon-fri", "6,7")),
)
INSTANTS = st.datetimes(datetime(2011, 1, 1), datetime(2035, 1, 1)).map(
    lambda moment: round(moment.replace(tzinfo=UTC).timestamp() * 1000)
)


NAMES = {"sun": "0", "mon": "1", "fri": "5"}


def among(field: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        ends = (low, high) if span == "*" else [int(NAMES.get(end, end)) for end in span.split("-")]
        values |= set(range(ends[0], ends[-1] + 1, int(step or 1)))
    return values


def matcher(fields: tuple[str, ...]) -> Callable[[datetime], bool]:
    """Return what says whether a local time is meant: told anew, from the words of crontab(5)."""
    spans = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    minutes, hours, days, months, weekdays = (
        among(field, *span) for field, span in zip(fields, spans, strict=True)
    )
    weekdays = {day % 7 for day in weekdays}
    both = "*" in (fields[2][0], fields[4][0])

    def matches(local: datetime) -> bool:
        if local.minute not in minutes or local.hour not in hours or local.month not in months:
            return False
        of_days = (local.day in days, local.isoweekday() % 7 in weekdays)
        return all(of_days) if both else any(of_days)

    return matches


def expected(fields: tuple[str, ...], zone: ZoneInfo, start: int, until: int) -> list[int]:
    """Walk through every minute of a span, as it passes in the zone, and judge each."""
    every_hour, matches = fields[1] in {"*", "0-23"}, matcher(fields)
    wanted: set[int] = set()
    before: datetime | None = None
    for minute in range(start // 60_000 - 1, until // 60_000 + 1):
        instant = minute * 60_000
        local = datetime.fromtimestamp(minute * 60, UTC).astimezone(zone)
        wall = local.replace(tzinfo=None, fold=0)
        if before is not None and wall > before + timedelta(minutes=1):  # some are left out
            gap = [
                before + timedelta(minutes=n + 1)
                for n in range(int((wall - before).total_seconds() / 60) - 1)
            ]
            if any(map(matches, gap)) and (not every_hour or len(gap) % 60):
                wanted.add(instant)
        if matches(wall) and (every_hour or local.fold == 0):
            wanted.add(instant)
        before = wall
    return sorted(tick for tick in wanted if start < tick <= until)


@settings(max_examples=60, deadline=None)
@given(fields=FIELDS, zone=st.sampled_from(ZONES), begin=INSTANTS)
def test_every_minute_is_judged_as_crontab_and_the_zone_say(
    fields: tuple[str, ...], zone: str, begin: int
) -> None:
    table = make_timetable(" ".join(fields), None, zone)
    span = 86_400_000
    found = list(itertools.takewhile(lambda tick: tick <= begin + span, table.after(begin)))
    assert found == expected(fields, ZoneInfo(zone), begin, begin + span)


CHANGES = [
    ("2026-03-29T01:00", BERLIN), ("2026-10-25T01:00", BERLIN), ("2026-03-08T07:00", "America/New_York"),
    ("2026-11-01T06:00", "America/New_York"), ("2026-10-03T15:30", "Australia/Lord_Howe"),
    ("2026-04-04T15:00", "Australia/Lord_Howe"), ("2026-09-06T04:00", "America/Santiago"),
    ("2026-03-08T05:00", "America/Havana"), ("2011-12-30T10:00", "Pacific/Apia"),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    fields=FIELDS,
    change=st.sampled_from(CHANGES),
    offset=st.integers(-5 * 3600, 2 * 3600),
)
def test_the_same_across_changes_of_the_clocks(
    fields: tuple[str, ...], change: tuple[str, str], offset: int
) -> None:
    fields = (*fields[:2], "*", "*", "*")
    begin = at(change[0]) + offset * 1000
    until = begin + 8 * 3600_000
    table = make_timetable(" ".join(fields), None, change[1])
    found = list(itertools.takewhile(lambda tick: tick <= until, table.after(begin)))
    assert found == expected(fields, ZoneInfo(change[1]), begin, until)


@settings(max_examples=60, deadline=None)
@given(fields=FIELDS, zone=st.sampled_from(ZONES), begin=INSTANTS, count=st.integers(1, 5))
def test_ticks_are_the_same_wherever_one_begins(
    fields: tuple[str, ...], zone: str, begin: int, count: int
) -> None:
    table = make_timetable(" ".join(fields), None, zone)
    assert isinstance(table, Cron)
    found = list(itertools.islice(table.after(begin), count))
    assert found == sorted(set(found))
    assert all(tick > begin and tick % 60_000 == 0 for tick in found)
    at_once = begin
    for tick in found:
        assert next(table.after(at_once)) == tick
        assert next(table.after(tick - 1)) == tick
        at_once = tick
