"""From a stored outcome to the error that a caller gets, and from a record to its status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue import (
    Attempt,
    ErrorInfo,
    FailureReason,
    JobCancelledError,
    JobFailedError,
    JobState,
    MaxRetriesError,
    ResultExpiredError,
)
from jobqueue.client.results import ended_error, job_status
from jobqueue.model.outcomes import STALLED_ERROR, encode_error
from jobqueue.storage.values import AttemptRecord, Record


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


def record(**fields: Any) -> Record:
    values = dict.fromkeys(Record._fields, 0) | {"id": "a", "state": JobState.QUEUED}
    values |= dict.fromkeys(("worker", "lease_until", "result", "error", "progress", "expires_at", "payload"))
    values |= {"history": ()}
    return Record(**(values | fields))


def test_the_history_of_a_job_is_readable() -> None:
    failed = AttemptRecord(1500, 1, "w1", encode_error(ErrorInfo("E", "m"), "timeout"))
    stalled = AttemptRecord(2500, 2, "w2", STALLED_ERROR)
    unreadable = AttemptRecord(3500, 3, "w3", b"")
    first, second, third = job_status(record(history=(failed, stalled, unreadable)), None, None).history
    at = datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert first == Attempt(1, at, "w1", FailureReason.TIMEOUT, ErrorInfo("E", "m"))
    assert (second.attempt, second.worker_id, second.reason) == (2, "w2", FailureReason.STALLED)
    assert (third.reason, third.error.message) == (FailureReason.UNKNOWN, "the stored error cannot be read")


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
