"""The states of a job and the one table of transitions between them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ENDED", "TRANSITIONS", "WAITING", "Action", "JobState"]


class JobState(StrEnum):
    """The states of a job."""

    SCHEDULED = "scheduled"
    """Waits for its start time."""
    QUEUED = "queued"
    """Ready to be claimed."""
    PROCESSING = "processing"
    """A worker holds its lease."""
    FAILING = "failing"
    """An attempt failed; the retry waits for its time."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = frozenset({JobState.SCHEDULED, JobState.QUEUED, JobState.FAILING})
"""Live states in which the job waits: no worker runs it."""
ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
"""Final states: nothing more happens until the record expires."""


class Action(StrEnum):
    """The steps that move a job from one state to the next."""

    ENQUEUE = "enqueue"
    SCHEDULE = "schedule"
    PROMOTE = "promote"
    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RELEASE = "release"
    """Given back unfinished: to the front, and the attempt is not counted."""
    RECOVER = "recover"
    """The lease expired: to the front, and the stall is counted."""
    ABANDON = "abandon"
    """The lease expired more often than ``max_stalls`` allows."""
    EXPIRE = "expire"
    """The job had not started in time, and never does."""
    CANCEL = "cancel"


TRANSITIONS: dict[tuple[JobState | None, Action], JobState] = {
    (None, Action.ENQUEUE): JobState.QUEUED,
    (None, Action.SCHEDULE): JobState.SCHEDULED,
    (JobState.SCHEDULED, Action.PROMOTE): JobState.QUEUED,
    (JobState.FAILING, Action.PROMOTE): JobState.QUEUED,
    (JobState.QUEUED, Action.CLAIM): JobState.PROCESSING,
    (JobState.PROCESSING, Action.COMPLETE): JobState.COMPLETED,
    (JobState.PROCESSING, Action.FAIL): JobState.FAILED,
    (JobState.PROCESSING, Action.RETRY): JobState.FAILING,
    (JobState.PROCESSING, Action.RELEASE): JobState.QUEUED,
    (JobState.PROCESSING, Action.RECOVER): JobState.QUEUED,
    (JobState.PROCESSING, Action.ABANDON): JobState.FAILED,
    (JobState.PROCESSING, Action.CANCEL): JobState.CANCELLED,
    (JobState.SCHEDULED, Action.EXPIRE): JobState.FAILED,
    (JobState.QUEUED, Action.EXPIRE): JobState.FAILED,
    (JobState.SCHEDULED, Action.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, Action.CANCEL): JobState.CANCELLED,
    (JobState.FAILING, Action.CANCEL): JobState.CANCELLED,
}
"""The state that an action leads to, by the state before. No other transition exists."""
