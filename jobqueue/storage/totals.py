"""An optional ability of a store: count the jobs that have ended."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["Totals"]


@runtime_checkable
class Totals(Protocol):
    """A store that counts ended jobs, whether or not their records still exist."""

    async def ended(self, queue: str) -> int:
        """Return how many jobs of a queue have ended, in any way. Never falls.

        Only the difference between two answers of one open store means something: a store may begin
        anew when it is opened, or when the queue was empty.
        """
        ...
