"""Limits: what may start, and when more may."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.limits import Limit, Limits, Rate, admit, clamped, opens_at
from jobqueue.storage.rules import pack_rules, parse_rules
from jobqueue.storage.values import Rules
from tests.model.limit_vectors import vectors

NOW = 1_764_000_000_000
counts = st.integers(1, 1_000_000)
rates = st.builds(Rate, st.integers(1, 5_000), st.sampled_from((0.001, 0.1, 1.0, 60.0)), st.integers(1, 50))
limits = st.builds(Limit, st.one_of(st.none(), st.integers(1, 20)), st.one_of(st.none(), rates))


# -- rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "interval", "tolerance"),
    [
        (Rate(1), 1_000_000, 999),
        (Rate(3), 333_334, 999),
        (Rate(100, per=60.0), 600_000, 999),
        (Rate(10, burst=5), 100_000, 400_000),
        (Rate(2_000), 500, 999),
        (Rate(1, per=86_400.0), 86_400_000_000, 999),
    ],
)
def test_intervals_are_rounded_up(rate: Rate, interval: int, tolerance: int) -> None:
    assert (rate.interval, rate.tolerance) == (interval, tolerance)


def test_the_time_of_a_rate_is_in_whole_milliseconds() -> None:
    assert Rate(1, per=0.0011).per == 0.002
    assert Rate(1, per=1) == Rate(1, per=1.0)
    assert Rate(7, per=1.1).per == 1.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("count", bad) for bad in (0, -1, 1.5, True, "3", None, math.nan, 10**9)),
        *(("per", bad) for bad in (0, -1.0, math.nan, math.inf, True, "1", None, 0.0001, 1e9)),
        *(("burst", bad) for bad in (0, -1, 1.5, True, "3", None, 10**9)),
    ],
)
def test_a_bad_rate_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Rate(**{"count": 1, name: value})
    assert caught.value.argument == name


def test_a_burst_that_is_worth_years_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="366 days"):
        Rate(1, per=86_400.0, burst=1_000)


@pytest.mark.parametrize("name", ["running", "group_running", "rate", "group_rate"])
def test_a_bad_limit_is_refused_by_its_name(name: str) -> None:
    for value in (0, -1, 1.5, True, "3", math.nan, (1, 1.0)):
        with pytest.raises(InvalidArgumentError) as caught:
            Limits(**{name: value})
        assert caught.value.argument == name
    assert Limits() == Limits(**{name: None})


def test_a_limit_of_nothing_names_the_pause() -> None:
    with pytest.raises(InvalidArgumentError, match="pause"):
        Limits(running=0)


# -- admission -------------------------------------------------------------------------------------


@given(limits, st.integers(0, 30), st.integers(0, 10**6), st.integers(0, 60))
def test_one_by_one_and_together_come_to_the_same(limit: Limit, running: int, ahead: int, want: int) -> None:
    tat = NOW * 1000 + ahead
    granted, after = admit(limit, running, tat, NOW, want)
    single, alone = 0, clamped(limit, tat, NOW)
    for _ in range(want):
        one, alone = admit(limit, running + single, alone, NOW, 1)
        single += one
    assert (granted, after) == (single, alone)


@given(limits, st.integers(0, 30), st.integers(0, 10**8))
def test_opens_at_is_the_first_instant_at_which_one_may_start(limit: Limit, running: int, ahead: int) -> None:
    tat = clamped(limit, NOW * 1000 + ahead, NOW)
    at = opens_at(limit, running, tat)
    if at is None:
        assert limit.running is not None
        assert running >= limit.running
        assert admit(limit, running, tat, NOW * 2, 1)[0] == 0
        return
    assert admit(limit, running, tat, max(at, NOW), 1)[0] == 1
    if at > NOW:
        assert admit(limit, running, tat, at - 1, 1)[0] == 0


@given(rates, st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_no_window_has_more_starts_than_the_rate_and_the_burst(rate: Rate, pauses: list[int]) -> None:
    now, tat, starts = NOW, 0, list[tuple[int, int]]()
    for pause in pauses:
        now += pause
        granted, tat = admit(Limit(rate=rate), 0, tat, now, 1_000)
        starts.append((now, granted))
    for place, (first, _) in enumerate(starts):
        total = 0
        for last, granted in starts[place:]:
            total += granted
            span = (last - first) * 1000 + 999  # a start counts for the millisecond that has begun
            assert total <= rate.burst + span // rate.interval + 1


def test_a_steady_worker_gets_the_whole_rate() -> None:
    rate, now, tat, started = Rate(50), NOW, 0, 0
    while now < NOW + 10_000:
        granted, tat = admit(Limit(rate=rate), 0, tat, now, 10)
        started += granted
        now += 1
    assert started == 500


def test_more_than_one_a_millisecond() -> None:
    limit, tat, started = Limit(rate=Rate(5_000)), 0, 0
    for now in range(NOW, NOW + 1_000):
        granted, tat = admit(limit, 0, tat, now, 100)
        started += granted
    assert 4_990 <= started <= 5_010


@pytest.mark.parametrize("back", [1, 1_000, 3_600_000])
def test_a_clock_that_was_set_back_closes_a_rate_for_one_interval(back: int) -> None:
    limit = Limit(rate=Rate(10))
    _, tat = admit(limit, 0, 0, NOW, 1)
    granted, tat = admit(limit, 0, tat, NOW - back, 1)
    assert granted == 0
    assert admit(limit, 0, tat, NOW - back + 101, 1)[0] == 1


def test_all_numbers_are_exact_in_a_double() -> None:
    late = 4_102_444_800_000  # the year 2100
    rate = Rate(1, per=366 * 86_400.0)
    _, tat = admit(Limit(rate=rate), 0, 0, late, 1)
    assert clamped(Limit(rate=rate), 2**60, late) < 2**53
    assert tat < 2**53


def test_golden_vectors() -> None:
    """What Lua and SQL are compared with elsewhere is what the rules say, a start at a time."""
    for limit, running, tat, now, want, granted, after, opens in vectors(2_000):
        assert admit(limit, running, tat, now, want) == (granted, after)
        assert opens_at(limit, running, after) == opens
        assert granted <= want
        if limit.rate is None:
            assert after == tat


# -- the stored form -------------------------------------------------------------------------------


@given(limits, limits, st.booleans(), st.booleans())
def test_rules_come_back_from_their_stored_form(
    queue: Limit, group: Limit, paused: bool, operator: bool
) -> None:
    rules = Rules(paused, queue, group, operator)
    assert parse_rules(pack_rules(rules)) == rules
    assert pack_rules(parse_rules(pack_rules(rules))) == pack_rules(rules)


@pytest.mark.parametrize(
    "text",
    [
        '{"queue":3}', '{"queue":null}', '{"queue":{"running":0}}', '{"queue":{"running":true}}',
        '{"queue":{"running":"3"}}', '{"queue":{"later":1}}', '{"group":{"rate":5}}',
        '{"group":{"rate":{"count":1,"per":1000}}}', '{"group":{"rate":{"count":0,"per":1000,"burst":1}}}',
        '{"group":{"rate":{"count":1,"per":1000,"burst":1,"more":1}}}', '{"operator":1}', '{"weights":{}}',
        '{"group":{"rate":{"count":1,"per":1e400,"burst":1}}}',
    ],
)  # fmt: skip
def test_rules_that_are_not_known_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"version|none"):
        parse_rules(text)


def test_the_seed_gives_the_same_vectors() -> None:
    state = random.getstate()
    assert vectors(5) == vectors(5)
    assert random.getstate() == state
