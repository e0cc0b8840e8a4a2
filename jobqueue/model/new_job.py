"""The job that a store is asked to insert, by a producer or with the settlement of another job."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from jobqueue.model.checks import MAX_ID_BYTES
from jobqueue.model.limits import MAX_WEIGHT

__all__ = [
    "DEAD_LETTER_TTL",
    "MAX_HEADERS",
    "MAX_LABEL_BYTES",
    "MAX_WEIGHT",
    "CheckedJob",
    "Conflict",
    "NewJob",
    "Reuse",
]

MAX_HEADERS = 16_384
"""Largest number of bytes in the headers of a job."""
MAX_LABEL_BYTES = MAX_ID_BYTES
"""Largest number of bytes of UTF-8 in the name of a job's task or group."""

DEAD_LETTER_TTL = 604_800_000
"""Milliseconds that a failed job stays readable unless it says otherwise: 7 days."""


class Reuse(StrEnum):
    """How `Storage.insert` treats an id whose job has ended. A cancelled job is always absent."""

    RETURN = "return"
    """The ended job is found and its outcome returned."""
    RERUN_FAILED = "rerun_failed"
    """A failed job is replaced; a completed one is found."""
    RERUN = "rerun"
    """Any ended job is replaced."""


class Conflict(StrEnum):
    """How `Storage.insert` treats an id whose job waits. A running job is always found."""

    JOIN = "join"
    """The waiting job is found."""
    REPLACE = "replace"
    """It becomes the new job, and keeps its ``seq``, its creation, its waiters, attempts and history."""
    DEBOUNCE = "debounce"
    """The same, and it is due no earlier than it was."""


class NewJob(NamedTuple):
    """A job to insert."""

    id: str
    payload: bytes
    priority: int = 0
    delay: int = 0
    """Milliseconds from the store's now until it is due."""
    run_at: int | None = None
    """The instant at which it is due; overrides ``delay``."""
    max_attempts: int = 3
    max_stalls: int = 2
    ttl: int = 3_600_000
    """Milliseconds that the record stays after the job has ended."""
    reuse: Reuse = Reuse.RETURN
    wait: bool = False
    """Register the call's ``reply_to`` as a waiter, unless the job has ended."""
    headers: bytes = b""
    """Opaque data beside the payload, at most `MAX_HEADERS` bytes; no store reads them."""
    task: str = ""
    """Name of the task that runs it, at most `MAX_LABEL_BYTES` bytes; may be empty."""
    group: str = ""
    """Name of the group that it belongs to, at most `MAX_LABEL_BYTES` bytes; may be empty."""
    dead_letter_ttl: int | None = None
    """Milliseconds that the job, if it fails, stays readable as a dead letter, if longer than ``ttl``; 0: it
    becomes none. ``None``: `DEAD_LETTER_TTL`, which costs the job no byte."""
    conflict: Conflict = Conflict.JOIN
    """What the id means if its job waits."""
    weight: int = 1
    """How many jobs its ``group`` may start in one turn, where groups take turns: 1 to `MAX_WEIGHT`. What the
    next job of the group says counts."""
    expires: int | None = None
    """Milliseconds from its due time within which it has to start; ``None``: whenever a worker has time.
    Judged until its first claim only: one that has started once, or is revived, does not expire."""


class CheckedJob(NewJob):
    """A job whose fields need no check: a queue made it. A changed copy is a `NewJob` again."""

    __slots__ = ()
    # `_replace` calls it, and makes what is not checked.
    _make = NewJob._make  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
