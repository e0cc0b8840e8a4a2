"""The reapers that sweep a store, listed like the workers of a queue.

Leadership shows one reaper, and only of those with an election. So each reaper that sweeps also notes
itself under the name of a queue that holds no jobs.
"""

from __future__ import annotations

from collections.abc import Callable

from jobqueue.errors import JobQueueError
from jobqueue.model.names import REAPERS
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import WorkerInfo

__all__ = ["Presence", "sweeping_reapers"]

INTERVAL = 15.0
"""Seconds between two notes."""
LOOK = 1.0
"""Seconds after which a reaper that begins or ceases to sweep is noted, at the most."""


class Presence:
    """Lists a reaper while ``sweeps()``; ``failed(error)`` is called once per outage of the store."""

    def __init__(
        self,
        storage: Storage,
        reaper: str,
        *,
        sweeps: Callable[[], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._storage = storage
        self._reaper = reaper
        self._sweeps = sweeps
        self._failed = failed
        self._listed = False
        self._failing = False

    async def keep(self) -> None:
        """Note the reaper every `INTERVAL` seconds while it sweeps, until cancelled."""
        clock, due = self._storage.clock, 0.0
        while True:
            if not self._sweeps():
                await self.leave()
            elif not self._listed or clock.monotonic() >= due:
                due = clock.monotonic() + INTERVAL
                self._listed = True
                await self._note(lease=1)
            await clock.sleep(LOOK)

    async def leave(self) -> None:
        """Remove the reaper from the list, if it is on it."""
        if self._listed:
            self._listed = False
            await self._note(lease=0)

    async def _note(self, lease: int) -> None:
        try:
            await self._storage.extend(REAPERS, self._reaper, (), lease)
            await self._storage.purge(REAPERS, 1)  # forgets those that died
            self._failing = False
        except JobQueueError as error:
            if not self._failing:
                self._failing = True
                self._failed(error)


async def sweeping_reapers(storage: Storage) -> list[WorkerInfo]:
    """Return the reapers that have lately noted that they sweep, by name."""
    return await storage.workers(REAPERS)
