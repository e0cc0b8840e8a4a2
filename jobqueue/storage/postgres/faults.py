"""What an error of the server or of the driver means for the call that met it.

By the SQLSTATE::

    40001 40P01 55P03               undone: the same call again
    57014                           undone: it took longer than the statement timeout; again
    25006                           a standby: again, on a new connection
    08 57P 53300                    the connection is lost or refused; whether the call was done is unknown
    53100 53200 54                  no room: `QueueFullError`
    28 3D000 42501 3F000 42P01      only an operator can help: `StorageError`, which names the remedy
    anything else                   `StorageError`
"""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from jobqueue.errors import JobQueueError, QueueFullError, StorageError, StorageUnavailableError

__all__ = ["APPLY", "RIGHTS", "Fault", "judge", "judge_reply"]

APPLY = "run: jobqueue schema apply, as a user that may create tables"
RIGHTS = "docs/guides/postgres.md lists the rights that a user needs"

_UNDONE = frozenset({"40001", "40P01", "55P03", "57014", "0A000", "26000"})
_AWAY = frozenset({"25006", "53300"})
_FULL = frozenset({"53100", "53200", "53000"})
_MISSING = frozenset({"3F000", "42P01", "42883", "42703", "42704"})


_BROKEN = (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Fault(NamedTuple):
    """An error, judged."""

    error: JobQueueError
    """What to raise if the call is not made again."""
    again: bool
    """Whether the same call may succeed soon."""
    lost: bool
    """Whether the connection is of no more use."""
    unknown: bool
    """Whether the call may have been carried out."""


def judge(error: Exception, where: str) -> Fault | None:
    """Judge an error; ``None``: it is none of the server's or of a connection's."""
    if isinstance(error, asyncpg.PostgresError):
        return judge_reply(error.sqlstate or "", str(error), where)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        text = f"{where}: no server that takes writes: {error}"
        return Fault(StorageUnavailableError(text), again=True, lost=True, unknown=False)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return Fault(StorageError(f"{where}: {error}"), again=False, lost=True, unknown=False)
    if isinstance(error, _BROKEN):
        text = f"{where} does not answer: {str(error) or type(error).__name__}"
        return Fault(StorageUnavailableError(text), again=True, lost=True, unknown=True)
    return None


def judge_reply(code: str, message: str, where: str) -> Fault:
    """Judge an error of the server by its SQLSTATE."""
    text = f"{where}: {message[:300]}".rstrip(".")
    if code in _UNDONE:
        return Fault(StorageUnavailableError(text), again=True, lost=code == "26000", unknown=False)
    if code in _AWAY or code.startswith(("08", "57P")):
        return Fault(StorageUnavailableError(text), again=True, lost=True, unknown=True)
    if code in _FULL or code.startswith("54"):
        remedy = "The server has no room: let workers drain the queue, shorten result_ttl, or add disk"
        return Fault(QueueFullError(f"{text}. {remedy}"), again=False, lost=False, unknown=False)
    if code.startswith("28"):
        text = f"{text}. Give the user and password in the URL: postgresql://user:password@host/database"
    elif code in _MISSING:
        text = f"{text}. The schema is missing or older than this release: {APPLY}"
    elif code == "42501":
        text = f"{text}. {RIGHTS}"
    return Fault(StorageError(text), again=False, lost=code.startswith("28"), unknown=False)
