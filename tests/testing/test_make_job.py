"""Jobs for unit tests, and the parts of `jobqueue.testing` that need nothing else."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue import AbortedReason, InvalidArgumentError
from jobqueue.testing import make_job


async def test_a_job_has_what_it_was_given() -> None:
    at, reported = datetime(2026, 1, 2, tzinfo=UTC), list[Any]()
    job = make_job(
        {"n": 1}, id="a", attempts=2, max_attempts=5, queue="q", worker_id="w", fence=7, created_at=at,
        on_progress=reported.append,
    )  # fmt: skip
    assert (job.payload, job.id, job.attempts, job.max_attempts) == ({"n": 1}, "a", 2, 5)
    assert (job.queue, job.worker_id, job.fence, job.created_at) == ("q", "w", 7, at)
    assert not job.aborted.is_set()
    await job.progress("half")
    assert reported == ["half"]


async def test_a_job_may_have_been_asked_to_end() -> None:
    job = make_job(None, aborted="timeout")
    assert job.aborted.is_set()
    assert job.aborted_reason is AbortedReason.TIMEOUT


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("id", ""),
        ("attempts", 0),
        ("queue", "a b"),
        ("fence", -1),
        ("max_attempts", "3"),
        ("aborted", "soon"),
    ],
)
def test_bad_arguments_are_named(argument: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=argument):
        make_job(None, **{argument: value})  # type: ignore[arg-type]


def test_the_clock_and_jobs_need_neither_pytest_nor_hypothesis() -> None:
    program = (
        "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from jobqueue.testing import FakeClock, make_job\n"
        "FakeClock(), make_job(1)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
