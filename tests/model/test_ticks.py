"""Which ticks are due, what is caught up, and what the jobs are called."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.model.ticks import PUNCTUAL, CatchUp, due_ticks, jitter_of, next_tick, tick_id
from jobqueue.model.timetable import Every, make_timetable

MINUTE, HOUR = 60_000, 3_600_000
HOURLY = Every(HOUR)
SKIP, LAST, ALL = CatchUp

GOLDEN = [
    # mark, now, what is due with skip, last and all
    (0, HOUR - 1, [], [], []),
    (0, HOUR, [1], [1], [1]),
    (HOUR - 1, HOUR, [1], [1], [1]),
    (HOUR, HOUR + 5, [], [], []),
    (0, HOUR + MINUTE, [1], [1], [1]),  # a minute late: a failover is no downtime
    (0, HOUR + MINUTE + 1, [], [1], [1]),
    (0, 5 * HOUR + MINUTE + 1, [], [5], [1, 2, 3, 4, 5]),
    (0, 5 * HOUR + 1, [5], [5], [1, 2, 3, 4, 5]),
    (3 * HOUR, 5 * HOUR + 1, [5], [5], [4, 5]),
    (5 * HOUR, 2 * HOUR, [], [], []),  # the clock was set back
]


@pytest.mark.parametrize(("mark", "now", "skip", "last", "all_of_them"), GOLDEN)
def test_ticks_in_golden_cases(
    mark: int, now: int, skip: list[int], last: list[int], all_of_them: list[int]
) -> None:
    for catch_up, hours in ((SKIP, skip), (LAST, last), (ALL, all_of_them)):
        due = due_ticks(HOURLY, mark, now, catch_up, 100)
        assert due == ([hour * HOUR for hour in hours], max(mark, now), False)


def test_of_many_short_intervals_the_last_minute_is_never_left_out() -> None:
    now = 100 * HOUR
    for catch_up in (SKIP, LAST):
        due = due_ticks(Every(1000), 0, now, catch_up, 1000)
        assert due.ticks == list(range(now - PUNCTUAL, now + 1, 1000))


def test_much_is_asked_for_in_parts() -> None:
    mark, found = 0, []
    while True:
        due = due_ticks(HOURLY, mark, 10 * HOUR + 1, ALL, 4)
        assert len(due.ticks) <= 4
        found += due.ticks
        assert due.mark >= mark
        mark = due.mark
        if not due.more:
            break
        assert due.mark == due.ticks[-1]
    assert (found, mark) == ([hour * HOUR for hour in range(1, 11)], 10 * HOUR + 1)


def test_the_last_of_years_is_found_without_looking_at_all() -> None:
    table = make_timetable("* * * * *", None, "Europe/Berlin")
    year = 365 * 24 * HOUR
    assert due_ticks(table, 0, 50 * year + 30_000, LAST, 10).ticks == [50 * year]
    yearly = make_timetable("@yearly", None, "UTC")
    assert due_ticks(yearly, 0, 40 * year, LAST, 10).ticks == [(39 * 365 + 10) * 24 * HOUR]
    assert due_ticks(yearly, 0, year // 2, LAST, 10).ticks == []


def test_ids_and_next_ticks() -> None:
    assert tick_id("report", 1_795_658_400_000) == "report@2026-11-26T02:00:00Z"
    assert tick_id("ü", 1500) == "ü@1970-01-01T00:00:01Z"
    assert next_tick(HOURLY, HOUR) == 2 * HOUR


def test_jitter_is_the_same_for_everybody_and_spreads() -> None:
    ids = [tick_id("report", tick * HOUR) for tick in range(1000)]
    drawn = [jitter_of(id, 60_000) for id in ids]
    assert drawn == [jitter_of(id, 60_000) for id in ids]
    assert all(0 <= each <= 60_000 for each in drawn)
    assert len({each // 6000 for each in drawn}) >= 10
    assert jitter_of("a", 0) == 0
    assert jitter_of("report@2026-11-26T02:00:00Z", 30_000) == 26_648


def upto(table: Every, after: int, until: int) -> list[int]:
    return list(itertools.takewhile(lambda tick: tick <= until, table.after(after)))


@given(
    interval=st.integers(1000, 400_000),
    mark=st.integers(0, 10**9),
    steps=st.lists(st.integers(0, 500_000), min_size=1, max_size=30),
    catch_up=st.sampled_from(CatchUp),
    most=st.integers(1, 50),
)
def test_each_tick_is_decided_once_and_punctual_ones_are_enqueued(
    interval: int, mark: int, steps: list[int], catch_up: CatchUp, most: int
) -> None:
    table, now, start = Every(interval), mark, mark
    found: list[int] = []
    for step in steps:
        now += step
        while True:
            before = mark
            due = due_ticks(table, mark, now, catch_up, most)
            assert all(before < tick <= now for tick in due.ticks)
            wanted = upto(table, before, now)
            punctual = [tick for tick in wanted if tick >= now - PUNCTUAL]
            if catch_up is ALL:
                assert due.ticks == wanted[:most]
            elif punctual:
                assert due.ticks == punctual[:most]
            else:
                assert due.ticks == (wanted[-1:] if catch_up is LAST else [])
            found += due.ticks
            mark = due.mark
            if not due.more:
                break
    assert mark == now
    assert found == sorted(set(found))
    if catch_up is ALL:
        assert found == upto(table, start, now)
