"""The options of a dashboard, checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.requests import Request

from jobqueue.client.results import JobStatus
from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import check_bool, check_callable, check_count, check_seconds

__all__ = ["ANY_HOST", "LOOPBACK", "Action", "Authorize", "Options", "Redact", "checked_options"]

ANY_HOST = "*"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names of this machine for itself: no name server answers for them."""
MAX_TITLE = 80


class Action(StrEnum):
    """What somebody wants to do, as `Authorize` is asked."""

    VIEW = "view"
    """See a page."""
    CANCEL_JOBS = "jobs.cancel"
    RETRY_JOBS = "jobs.retry"
    REMOVE_JOBS = "jobs.remove"
    PAUSE_QUEUES = "queues.pause"
    """Pause or resume a queue."""
    SET_LIMITS = "limits.set"
    """Set the limits of a queue, or give them back to programs."""
    PAUSE_SCHEDULES = "schedules.pause"
    """Pause or resume a schedule."""
    RUN_SCHEDULES = "schedules.run"
    """Enqueue a job of a schedule now."""


Authorize = Callable[[Request, Action], bool | Awaitable[bool]]
"""Says whether a request may do something."""
Redact = Callable[[str, Any, JobStatus[Any]], Any]
"""Called with ``"payload"``, ``"result"``, ``"progress"``, ``"error"`` or ``"traceback"``, the value and its
job; returns what to show instead."""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options."""

    authorize: Authorize | None
    credentials: str | None
    hosts: frozenset[str] | None
    """Lower-case names of hosts, without ports; ``None``: any."""
    read_only: bool
    redact: Redact | None
    refresh: float
    max_streams: int
    title: str


def checked_options(
    authorize: Authorize | None,
    credentials: str | None,
    hosts: Iterable[str] | None,
    redact: Redact | None,
    refresh: float,
    max_streams: int,
    title: str,
    *,
    read_only: bool,
) -> Options:
    """Check the options. Raises `InvalidArgumentError`."""
    if authorize is not None:
        check_callable("authorize", authorize)
    if redact is not None:
        check_callable("redact", redact)
    if not isinstance(title, str) or not 0 < len(title) <= MAX_TITLE:
        raise InvalidArgumentError("title", f"must be a text of 1 to {MAX_TITLE} characters")
    return Options(
        authorize=authorize,
        credentials=_check_credentials(credentials),
        hosts=_check_hosts(hosts, known=authorize is not None or credentials is not None),
        read_only=check_bool("read_only", read_only),
        redact=redact,
        refresh=check_seconds("refresh", refresh),
        max_streams=check_count("max_streams", max_streams, low=0, high=100_000),
        title=title,
    )


def _check_credentials(given: object) -> str | None:
    """Return credentials. No message quotes them."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise InvalidArgumentError("credentials", f"must be a str USER:PASSWORD, not {type(given).__name__}")
    user, colon, password = given.partition(":")
    if not (user and colon and password) or not given.isprintable():
        raise InvalidArgumentError("credentials", "must be USER:PASSWORD, neither of them empty")
    return given


def _check_hosts(given: object, *, known: bool) -> frozenset[str] | None:
    """Return the hosts that are served.

    Without a check of who asks, a page of anybody in a browser on this machine could have its own name point
    here and read everything. So then only names that nobody else can have are served.
    """
    if given is None:
        return None if known else LOOPBACK
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidArgumentError("hosts", "must be names of hosts, such as ['jobs.example.com']")
    names: set[str] = set()
    for name in given:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not name or any(sign in name for sign in "/@ "):
            raise InvalidArgumentError("hosts", "must be names of hosts without scheme, port and path")
        names.add(name.lower())
    return None if ANY_HOST in names else frozenset(names)
