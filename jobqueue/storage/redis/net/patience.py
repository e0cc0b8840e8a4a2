"""Decides how long a silent connection is waited for.

A timeout is about silence. As long as bytes come or go out, the server is alive, however large a reply or a
command is, and the commands behind it wait for their turn. But bytes must move at `SLOWEST` at least: the
wait for a peer that sends one now and then would never end.
"""

from __future__ import annotations

__all__ = ["SLOWEST", "UPLOAD", "Patience"]

SLOWEST = 10_000
"""Bytes per second below which a connection is given up, counted over one command."""
UPLOAD = 250_000
"""Bytes per second of a large command that has left this host, but may still be on its way to the server."""


class Patience:
    """Computes the time left for the oldest command of a connection, in seconds of a monotonic clock."""

    __slots__ = ("_alive_at", "_delivered", "_moved", "_turn_at", "_turn_moved", "posted")

    def __init__(self) -> None:
        self.posted = 0
        """Bytes given to the connection so far."""
        self._delivered = 0
        self._moved = 0
        self._alive_at = 0.0
        # When the oldest command became the oldest, and how much had been moved before.
        self._turn_at, self._turn_moved = 0.0, 0

    def heard(self, now: float, size: int, *, answered: bool) -> None:
        """Note that ``size`` bytes came, and whether they complete a reply."""
        self._alive_at = now
        self._moved += size
        if answered:
            self._turn_at, self._turn_moved = now, self._moved

    def look(self, now: float, unsent: int) -> None:
        """Note how many of the bytes posted are not delivered yet."""
        delivered = self.posted - unsent
        if unsent and delivered > self._delivered:
            self._alive_at = now
            self._moved += delivered - self._delivered
        self._delivered = delivered

    def left(self, now: float, sent_at: float, limit: float) -> float:
        """Return the seconds left for the oldest command, which may be silent for ``limit`` seconds."""
        silent_until = max(sent_at, self._alive_at) + limit
        slow_until = max(sent_at, self._turn_at) + limit + (self._moved - self._turn_moved) / SLOWEST
        return min(silent_until, slow_until) - now
