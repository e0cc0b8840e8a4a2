"""A job that meets workers without its handler: put back with growing pauses, then failed; never counted."""

from __future__ import annotations

import pytest

from jobqueue.errors import ErrorInfo
from jobqueue.model.missing_handler import left_to_others, missing_handler, uncounted
from jobqueue.model.outcomes import FailureReason, Raised, RetryAsked, summarize_error
from jobqueue.storage.values import AttemptRecord


def entry(at: float, attempt: int, reason: FailureReason = FailureReason.NO_HANDLER) -> AttemptRecord:
    return AttemptRecord(int(at * 1000), attempt, "w", summarize_error(ErrorInfo("E", "m"), reason))


def test_pauses_double_until_the_patience_is_over() -> None:
    history: list[AttemptRecord] = []
    now, pauses = 100.0, []
    while isinstance(outcome := missing_handler("send", history, len(history), 60.0), RetryAsked):
        assert outcome.reason is FailureReason.NO_HANDLER
        assert outcome.delay is not None
        pauses.append(outcome.delay)
        history.append(entry(now, len(history) + 1))
        now += outcome.delay
    assert pauses == [1, 1, 2, 4, 8, 16, 28]
    assert sum(pauses) == 60
    assert isinstance(outcome, Raised)
    assert (outcome.reason, "'send'" in outcome.error.message) == (FailureReason.NO_HANDLER, True)
    assert not outcome.reason.retryable


@pytest.mark.parametrize("patience", [0.0, 0.5, 1.0, 86_400.0])
def test_any_patience_ends_and_within_the_history_that_is_kept(patience: float) -> None:
    history: list[AttemptRecord] = []
    now = 0.0
    while isinstance(outcome := missing_handler("", history, len(history), patience), RetryAsked):
        history.append(entry(now, len(history) + 1))
        now += outcome.delay or 0.0
    assert len(history) <= 20
    assert patience <= now <= patience + 1


def test_an_attempt_in_between_begins_anew() -> None:
    history = [entry(0, 1), entry(50, 2), entry(60, 3, FailureReason.ERROR), entry(70, 4)]
    outcome = missing_handler("send", history, 4, 60.0)
    assert isinstance(outcome, RetryAsked)
    assert outcome.delay == 1.0
    assert uncounted(history, 4) == 3


def test_a_revived_job_begins_anew() -> None:
    before = [entry(0, 1), entry(30, 2), entry(60, 3)]
    assert uncounted(before, 0) == 0
    outcome = missing_handler("send", before, 0, 60.0)
    assert isinstance(outcome, RetryAsked)
    assert uncounted([*before, entry(90, 1)], 1) == 1
    assert uncounted([entry(0, 1)], 0) == 0


# -- left to others ----------------------------------------------------------------------------------


def put_back(history: list[AttemptRecord], now: float, outcome: RetryAsked, attempt: int) -> None:
    data = summarize_error(outcome.error, outcome.reason, outcome.met)
    history.append(AttemptRecord(int(now * 1000), attempt, "w", data))


def test_what_is_left_to_others_is_put_back_for_ever_and_never_counted() -> None:
    history: list[AttemptRecord] = []
    now, pauses = 100.0, []
    for claim in range(1, 60):
        outcome = left_to_others({"mail"}, history[-20:], claim - 1)
        assert outcome.reason is FailureReason.NO_HANDLER
        assert outcome.error.message == "this worker serves only 'mail'"
        assert outcome.delay is not None
        pauses.append(outcome.delay)
        put_back(history, now, outcome, claim)
        now += outcome.delay
        assert uncounted(history[-20:], claim) == claim  # more than the history holds
    assert pauses[:6] == [1, 1, 1, 2, 3, 5]
    assert set(pauses[6:]) == {5}


def test_attempts_between_are_counted_all_the_same() -> None:
    history: list[AttemptRecord] = []
    for claim in range(1, 30):
        if claim % 10 == 0:
            history.append(entry(claim, claim, FailureReason.ERROR))
        else:
            put_back(history, claim, left_to_others({"mail"}, history[-20:], claim - 1), claim)
    assert uncounted(history[-20:], 29) == 27


def test_being_left_to_others_uses_no_patience() -> None:
    history: list[AttemptRecord] = []
    for claim, at in enumerate((0, 50, 100, 150), 1):
        put_back(history, at, left_to_others({"mail"}, history, claim - 1), claim)
    outcome = missing_handler("send", history, 4, 60.0)
    assert isinstance(outcome, RetryAsked)
    assert (outcome.delay, outcome.met) == (1.0, 5)
