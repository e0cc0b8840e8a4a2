"""The options of an enqueue, for calls that pass them on to `Queue.enqueue`, which says what they mean."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from jobqueue.client.room import OnFull
from jobqueue.storage.values import Conflict, Reuse

__all__ = ["EnqueueOptions", "JobOptions"]


class JobOptions(TypedDict, total=False):
    """Options of `Queue.enqueue_and_wait`."""

    max_attempts: int | None
    result_ttl: float | None
    delay: float | None
    run_at: datetime | None
    priority: int
    reuse: Reuse | str
    group: str
    conflict: Conflict | str
    on_full: OnFull | str
    expires: float | None


class EnqueueOptions(JobOptions, total=False):
    """Options of `Queue.enqueue`."""

    connection: object | None
