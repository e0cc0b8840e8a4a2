"""Makes the store that a URL names. A store's packages are loaded when its URL is used."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.base import Storage

__all__ = ["STORAGE_VARIABLE", "as_storage", "open_storage", "redact"]

STORAGE_VARIABLE = "JOBQUEUE_STORAGE"
"""Names the store of queues, reapers and commands that are given none."""

_SERVERS = {
    f"{name}{tls}{kind}"
    for name in ("redis", "valkey")
    for tls in ("", "s")
    for kind in ("", "+cluster", "+sentinel")
} | {"unix"}
_HOSTS = re.compile(r"(?:(?:[^:,]*|\[[^\]]*\])(?::\d*)?(?:,|$))*")
_KNOWN = (
    "./directory, file:///directory, memory://, redis://host, valkey://host, redis+cluster://host, "
    "redis+sentinel://host"
)


def open_storage(url: str) -> Storage:
    """Return the unopened store that a URL or a path names. Connects to nothing.

    ``memory://``, ``file:///directory``, ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``,
    ``unix://``, ``redis+cluster://``, ``redis+sentinel://h1,h2/service/db``; a text that begins with
    ``/``, ``./``, ``../`` or ``~/`` is a directory of files. Raises `InvalidArgumentError` for any other.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError("storage", f"must be a URL or a store, not {type(url).__name__}")
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "memory":
        from jobqueue.storage.memory import MemoryStorage  # noqa: PLC0415

        return MemoryStorage()
    if scheme == "file" or _is_path(url):
        from jobqueue.storage.file import FileStorage  # noqa: PLC0415

        return FileStorage(_directory(url) if scheme else Path(url).expanduser())
    if scheme in _SERVERS:
        from jobqueue.storage.redis import RedisStorage  # noqa: PLC0415

        return RedisStorage(url)
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
    if not isinstance(storage, Storage):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError("storage", f"must be a store or a URL, not {type(storage).__name__}")
    return storage


def _storage_of_environment() -> Storage:
    url = os.environ.get(STORAGE_VARIABLE, "")
    if not url:
        raise InvalidArgumentError("storage", f"is missing: give a store or a URL, or set {STORAGE_VARIABLE}")
    try:
        return open_storage(url)
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
