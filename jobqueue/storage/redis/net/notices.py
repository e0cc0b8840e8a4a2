"""Warnings that are logged once in a process, however many stores are opened."""

from __future__ import annotations

from jobqueue.runtime.loggers import get_logger

__all__ = ["warn_once"]

log = get_logger("jobqueue.storage.redis")

_MOST = 1000
_told: set[str] = set()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has logged the same."""
    if text not in _told:
        if len(_told) >= _MOST:
            _told.clear()
        _told.add(text)
        log.warning("%s", text)
