"""A job of the `Reference`, with all its fields, and as a store would show it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobqueue.model.states import JobState
from jobqueue.storage.values import AttemptRecord, NewJob, Record

__all__ = ["END_STATES", "WAIT_STATES", "Entry", "record"]

S = JobState
WAIT_STATES = (S.SCHEDULED, S.QUEUED, S.FAILING)
END_STATES = (S.COMPLETED, S.FAILED, S.CANCELLED)


@dataclass
class Entry:
    """A job, with all its fields."""

    new: NewJob
    queue: str
    seq: int
    state: JobState
    due: int
    created_at: int
    payload: bytes | None
    attempts: int = 0
    stalls: int = 0
    fence: int = 0
    worker: str | None = None
    lease_until: int | None = None
    cancelling: bool = False
    result: bytes | None = None
    error: bytes | None = None
    progress: bytes | None = None
    saved: bytes | None = None
    history: list[AttemptRecord] = field(default_factory=list[AttemptRecord])
    expires_at: int | None = None
    letter_until: int = 0
    """End of the time as a dead letter, if it is one or may become one."""
    place: int = 0
    """Place among the ready jobs of its priority: the lowest goes first."""
    waiters: set[str] = field(default_factory=set[str])


def record(job: Entry) -> Record:
    """Return a job as a store would show it; ``updated_at`` is left out."""
    new = job.new
    return Record(
        new.id, job.seq, job.state, new.priority, job.due, job.created_at, 0, job.attempts,
        new.max_attempts, job.stalls, new.max_stalls, new.ttl, job.fence, job.worker, job.lease_until,
        job.cancelling, job.result, job.error, job.progress, job.expires_at, job.payload,
        new.headers, new.task, new.group, tuple(job.history), new.expires,
    )  # fmt: skip
