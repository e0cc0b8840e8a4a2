"""What a task is declared and called with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jobqueue.client.options import EnqueueOptions
from jobqueue.client.results import EnqueueRequest, EnqueueResult, SyncEnqueueResult
from jobqueue.model.backoff import Backoff

__all__ = ["OPTIONS", "OPTIONS_OF_A_REQUEST", "Options", "TaskHost", "TaskOptions", "Text"]

Text = str | Callable[..., str] | None
"""A text, or a function of the task's arguments that returns one."""


@dataclass(frozen=True, slots=True)
class TaskHost:
    """The calls of a queue that its tasks use."""

    send: Callable[[EnqueueRequest, object | None], Awaitable[EnqueueResult[Any]]]
    """Create a job, in the transaction of a connection if there is one, or find the one that has its id."""
    send_and_wait: Callable[[EnqueueRequest, float], Awaitable[Any]]
    """Create the job, join the live one or replay the ended one; return the result."""
    sync_send: Callable[[EnqueueRequest, object | None], SyncEnqueueResult[Any]]
    """As ``send``, for code that is not asyncio."""
    sync_send_and_wait: Callable[[EnqueueRequest, float], Any]
    """As ``send_and_wait``, for code that is not asyncio."""


class Options(EnqueueOptions, total=False):
    """Options of one call of a task, as `Queue.enqueue` has them."""

    id: str | None
    wait_timeout: float
    """Seconds that `enqueue_and_wait` waits; default: 30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What the declaration of a task decides about its jobs."""

    id: Text = None
    group: Text = None
    priority: int = 0
    max_attempts: int | None = None
    result_ttl: float | None = None
    timeout: float | None = None
    backoff: Backoff | None = None
    expires: float | None = None


OPTIONS = frozenset(Options.__annotations__)
OPTIONS_OF_A_REQUEST = OPTIONS - {"wait_timeout", "connection"}
