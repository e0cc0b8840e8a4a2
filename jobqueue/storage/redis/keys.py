"""The names of all keys and channels: built here and nowhere else.

The keys of a queue share one hash tag, ``{prefix:queue}``, so that a cluster keeps them together. The
attributes of `QueueKeys` and `DocumentKeys` are the names by which the headers of the scripts list their
KEYS.
``lua/README.md`` says what each key holds.

Prefixes may hold colons, and one may begin with another. Yet no two of them share a name: a name ends in its
purpose, or in ``to:`` and a mailbox, and what stands between that and the prefix has no colon.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from jobqueue.errors import InvalidArgumentError

__all__ = [
    "MAILBOX_BYTES",
    "SECRET_BYTES",
    "DocumentKeys",
    "QueueKeys",
    "channel_base",
    "check_prefix",
    "document_keys",
    "format_key",
    "lock_channel",
    "lock_key",
    "mailbox",
    "queue_keys",
    "queues_key",
    "resumed_channel",
]

MAILBOX_BYTES = 20
"""Length of a mailbox: hexadecimal digits."""
SECRET_BYTES = 9
"""Length of the secret that follows it where somebody waits."""

_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class QueueKeys(NamedTuple):
    """The keys of one queue."""

    jobs: bytes
    running: bytes
    ready: bytes
    staged: bytes
    prio: bytes
    scheduled: bytes
    failing: bytes
    completed: bytes
    failed: bytes
    cancelled: bytes
    expiring: bytes
    workers: bytes
    meta: bytes
    lines: bytes
    ring: bytes
    groups: bytes
    opens: bytes


class DocumentKeys(NamedTuple):
    """The keys of one space of documents."""

    documents: bytes
    document_names: bytes
    document_meta: bytes


def check_prefix(prefix: object) -> str:
    """Return a valid prefix: 1 to 64 of ``A-Z a-z 0-9 . _ : -`` (no glob characters, no braces)."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidArgumentError(
            "prefix", f"must be 1 to 64 characters of A-Z a-z 0-9 . _ : -, not {prefix!r:.80}"
        )
    return prefix


def queue_keys(prefix: str, queue: str) -> QueueKeys:
    """Return the keys of a queue."""
    return QueueKeys(*(f"{{{prefix}:{queue}}}:{name}".encode() for name in QueueKeys._fields))


def document_keys(prefix: str, space: str) -> DocumentKeys:
    """Return the keys of a space of documents."""
    return DocumentKeys(
        *(f"{{{prefix}:{quote(space, safe='')}}}:{name}".encode() for name in DocumentKeys._fields)
    )


def queues_key(prefix: str) -> bytes:
    """Return the key of the set of queue names."""
    return f"{prefix}:queues".encode()


def format_key(prefix: str) -> bytes:
    """Return the key of the number of the format in which the data are."""
    return f"{prefix}:format".encode()


def lock_key(prefix: str, lock: str) -> bytes:
    """Return the key of a named lock."""
    return f"{prefix}:{quote(lock, safe='')}:lock".encode()


def lock_channel(prefix: str, lock: str, *, sharded: bool = False) -> bytes:
    """Return the channel on which the release of a lock is announced.

    A shard channel has the name of the lock's key, and so is served where the lock is.
    """
    return lock_key(prefix, lock) if sharded else f"{prefix}:{quote(lock, safe='')}:unlocked".encode()


def resumed_channel(prefix: str, queue: str, *, sharded: bool = False) -> bytes:
    """Return the channel on which it is announced that more of a queue may be claimed."""
    return f"{{{prefix}:{queue}}}:resumed".encode() if sharded else f"{prefix}:{queue}:resumed".encode()


def channel_base(prefix: str, queue: str | None = None) -> bytes:
    """Return the prefix of a mailbox in the name of its channel; with a queue, of its shard channel."""
    return f"{prefix}:to:".encode() if queue is None else f"{{{prefix}:{queue}}}:to:".encode()


@lru_cache(maxsize=1000)  # each insert of a session asks for the same
def mailbox(address: str) -> bytes:
    """Return the last part of the channel of an address: of one length, whatever the address is.

    The scripts make the same of a worker's name.
    """
    digest = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    return digest[:MAILBOX_BYTES].encode()
