"""When the slots of ``ready`` and ``lease`` take turns.

Rows of these tables live for moments. Once a slot has grown, new rows go to the other one, which is truncated
before: that needs no vacuum, and no transaction that is open elsewhere keeps it from happening. Each store
looks after the rows that it has made dead itself; the server has one of them do it.
"""

from __future__ import annotations

__all__ = ["SIZES", "Turns"]

SIZES = {"ready": 320 * 1024, "lease": 384 * 1024}
"""Bytes of a slot after which the other one takes its turn: about 2,500 rows, and 2,200."""
_MOVED = 500
"""Rows that a store has deleted since it looked."""
_PAUSE = 0.5


class Turns:
    """Counts what one store has deleted, and says when to look."""

    def __init__(self) -> None:
        self._moved = 0
        self._next = 0.0

    def due(self, moved: int, now: float) -> bool:
        """Count rows that were deleted by a monotonic time; return whether to look now."""
        self._moved += moved
        if self._moved < _MOVED or now < self._next:
            return False
        self._moved, self._next = 0, now + _PAUSE
        return True
