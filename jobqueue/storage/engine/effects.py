"""Notifications that the calls of an engine produce."""

from __future__ import annotations

from typing import NamedTuple

from jobqueue.storage.values import (
    Reply,
)

__all__ = ["CancelRequest", "Effects"]


class CancelRequest(NamedTuple):
    """Asks the worker at ``address`` to end a job."""

    address: str
    queue: str
    id: str
    fence: int


class Effects:
    """Notifications produced by the calls so far; losing one is harmless."""

    __slots__ = ("cancels", "replies", "unlocked", "woken")

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        """Replies by address."""
        self.cancels: list[CancelRequest] = []
        self.woken: set[str] = set()
        """Queues with new work."""
        self.unlocked: set[str] = set()
        """Locks that were released."""

    def __bool__(self) -> bool:
        return bool(self.woken or self.replies or self.cancels or self.unlocked)

    def clear(self) -> None:
        """Drop all notifications."""
        self.woken.clear()
        if self.replies:
            self.replies.clear()
        if self.cancels:
            self.cancels.clear()
        if self.unlocked:
            self.unlocked.clear()
