"""An optional ability of a store: claim jobs in the moment in which they become ready."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jobqueue.storage.base import Exchanged

__all__ = ["ClaimsOnArrival"]


@runtime_checkable
class ClaimsOnArrival(Protocol):
    """A store that can wait for jobs and claim them in one call, which saves a round trip."""

    async def claim_on_arrival(
        self, queue: str, worker: str, limit: int, lease: int, timeout: float
    ) -> Exchanged | None:
        """Wait as `Storage.wait_for_work` does, then claim jobs as `Storage.exchange` does, in one step.

        The answer may come early and bring no job; it says ``more`` if jobs are left. ``None``: the store
        could not do it; use `exchange`. Jobs that a cancelled call has claimed are given back.
        """
        ...
