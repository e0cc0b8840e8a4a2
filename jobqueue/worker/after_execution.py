"""``after_execution``: the say of a user's function on an outcome, before it is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jobqueue.errors import ErrorInfo, InvalidArgumentError
from jobqueue.worker.job import Job

__all__ = ["AfterExecution", "Hook", "check_error"]


@dataclass(slots=True)
class AfterExecution:
    """The outcome passed to ``after_execution``, which may change ``result``, ``error`` and ``ttl``."""

    job: Job[Any]
    result: Any
    """The handler's result; ``None`` on failure."""
    error: ErrorInfo | None
    """Set it to fail a job that succeeded; clear it to complete, with ``result``, one that failed."""
    ttl: float
    """Seconds until the outcome and the dedup mark expire."""


Hook = Callable[[AfterExecution], Awaitable[None] | None]


def check_error(error: object) -> None:
    """Refuse anything but an `ErrorInfo` of texts, before it is stored."""
    if type(error) is not ErrorInfo:
        raise InvalidArgumentError("error", "must be an ErrorInfo or None")
    for field in ("type", "message", "traceback"):
        text: object = getattr(error, field)
        if not isinstance(text, str) and not (field == "traceback" and text is None):
            raise InvalidArgumentError(f"error.{field}", f"must be a str, not {type(text).__name__}")
