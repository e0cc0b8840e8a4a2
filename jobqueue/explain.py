"""In words: why a job has no outcome yet."""

from __future__ import annotations

from jobqueue.job import JobState, decode_error
from jobqueue.options import instant
from jobqueue.storage.base import Record
from jobqueue.text import one_line

__all__ = ["unfinished"]

_LONGEST = 200
"""Characters of an error's message."""


def unfinished(record: Record, queue: str, *, attended: bool) -> str:
    """Say where a live job stands. ``attended``: whether a worker of its queue has been seen lately."""
    facts = [f"it is still {record.state.value}{_where(record)}"]
    if record.error is not None:
        error, _ = decode_error(record.error)
        ended = one_line(f"{error.type}: {error.message}"[:_LONGEST])
        facts.append(f"attempt {record.attempts} of {record.max_attempts} ended in {ended}")
    if not attended:
        facts.append(f"no worker of queue {queue!r} has been seen lately: start one")
    return "; ".join((*facts, "the job goes on: wait again, or cancel it"))


def _where(record: Record) -> str:
    match record.state:
        case JobState.PROCESSING:
            return f" by worker {record.worker!r}"
        case JobState.SCHEDULED | JobState.FAILING:
            return f" until {instant(record.run_at).isoformat(timespec='seconds')}"
        case _:
            return ""
