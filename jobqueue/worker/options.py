"""The options of a worker."""

from __future__ import annotations

from dataclasses import dataclass

from jobqueue.model.backoff import Backoff
from jobqueue.worker.after_execution import Hook

__all__ = ["MAX_CONCURRENCY", "WorkerOptions"]

MAX_CONCURRENCY = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of a worker. Durations are in seconds."""

    concurrency: int
    visibility_timeout: float
    job_timeout: float | None
    block_timeout: float
    backoff: Backoff
    hook: Hook | None
    tracebacks: bool
    handler_patience: float
