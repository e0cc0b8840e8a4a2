"""The pure part of a job: transitions, outcomes and stored errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import AbortedReason, ErrorInfo, FailureReason, Fatal, JobState, Retry
from jobqueue.model.outcomes import (
    MAX_SUMMARY,
    STALLED_ERROR,
    Aborted,
    Raised,
    RetryAsked,
    Returned,
    Settlement,
    aborted_outcome,
    decode_error,
    encode_error,
    settle,
    summarize_error,
)
from jobqueue.model.states import ENDED, TRANSITIONS, WAITING, Action
from jobqueue.storage.values import Claimed

ERROR = ErrorInfo("ValueError", "bad")


def attempt(attempts: int = 1, max_attempts: int = 3) -> Claimed:
    return Claimed("a", b"", 7, attempts, max_attempts, 500, 0)


def no_backoff(attempts: int) -> int:
    raise AssertionError("not to be asked")


def test_every_state_is_live_or_ended() -> None:
    assert ENDED | WAITING | {JobState.PROCESSING} == set(JobState)
    assert not ENDED & WAITING


def test_nothing_leads_out_of_an_ended_state() -> None:
    assert {state for state, _ in TRANSITIONS} & ENDED == set()


def test_the_moves_of_a_running_job() -> None:
    moves = {action: to for (state, action), to in TRANSITIONS.items() if state is JobState.PROCESSING}
    assert {action.value: to.value for action, to in moves.items()} == {
        "complete": "completed",
        "fail": "failed",
        "retry": "failing",
        "release": "queued",
        "recover": "queued",
        "abandon": "failed",
        "cancel": "cancelled",
    }
    assert {move for move, to in TRANSITIONS.items() if to is JobState.PROCESSING} == {
        (JobState.QUEUED, Action.CLAIM)
    }


CASES: list[tuple[Any, int, Any]] = [
    (Returned(b"r"), 1, Settlement("a", 7, Action.COMPLETE, b"r", 500)),
    (
        Raised(ERROR),
        1,
        Settlement(
            "a", 7, Action.RETRY, encode_error(ERROR, "error"), 500, 1001, summarize_error(ERROR, "error")
        ),
    ),
    (
        Raised(ERROR),
        2,
        Settlement(
            "a", 7, Action.RETRY, encode_error(ERROR, "error"), 500, 1002, summarize_error(ERROR, "error")
        ),
    ),
    (
        Raised(ERROR),
        3,
        Settlement(
            "a", 7, Action.FAIL, encode_error(ERROR, "error"), 500, 0, summarize_error(ERROR, "error")
        ),
    ),
    (
        Raised(ERROR),
        4,
        Settlement(
            "a", 7, Action.FAIL, encode_error(ERROR, "error"), 500, 0, summarize_error(ERROR, "error")
        ),
    ),
    (
        Raised(ERROR, FailureReason.FATAL),
        1,
        Settlement(
            "a", 7, Action.FAIL, encode_error(ERROR, "fatal"), 500, 0, summarize_error(ERROR, "fatal")
        ),
    ),
    (
        RetryAsked(ERROR, None),
        9,
        Settlement(
            "a", 7, Action.RETRY, encode_error(ERROR, "error"), 500, 1009, summarize_error(ERROR, "error")
        ),
    ),
    (
        RetryAsked(ERROR, 0.25),
        9,
        Settlement(
            "a", 7, Action.RETRY, encode_error(ERROR, "error"), 500, 250, summarize_error(ERROR, "error")
        ),
    ),
    (
        RetryAsked(ERROR, 0),
        9,
        Settlement(
            "a", 7, Action.RETRY, encode_error(ERROR, "error"), 500, 0, summarize_error(ERROR, "error")
        ),
    ),
    (Aborted(AbortedReason.CANCELLED), 1, Settlement("a", 7, Action.CANCEL, b"", 500)),
    (Aborted(AbortedReason.SHUTDOWN), 1, Settlement("a", 7, Action.RELEASE, b"", 500)),
    (Aborted(AbortedReason.LEASE_LOST), 1, None),
]


@pytest.mark.parametrize(("outcome", "attempts", "expected"), CASES, ids=repr)
def test_what_becomes_of_an_outcome(outcome: Any, attempts: int, expected: Settlement | None) -> None:
    assert settle(attempt(attempts), outcome, 500, lambda n: 1000 + n) == expected


@pytest.mark.parametrize(("attempts", "action"), [(1, Action.RETRY), (3, Action.FAIL)])
def test_a_timeout_is_an_error_of_its_own_kind(attempts: int, action: Action) -> None:
    settlement = settle(attempt(attempts), aborted_outcome(AbortedReason.TIMEOUT), 500, lambda n: 5)
    assert settlement is not None
    info, reason = decode_error(settlement.data)
    assert (settlement.action, info.type, reason) == (action, "TimeoutError", "timeout")


@pytest.mark.parametrize("reason", [FailureReason.FATAL, FailureReason.SERIALIZATION, FailureReason.STALLED])
def test_some_failures_are_final_at_once(reason: FailureReason) -> None:
    settlement = settle(attempt(), Raised(ERROR, reason), 500, no_backoff)
    assert settlement is not None
    assert settlement.action is Action.FAIL


@given(st.text(), st.text(), st.none() | st.text(), st.sampled_from(list(FailureReason)))
def test_errors_round_trip(type_: str, message: str, traceback: str | None, reason: FailureReason) -> None:
    info = ErrorInfo(type_[:512], message, traceback)
    assert decode_error(encode_error(info, reason)) == (info, reason)


def test_stored_errors_are_bounded() -> None:
    info = ErrorInfo("T" * 10_000, "m" * 10_000, "begin" + "t" * 100_000 + "end")
    again, _ = decode_error(encode_error(info, "error"))
    assert (len(again.type), len(again.message), len(again.traceback or "")) == (512, 4096, 32_768)
    assert (again.traceback or "").endswith("end")


@given(st.text(), st.text(min_size=1), st.integers(1, 3000), st.sampled_from(list(FailureReason)))
def test_summaries_keep_as_much_of_the_message_as_fits(
    type_: str, message: str, times: int, reason: FailureReason
) -> None:
    message *= times
    summary = summarize_error(ErrorInfo(type_, message, "traceback"), reason)
    assert len(summary) <= MAX_SUMMARY
    info, told = decode_error(summary)
    assert (info.type, told, info.traceback) == (type_[:100], reason, None)
    assert message.startswith(info.message)
    if info.message != message:
        assert len(summary) > MAX_SUMMARY - 12  # the next character, escaped, would not have fitted


@pytest.mark.parametrize("character", ["m", '"', "\n", "\ud800", "ä", "\U0001f600"])
def test_summaries_are_bounded_whatever_the_error_is_made_of(character: str) -> None:
    summary = summarize_error(ErrorInfo(character * 5_000, character * 50_000, "t" * 9_000), "error")
    assert MAX_SUMMARY - 12 < len(summary) <= MAX_SUMMARY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff",
        b"5",
        b'{"type":"x"}',
        b"[" * 99_999,
    ],
    ids=lambda data: ascii(data)[:20],
)
def test_foreign_errors_are_read_as_unknown(data: bytes) -> None:
    info, reason = decode_error(data)
    assert (info.type, reason) == ("unknown", "unknown")


@pytest.mark.parametrize("reason", ["outgrown", None, 5, ["error"], {}])
def test_a_reason_of_another_version_hides_nothing_else(reason: object) -> None:
    data = json.dumps({"type": "ValueError", "message": "bad", "reason": reason}).encode()
    assert decode_error(data) == (ErrorInfo("ValueError", "bad"), FailureReason.UNKNOWN)


def test_foreign_errors_are_bounded() -> None:
    data = json.dumps(dict.fromkeys(("type", "message", "traceback"), "x" * 100_000)).encode()
    info, _ = decode_error(data)
    assert (len(info.type), len(info.message), len(info.traceback or "")) == (512, 4096, 32_768)


def test_what_is_not_text_becomes_text() -> None:
    data = json.dumps({"type": 1, "message": None, "reason": "fatal", "traceback": 5}).encode()
    assert decode_error(data) == (ErrorInfo("1", "None", "5"), FailureReason.FATAL)


def test_the_error_of_a_stalled_job() -> None:
    info, reason = decode_error(STALLED_ERROR)
    assert (info.type, reason) == ("Stalled", "stalled")


def test_requests_of_a_handler() -> None:
    assert Retry().delay is None
    assert Retry(2.5).delay == 2.5
    assert str(Fatal("why")) == "why"
