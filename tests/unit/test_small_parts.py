"""Errors, backoff, checks, ids and records."""

from __future__ import annotations

import copy
import os
import pickle
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import (
    Backoff,
    ErrorInfo,
    FailureReason,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    JobState,
    MaxRetriesError,
    ResultExpiredError,
)
from jobqueue.job import STALLED_ERROR, encode_error
from jobqueue.options import (
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
from jobqueue.records import ended_error, job_status
from jobqueue.runtime import SYSTEM_CLOCK, Clock, unique_id
from jobqueue.storage.base import Record

# -- errors -------------------------------------------------------------------------------------------


def test_errors_survive_a_copy() -> None:
    failed = MaxRetriesError("a", ErrorInfo("ValueError", "bad"), 3, "error")
    for again in (pickle.loads(pickle.dumps(failed)), copy.copy(failed)):
        assert type(again) is MaxRetriesError
        assert (again.job_id, again.error, again.attempts, again.reason) == ("a", failed.error, 3, "error")
        assert str(again) == str(failed) == "job 'a' failed (error) after 3 attempts: ValueError: bad"
    bad = InvalidArgumentError("name", "must be: good")
    again = pickle.loads(pickle.dumps(bad))
    assert (again.argument, str(again)) == ("name", "name: must be: good")


def test_one_attempt_is_no_plural() -> None:
    assert "after 1 attempt:" in str(JobFailedError("a", ErrorInfo("E", ""), 1, "fatal"))


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("error", MaxRetriesError), ("timeout", MaxRetriesError), ("fatal", JobFailedError),
     ("serialization", JobFailedError), ("stalled", JobFailedError)],
)  # fmt: skip
def test_which_error_stands_for_an_end(reason: str, kind: type[Exception]) -> None:
    error = ended_error("a", JobState.FAILED, encode_error(ErrorInfo("E", "m"), reason), 2)
    assert type(error) is kind
    assert isinstance(error, JobFailedError)
    assert (error.reason, error.attempts) == (reason, 2)


def test_a_cancelled_end_and_one_without_an_error() -> None:
    assert isinstance(ended_error("a", JobState.CANCELLED, None, 0), JobCancelledError)
    assert "cannot be read" in str(ended_error("a", JobState.FAILED, b"", 1))
    gone = ended_error("a", JobState.FAILED, None, 2)
    assert type(gone) is JobFailedError
    assert (gone.reason, gone.attempts) == ("unknown", 2)
    assert "expired before it was read" in str(gone)
    assert type(ended_error("a", JobState.COMPLETED, None, 1)) is ResultExpiredError
    assert FailureReason.STALLED in str(ended_error("a", JobState.FAILED, STALLED_ERROR, 1))


# -- backoff ------------------------------------------------------------------------------------------


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def test_exponential_backoff() -> None:
    backoff = Backoff.exponential(0.5, factor=3, max=10)
    assert [backoff.delay(n, middle) for n in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1.5, 4.5, 10, 10, 10]
    assert repr(backoff) == "Backoff.exponential(0.5, factor=3, max=10, jitter=0.1)"
    assert Backoff.exponential(50, max=10, jitter=0).delay(1) == 10
    assert Backoff.exponential(0).delay(5, middle) == 0


@pytest.mark.parametrize("attempts", [1, 1024, 1025, 2**31 - 1])
def test_exponential_backoff_after_very_many_attempts(attempts: int) -> None:
    assert Backoff.exponential(0).delay(attempts) == 0
    assert Backoff.exponential(0, factor=7, max=5).delay(attempts) == 0
    assert Backoff.exponential(3, factor=1, jitter=0).delay(attempts) == 3
    assert Backoff.exponential(5, factor=5, max=60, jitter=0).delay(attempts) in {5, 60}
    hundred_years = 100 * 365 * 86400.0
    assert Backoff.exponential(hundred_years, max=hundred_years, jitter=1).delay(attempts) <= hundred_years


def test_jitter_is_drawn_to_both_sides_and_after_the_cap() -> None:
    asked: list[tuple[float, float]] = []

    def low(a: float, b: float) -> float:
        asked.append((a, b))
        return a

    assert Backoff.exponential(1, max=30, jitter=0.25).delay(99, low) == 22.5
    assert asked == [(0.75, 1.25)]
    assert {Backoff.exponential(8, jitter=0).delay(1) for _ in range(5)} == {8}
    drawn = [Backoff.exponential(10, jitter=0.5).delay(1) for _ in range(200)]
    assert 5 <= min(drawn) < 7 < 13 < max(drawn) <= 15


def test_fixed_and_custom_backoff() -> None:
    assert [Backoff.fixed(2.5).delay(n) for n in (1, 2, 50)] == [2.5] * 3
    assert [Backoff.custom(lambda n: n * n).delay(n) for n in (1, 2, 3)] == [1, 4, 9]
    assert "custom" in repr(Backoff.custom(abs))
    assert repr(Backoff.fixed(2)) == "Backoff.fixed(2)"
    for nonsense in (-1, "x", None, float("nan")):
        with pytest.raises(InvalidArgumentError, match="backoff"):
            Backoff.custom(lambda n, nonsense=nonsense: nonsense).delay(1)  # type: ignore[misc]


# -- checks -------------------------------------------------------------------------------------------


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


# -- ids ----------------------------------------------------------------------------------------------


def test_unique_ids_are_valid_and_unlike() -> None:
    ids = [unique_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(check_id(id) == id and len(id) < 64 for id in ids)


def test_a_forked_child_makes_other_ids() -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, unique_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read()
    assert theirs.rpartition("-")[0] != unique_id().rpartition("-")[0]


async def test_the_system_clock() -> None:
    import asyncio

    assert isinstance(SYSTEM_CLOCK, Clock)
    assert not SYSTEM_CLOCK.virtual
    woken = asyncio.Event()
    SYSTEM_CLOCK.call_later(0.001, woken.set)
    before = SYSTEM_CLOCK.monotonic()
    await SYSTEM_CLOCK.sleep(0.002)
    await asyncio.wait_for(woken.wait(), 5)
    assert SYSTEM_CLOCK.monotonic() > before
    assert abs(SYSTEM_CLOCK.time() - datetime.now(UTC).timestamp()) < 5
    assert 1 <= SYSTEM_CLOCK.uniform(1, 2) <= 2


# -- records ------------------------------------------------------------------------------------------


def record(**fields: Any) -> Record:
    values = dict.fromkeys(Record._fields, 0) | {"id": "a", "state": JobState.QUEUED}
    values |= dict.fromkeys(("worker", "lease_until", "result", "error", "progress", "expires_at", "payload"))
    return Record(**(values | fields))


def test_the_public_view_of_a_record() -> None:
    status = job_status(
        record(created_at=1500, run_at=2500, attempts=2, worker="w", expires_at=9000), "r", "p"
    )
    assert status.created_at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert status.run_at == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    assert status.expires_at == datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC)
    assert (status.result, status.progress, status.worker_id, status.attempts) == ("r", "p", "w", 2)
    assert status.error is None
    failed = job_status(record(error=encode_error(ErrorInfo("E", "m"), "error")), None, None)
    assert failed.error == ErrorInfo("E", "m")
