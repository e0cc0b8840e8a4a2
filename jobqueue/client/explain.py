"""In words: why a job has no outcome yet."""

from __future__ import annotations

from jobqueue.model.checks import instant
from jobqueue.model.outcomes import FailureReason, decode_error
from jobqueue.model.states import JobState
from jobqueue.runtime.text import one_line
from jobqueue.storage.values import Record

__all__ = ["nothing_known", "stored_or_not", "unfinished"]

_LONGEST = 200
"""Characters of an error's message."""


def unfinished(record: Record, queue: str, *, attended: bool) -> str:
    """Describe the state of a live job. ``attended``: whether a worker of its queue has been seen lately."""
    facts = [f"it is still {record.state.value}{_where(record)}"]
    if record.error is not None:
        error, reason = decode_error(record.error)
        if reason is FailureReason.NO_HANDLER:
            facts.append(f"the last worker that met it put it back: {one_line(error.message[:_LONGEST])}")
        else:
            ended = one_line(f"{error.type}: {error.message}"[:_LONGEST])
            facts.append(f"attempt {record.attempts} of {record.max_attempts} ended in {ended}")
    if not attended:
        facts.append(f"no worker of queue {queue!r} has been seen lately: start one")
    return "; ".join((*facts, "the job goes on: wait again, or cancel it"))


def stored_or_not(id: str) -> str:
    """Describe a job of which the store has said nothing, since it was sent."""
    return f"the store has not answered in time: job {id!r} may be stored or not; call again with this id"


def nothing_known(id: str) -> str:
    """Describe a job of which the store has said nothing, since it was asked."""
    return f"the store has not answered in time: nothing is known of job {id!r}; wait again"


def _where(record: Record) -> str:
    match record.state:
        case JobState.PROCESSING:
            return f" by worker {record.worker!r}"
        case JobState.SCHEDULED | JobState.FAILING:
            return f" until {instant(record.run_at).isoformat(timespec='seconds')}"
        case _:
            return ""
