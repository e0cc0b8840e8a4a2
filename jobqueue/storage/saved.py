"""The persistent form of a job: `Engine.dump` gives it out, `Engine.load` takes it back."""

from __future__ import annotations

from typing import NamedTuple

from jobqueue.job import JobState
from jobqueue.storage.index import Entry

__all__ = ["Counters", "SavedJob", "restored", "saved"]


class Counters(NamedTuple):
    """The counters of an `Engine`. Two engines that made the same calls agree on them."""

    seq: int
    fence: int


class SavedJob(NamedTuple):
    """All of a job that outlives the process. Waiters do not."""

    queue: str
    id: str
    payload: bytes | None
    state: JobState
    priority: int
    due: int
    max_attempts: int
    max_stalls: int
    ttl: int
    seq: int
    created_at: int
    updated_at: int
    attempts: int
    stalls: int
    fence: int
    lease_until: int
    expires_at: int
    cancelling: bool
    data: bytes | None
    progress: bytes | None
    worker: str | None
    """Name of the worker that holds the lease, if `processing`."""


def saved(queue: str, job: Entry) -> SavedJob:
    """Convert an entry to its persistent form."""
    return SavedJob(
        queue,
        job.id,
        job.payload,
        job.state,
        job.priority,
        job.due,
        job.max_attempts,
        job.max_stalls,
        job.ttl,
        job.seq,
        job.created_at,
        job.updated_at,
        job.attempts,
        job.stalls,
        job.fence,
        job.lease_until,
        job.expires_at,
        job.cancelling,
        job.data,
        job.progress,
        job.worker if job.state is JobState.PROCESSING else None,
    )


def restored(record: SavedJob) -> Entry:
    """Rebuild the entry."""
    job = Entry.__new__(Entry)
    (
        _,
        job.id,
        job.payload,
        job.state,
        job.priority,
        job.due,
        job.max_attempts,
        job.max_stalls,
        job.ttl,
        job.seq,
        job.created_at,
        job.updated_at,
        job.attempts,
        job.stalls,
        job.fence,
        job.lease_until,
        job.expires_at,
        job.cancelling,
        job.data,
        job.progress,
        worker,
    ) = record
    if worker is not None:
        job.worker = worker
    job.waiters = ()
    return job
