"""Tells listeners of a program what befalls a guard."""

from __future__ import annotations

from collections.abc import Callable

from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.guard.values import GuardNotice

__all__ = ["Notices"]

log = get_logger("jobqueue.storage.guard")


class Notices:
    """The listeners of a guarded store, whether or not it is open."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[GuardNotice], None]] = []

    def add(self, listener: Callable[[GuardNotice], None]) -> None:
        """Call a function from now on."""
        self._listeners.append(listener)

    def tell(self, kind: str, detail: str) -> None:
        """Call all listeners. What one of them raises is logged, and concerns nobody else."""
        for listener in self._listeners:
            try:
                listener(GuardNotice(kind, detail))
            except Exception:
                log.exception("a listener of the guard has raised")
