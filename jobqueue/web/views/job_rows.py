"""Jobs as lines of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobqueue.client.results import JobStatus
from jobqueue.model.states import ENDED, JobState
from jobqueue.web.text import clip
from jobqueue.web.values import Redactor

__all__ = ["JobRow", "job_rows", "shown_error"]

MAX_ERROR = 160


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as a line."""

    job: JobStatus[Any]
    error: str
    """Its last error, on one line; empty without one."""
    ended: bool
    due: bool
    """Whether the instant at which it is due says something."""


def job_rows(jobs: list[JobStatus[Any]], redact: Redactor) -> list[JobRow]:
    """Return the lines of a listing."""
    return [
        JobRow(
            job,
            shown_error(job, redact),
            ended=job.state in ENDED,
            due=job.state in {JobState.SCHEDULED, JobState.FAILING},
        )
        for job in jobs
    ]


def shown_error(job: JobStatus[Any], redact: Redactor) -> str:
    """Return the last error of a job on one line."""
    if job.error is None:
        return ""
    return clip(f"{job.error.type}: {redact.text('error', job.error.message, job)}", MAX_ERROR)
