"""The guard's decisions, and the tokens that name its jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.model.headers import decode_headers, encode_headers
from jobqueue.storage.guard.policy import Breaker, BreakerState, Pace
from jobqueue.storage.guard.tags import new_token, number_of, tagged_job, untag
from jobqueue.storage.values import NewJob


def test_a_breaker_opens_tries_once_and_closes() -> None:
    breaker = Breaker(failures=3, reset=60.0)
    for now in (0.0, 1.0):
        assert breaker.admits(now)
        breaker.failed_at(now)
    assert breaker.state(1.0) is BreakerState.CLOSED
    breaker.failed_at(2.0)
    assert breaker.state(61.9) is BreakerState.OPEN
    assert not breaker.admits(61.9)
    assert breaker.state(62.0) is BreakerState.HALF_OPEN
    assert breaker.admits(62.0)
    assert not breaker.admits(62.0), "one call tries"
    breaker.failed_at(63.0)
    assert breaker.state(122.0) is BreakerState.OPEN
    assert breaker.admits(123.0)
    breaker.succeeded()
    assert breaker.state(123.0) is BreakerState.CLOSED


def test_a_success_in_between_counts() -> None:
    breaker = Breaker(failures=2, reset=60.0)
    for _ in range(5):
        breaker.failed_at(0.0)
        breaker.succeeded()
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_the_pace_follows_the_work() -> None:
    pace = Pace(30.0)
    for _ in range(2):
        pace.note(0)
    assert pace.seconds == 30.0
    pace.note(0)
    assert pace.seconds == 45.0
    for _ in range(20):
        pace.note(0)
    assert pace.seconds == 120.0
    pace.note(1)
    assert pace.seconds == pytest.approx(96.0)
    for _ in range(40):
        pace.note(5)
    assert pace.seconds == 7.5


@given(headers=st.binary(max_size=200) | st.sampled_from([b"", b"{}", b'{"a":"b"}', b"{", b'{"', b"null"]))
def test_headers_come_back_as_they_were(headers: bytes) -> None:
    token = new_token(1_700_000_000.0)
    assert untag(tagged_job(token, NewJob("a", b"", headers=headers)).headers) == (token, headers)


@given(headers=st.binary(max_size=200))
def test_other_headers_have_no_token(headers: bytes) -> None:
    assert untag(headers) == (None, headers)


def test_workers_without_a_guard_read_the_headers() -> None:
    headers = encode_headers({"traceparent": "00-1", "a": "ü"})
    tagged = tagged_job(new_token(1_700_000_000.0), NewJob("a", b"", headers=headers)).headers
    assert {"traceparent": "00-1", "a": "ü"}.items() <= decode_headers(tagged).items()


@pytest.mark.parametrize(
    "headers",
    [
        b'{"jobqueue-guard":"',
        b'{"jobqueue-guard":"00000000000000000000000000000000',
        b'{"jobqueue-guard":"0000000000000000000000000000000g"}',
        b'{"jobqueue-guard":"00000000000000000000000000000000":1}',
        b'{"jobqueue-guard":"0000000000000000 000000000000000"}',
    ],
)
def test_what_only_looks_like_a_token(headers: bytes) -> None:
    assert untag(headers) == (None, headers)


def test_tokens_rise_and_are_never_the_same() -> None:
    tokens = [new_token(1_700_000_000.0) for _ in range(5000)]
    assert tokens == sorted(tokens)
    numbers = [number_of(token) for token in tokens]
    assert len(set(numbers)) == len(numbers)
    assert 1 << 51 < numbers[0] < numbers[-1] < 1 << 53
