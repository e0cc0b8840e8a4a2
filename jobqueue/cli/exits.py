"""Exit codes, and the way from an error to one line and its code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Self, cast

from jobqueue.errors import (
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    QueueFullError,
    ResultExpiredError,
    StorageUnavailableError,
    WaitTimeoutError,
)
from jobqueue.runtime.text import one_line

__all__ = ["Exit", "Failure", "failure"]


class Exit(IntEnum):
    """Process exit codes."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    TIMEOUT = 4
    UNREACHABLE = 5
    JOB_FAILED = 6
    UNHEALTHY = 7
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it."""


_CODES: tuple[tuple[type[JobQueueError], Exit, str], ...] = (
    (InvalidArgumentError, Exit.USAGE, ""),
    (JobNotFoundError, Exit.NOT_FOUND, ""),
    (ResultExpiredError, Exit.NOT_FOUND, ""),
    (WaitTimeoutError, Exit.TIMEOUT, ""),
    (StorageUnavailableError, Exit.UNREACHABLE, "does the server run, and is --storage right?"),
    (JobFailedError, Exit.JOB_FAILED, ""),
    (JobCancelledError, Exit.JOB_FAILED, ""),
    (QueueFullError, Exit.ERROR, ""),
)
"""Errors, their exit codes, and a remedy where the error itself names none."""


class Failure(Exception):  # noqa: N818 - it ends a command as `click.exceptions.Exit` does
    """Ends a command with one line on stderr and an exit code."""

    def __init__(
        self, message: str, code: Exit = Exit.ERROR, *, data: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(one_line(message))
        self.code = int(code)
        self._data = data or {}

    def as_value(self) -> dict[str, object]:
        """Return the value for ``-o json``: the facts that are known all the same, and the error."""
        name = Exit(self.code).name.lower()
        return {**self._data, "error": {"code": name, "exit_code": self.code, "message": str(self)}}

    @classmethod
    def usage(cls, message: str) -> Self:
        """Return the failure of a command that was called with impossible arguments."""
        return cls(message, Exit.USAGE)


def failure(error: Exception) -> Failure:
    """Turn any error into the failure that ends the command."""
    if isinstance(error, ExceptionGroup):  # of several things that went wrong together, the first
        first: Exception = cast("ExceptionGroup[Exception]", error).exceptions[0]
        return failure(first)
    for kind, code, remedy in _CODES:
        if isinstance(error, kind):
            data = _outcome(error) if isinstance(error, JobFailedError) else None
            return Failure(f"{error} ({remedy})" if remedy else str(error), code, data=data)
    if isinstance(error, JobQueueError):
        return Failure(str(error))
    return Failure(f"{type(error).__name__}: {error} (more with `jobqueue --debug ...`)")


def _outcome(failed: JobFailedError) -> dict[str, object]:
    cause = {"type": failed.error.type, "message": failed.error.message}
    return {"id": failed.job_id, "state": "failed", "reason": failed.reason, "attempts": failed.attempts,
            "cause": cause}  # fmt: skip
