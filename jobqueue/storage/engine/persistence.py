"""The persistent form of a job: `Engine.dump` makes it, `Engine.load` reads it."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from jobqueue.model.fast import make_tuple
from jobqueue.model.states import JobState
from jobqueue.storage.engine.job_entry import Extras, JobEntry

__all__ = ["Counters", "SavedJob", "restored", "saved"]


class Counters(NamedTuple):
    """The counters of an `Engine`. Two engines that made the same calls agree on them."""

    seq: int
    fence: int


class SavedJob(NamedTuple):
    """All of a job that outlives the process. Waiters do not.

    Every field but ``queue`` is an attribute of `JobEntry` by the same name: this is the one list of them.
    """

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
    extras: Extras
    worker: str
    """Name of the worker that holds the lease; empty unless `processing`."""


_FIELDS = SavedJob._fields[1:]
_values: Callable[[JobEntry], tuple[Any, ...]] = attrgetter(*_FIELDS)


def saved(queue: str, job: JobEntry) -> SavedJob:
    """Convert an entry to its persistent form."""
    values = _values(job)
    if job.state is not JobState.PROCESSING:
        values = (*values[:-1], "")
    return make_tuple(SavedJob, (queue, *values))


def _make_setter() -> Callable[[JobEntry, SavedJob], None]:
    """Write the function that sets every field of an entry.

    Called for every job of a store that is opened: it takes a quarter of what a loop over the names would.
    """
    targets = ", ".join(f"job.{name}" for name in _FIELDS)
    namespace: dict[str, Any] = {}
    exec(f"def fill(job, record): _, {targets} = record", namespace)  # noqa: S102 - names of this module
    fill: Callable[[JobEntry, SavedJob], None] = namespace["fill"]
    return fill


_fill = _make_setter()


def restored(record: SavedJob) -> JobEntry:
    """Rebuild the entry."""
    job = JobEntry.__new__(JobEntry)
    _fill(job, record)
    job.waiters = ()
    return job
