"""Maps error replies of the server to remedies and errors.

By its code::

    NOSCRIPT                                the script is sent in full, at once
    LOADING BUSY TRYAGAIN CLUSTERDOWN       the same call again, after a pause
    MASTERDOWN NOREPLICAS, too many clients
    READONLY UNBLOCKED                      again on a new connection: the master has moved
    MOVED ASK                               the cluster transport follows them
    OOM                                     `QueueFullError`
    NOAUTH WRONGPASS WRONGTYPE              `StorageError`: only an operator can help
    NOPERM, an unknown command              `RefusedError`, likewise: the user or the server lacks a command
    MISCONF                                 `StorageUnavailableError`: the server cannot save
    anything else                           `StorageError`

Here is also what a lost connection means: nothing is known, so the call is repeated.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from jobqueue.errors import JobQueueError, QueueFullError, StorageError, StorageUnavailableError

__all__ = [
    "REFUSALS",
    "REFUSED_FOR",
    "RIGHTS",
    "ConnectionLostError",
    "RefusedError",
    "Remedy",
    "code_of",
    "error_for",
    "remedy_for",
]


REFUSALS = frozenset({"NOPERM", "UNKNOWN"})
"""Error codes of a command that the server refuses to this user, or to all."""


REFUSED_FOR = 60.0
"""Seconds after which a refused command, without which things only get slow, is tried again."""
RIGHTS = "docs/guides/redis.md lists the rights that a user needs"


class ConnectionLostError(Exception):
    """The connection ended before the reply: the command was carried out or was not."""


class RefusedError(StorageError):
    """The server refuses a command to this user, or to all."""


class Remedy(Enum):
    """The reaction of the transport to an error reply."""

    SEND_SCRIPT = auto()
    PAUSE = auto()
    RECONNECT = auto()
    REDIRECT = auto()
    RAISE = auto()


_REMEDIES = {
    "NOSCRIPT": Remedy.SEND_SCRIPT,
    "LOADING": Remedy.PAUSE,
    "BUSY": Remedy.PAUSE,
    "TRYAGAIN": Remedy.PAUSE,
    "CLUSTERDOWN": Remedy.PAUSE,
    "MASTERDOWN": Remedy.PAUSE,
    "NOREPLICAS": Remedy.PAUSE,
    "MAXCLIENTS": Remedy.PAUSE,
    "READONLY": Remedy.RECONNECT,
    "UNBLOCKED": Remedy.RECONNECT,
    "MOVED": Remedy.REDIRECT,
    "ASK": Remedy.REDIRECT,
}
_CODE = re.compile(r"[A-Z]{2,}")
# Servers before 7.0 wrap what a command inside a script answered.
_WRAPPED = re.compile(r"user_script: ?\d+: -?([A-Z]{2,}) ")

# In the words of Redis and its scripts, of proxies and of hosted servers.
_UNKNOWN = re.compile(
    r"\b(?:unknown|unsupported) (?:redis |sub)?command|\bcommand is not (?:available|supported)",
    re.IGNORECASE,
)


def code_of(message: str) -> str:
    """Return the error code of a reply, also from inside a script."""
    if message.startswith("ERR max number of clients"):
        return "MAXCLIENTS"
    if message.startswith("ERR Protocol error: unauthenticated"):  # to a command of more than ten words
        return "NOAUTH"
    if "user executing the script can't" in message or "ACL failure in script" in message:
        return "NOPERM"
    if _UNKNOWN.search(message):
        return "UNKNOWN"
    wrapped = _WRAPPED.search(message) if message.startswith("ERR ") else None
    if wrapped is not None:
        return wrapped[1]
    found = _CODE.match(message)
    return found[0] if found else "ERR"


def remedy_for(code: str) -> Remedy:
    """Return the remedy for an error code."""
    return _REMEDIES.get(code, Remedy.RAISE)


def error_for(code: str, message: str, where: str) -> JobQueueError:
    """Return the exception to raise for an error reply after the retries."""
    text = f"{where}: {message:.300}".rstrip(".")
    match code:
        case "OOM":
            return QueueFullError(
                f"{text}. The server has reached maxmemory: let workers drain the queue, shorten "
                "result_ttl, or raise maxmemory"
            )
        case "NOAUTH" | "WRONGPASS":
            return StorageError(f"{text}. Give the user and password in the URL: redis://user:password@host")
        case _ if code in REFUSALS:
            return RefusedError(f"{text}. {RIGHTS}")
        case "WRONGTYPE":
            return StorageError(f"{text}. Another application uses the same keys: choose another prefix")
        case "MOVED" | "ASK":
            return StorageError(f"{text}. This is a node of a cluster: use redis+cluster://")
        case "MISCONF":
            return StorageUnavailableError(f"{text}. The server cannot write to its disk")
        case "ERR" if message.startswith("ERR DB index"):
            return StorageError(f"{text}. The server has `databases` of them, 16 by default, from 0 on")
        case _ if remedy_for(code) in {Remedy.PAUSE, Remedy.RECONNECT}:
            return StorageUnavailableError(text)
        case _:
            return StorageError(text)
