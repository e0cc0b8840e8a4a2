"""Checks of arguments: taken unchanged, or refused with an error that names the argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import InvalidArgumentError
from jobqueue.model.checks import (
    check_bool,
    check_count,
    check_id,
    check_instant,
    check_number,
    check_queue_name,
    check_seconds,
    instant,
    millis,
)


@given(st.text())
def test_ids_are_taken_or_refused_and_never_changed(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    control = any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    if 1 <= size <= 256 and not control:
        assert check_id(text) is text
    else:
        with pytest.raises(InvalidArgumentError):
            check_id(text)


@given(st.text(max_size=70))
def test_queue_names(text: str) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    if 1 <= len(text) <= 64 and set(text) <= allowed:
        assert check_queue_name(text) == text
    else:
        with pytest.raises(InvalidArgumentError):
            check_queue_name(text)


@given(st.floats(0, 3e9))
def test_milliseconds_are_never_early(seconds: float) -> None:
    ms = millis(seconds)
    assert isinstance(ms, int)
    assert ms >= seconds * 1000 - 1e-6 * max(1.0, seconds * 1e-6)
    assert ms - seconds * 1000 < 1.001


@pytest.mark.parametrize(
    ("seconds", "ms"), [(0, 0), (0.001, 1), (1.1, 1100), (0.0001, 1), (2.0, 2000), (0.3, 300)]
)
def test_milliseconds(seconds: float, ms: int) -> None:
    assert millis(seconds) == ms


def test_checks_return_what_they_checked() -> None:
    assert check_seconds("s", 0, zero=True) == 0
    assert check_seconds("s", 0.5) == 0.5
    assert check_count("c", 0, low=0) == 0
    assert check_number("n", -2.5) == -2.5
    assert check_bool("b", True) is True
    with pytest.raises(InvalidArgumentError, match="at most 100 years"):
        check_seconds("s", 10**12)


def test_instants_are_rounded_up_to_milliseconds() -> None:
    at = datetime(2030, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert check_instant("at", at) == int(at.timestamp()) * 1000 + 1
    there = at.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    assert check_instant("at", there) == check_instant("at", at)
    assert check_instant("at", datetime(1950, 1, 1, tzinfo=UTC)) == 0


@pytest.mark.parametrize("hours", [-12, 0, 14])
def test_every_instant_that_is_taken_can_be_read_back(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    for extreme in (datetime.max.replace(tzinfo=zone), datetime.min.replace(tzinfo=zone)):
        at = check_instant("at", extreme)
        assert check_instant("at", instant(at)) == at
    assert instant(2**63).year == 9999
    assert instant(-5) == datetime(1970, 1, 1, tzinfo=UTC)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [10**5000, "x" * 9999, Unshowable()], ids=["int", "str", "object"])
def test_what_is_refused_is_shown_shortly(value: Any) -> None:
    for check in (check_seconds, check_count, partial(check_number, high=5.0)):
        with pytest.raises(InvalidArgumentError) as caught:
            check("n", value)
        assert len(str(caught.value)) < 250
    with pytest.raises(InvalidArgumentError) as caught:
        check_queue_name(value)
    assert len(str(caught.value)) < 250
