"""Makes the store that a URL names. A store's packages are loaded when its URL is used."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.contract import Storage, members, missing

__all__ = ["LEDGER_VARIABLE", "STORAGE_VARIABLE", "as_storage", "made_from_one_url", "open_storage", "redact"]

STORAGE_VARIABLE = "JOBQUEUE_STORAGE"
"""Names the store of queues, reapers and commands that are given none."""

LEDGER_VARIABLE = "JOBQUEUE_LEDGER"
"""Names the ledger that guards that store."""

_SERVERS = {
    f"{name}{tls}{kind}"
    for name in ("redis", "valkey")
    for tls in ("", "s")
    for kind in ("", "+cluster", "+sentinel")
} | {"unix"}
_HOSTS = re.compile(r"(?:(?:[^:,]*|\[[^\]]*\])(?::\d*)?(?:,|$))*")
_KNOWN = (
    "./directory, file:///directory, memory://, redis://host, valkey://host, redis+cluster://host, "
    "redis+sentinel://host, postgresql://host/database"
)

_urls: WeakKeyDictionary[Storage, str] = WeakKeyDictionary()
"""The URL of each store that was made from one."""


def open_storage(url: str, ledger: str | None = None) -> Storage:
    """Return the unopened store that a URL or a path names. Connects to nothing.

    ``memory://``, ``file:///directory``, ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``,
    ``unix://``, ``redis+cluster://``, ``redis+sentinel://h1,h2/service/db``, ``postgresql://``; a text that
    begins with ``/``, ``./``, ``../`` or ``~/`` is a directory of files. With ``ledger``, a ``postgresql://``
    URL, its jobs are guarded: see `GuardedStorage`. Raises `InvalidArgumentError` for any other.
    """
    if not isinstance(url, str):
        raise InvalidArgumentError("storage", f"must be a URL or a store, not {type(url).__name__}")
    storage = _make(url)
    if ledger is not None:
        from jobqueue.storage.guard import GuardedStorage, PostgresLedger

        storage = GuardedStorage(storage, PostgresLedger(ledger))
    _urls[storage] = url if ledger is None else f"{ledger} {url}"
    return storage


def made_from_one_url(one: Storage, other: Storage) -> bool:
    """Return whether two stores were made from the same URL, and so hold the same jobs."""
    urls = [[url for known, url in _urls.items() if known is store] for store in (one, other)]
    return one.shared and urls[0] == urls[1] != []


def _make(url: str) -> Storage:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "memory":
        from jobqueue.storage.memory import MemoryStorage

        return MemoryStorage()
    if scheme == "file" or _is_path(url):
        from jobqueue.storage.file import FileStorage

        return FileStorage(_directory(url) if scheme else Path(url).expanduser())
    if scheme in _SERVERS:
        from jobqueue.storage.redis import RedisStorage

        return RedisStorage(url)
    if scheme in {"postgresql", "postgres"}:
        from jobqueue.storage.postgres import PostgresStorage

        return PostgresStorage(url)
    problem = f"unknown kind of URL {scheme!r}" if scheme else "a URL begins with its kind and ://"
    raise InvalidArgumentError("storage", f"{problem}: use one of {_KNOWN}")


def as_storage(storage: Storage | str | None) -> Storage:
    """Return a store unchanged, or make the store that a URL names; ``None``: that of `STORAGE_VARIABLE`.

    Raises `InvalidArgumentError`.
    """
    if storage is None:
        return _storage_of_environment()
    if isinstance(storage, str):
        return open_storage(storage)
    _check_whole(storage)
    return storage


def _check_whole(storage: object) -> None:
    """Refuse an object that is no store, or one that lacks part of the contract, by the names of that."""
    if isinstance(storage, type):
        problem = f"must be a store or a URL, not the class {storage.__name__}: call it"
        raise InvalidArgumentError("storage", problem)
    lacks = missing(storage)
    if not lacks:
        return
    kind = type(storage).__name__
    if len(lacks) > len(members(Storage)) // 2:
        raise InvalidArgumentError("storage", f"must be a store or a URL, not {kind}")
    problem = (
        f"{kind} is no whole store, it lacks {', '.join(lacks)}: "
        "`jobqueue.storage.Storage` says what each has to do"
    )
    raise InvalidArgumentError("storage", problem)


def _storage_of_environment() -> Storage:
    url = os.environ.get(STORAGE_VARIABLE, "")
    if not url:
        raise InvalidArgumentError("storage", f"is missing: give a store or a URL, or set {STORAGE_VARIABLE}")
    try:
        return open_storage(url, os.environ.get(LEDGER_VARIABLE) or None)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(STORAGE_VARIABLE, str(error)) from error


def _is_path(url: str) -> bool:
    return url.startswith(("/", "./", "../", "~/")) or url in {".", ".."}


def _directory(url: str) -> str:
    """Return the path in ``file:///directory``."""
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        raise InvalidArgumentError(
            "storage",
            "must be file:/// and an absolute path, with ? as %3F and # as %23, or a path such as ./jobs",
        )
    return unquote(parts.path, errors="surrogateescape")


def redact(url: str) -> str:
    """Return a URL without its password and query, fit to be shown.

    Only its kind if the password may be elsewhere: behind an unquoted ``/``, ``?`` or ``#``, or in place of
    a host.
    """
    scheme, known, rest = url.partition("://")
    if not known:
        return url if _is_path(url) else "a URL without a kind"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme}://***"
    host = parts.netloc.rpartition("@")[2]
    if (parts.netloc and "@" in rest[len(parts.netloc) :]) or not _HOSTS.fullmatch(host):
        return f"{scheme}://***"
    user = unquote(parts.username or "")
    return f"{parts.scheme}://{f'{user}:***@' if parts.password else ''}{host}{parts.path}"
