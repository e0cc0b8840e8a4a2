"""An optional ability of a store: to tell which queues need a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Sweepable"]


@runtime_checkable
class Sweepable(Protocol):
    """A store that finds the queues with something to sweep faster than by sweeping each of them."""

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return those of the queues in which a sweep would take a job or a purge delete a record.

        In the order given. Queues may be named in which nothing is found. Workers that have left no
        lease and queues without a record need no haste: they are forgotten by the next purge.
        """
        ...
