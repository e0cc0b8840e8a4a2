"""Claims jobs in the moment in which they become ready, where the store can do that."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized

from jobqueue.storage.capabilities import ClaimsOnArrival
from jobqueue.storage.values import Claimed, Exchanged

__all__ = ["Arrivals"]

WARM = 1.0
"""Seconds after its last jobs in which an idle worker claims on arrival."""
PART = 0.1
"""Longest duration, as a part of the lease: the instant of the claim within it is unknown."""


class Arrivals:
    """Decides when a worker claims on arrival, and how much.

    Such jobs belong to the worker at once. If it freezes or vanishes just then, they wait for their leases,
    and not only for the next look of another worker. So it is done only by an idle worker that has just been
    busy, with as many jobs: it might as well have frozen a moment before, with those in its hands.

    ``runs`` are the worker's, ``launch(jobs, started)`` starts more, which were claimed after ``started``,
    ``expired(ids)`` tells of jobs that have failed since they had not started in time.
    """

    def __init__(
        self,
        storage: ClaimsOnArrival,
        queue: str,
        worker: str,
        lease: int,
        runs: Sized,
        launch: Callable[[Sequence[Claimed], float], None],
        expired: Callable[[Sequence[str]], None],
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._worker = worker
        self._lease = lease
        self._runs = runs
        self._launch = launch
        self._expired = expired
        self._together = 1
        """Jobs that ran together after the last claim."""
        self._until = 0.0
        self.longest = min(WARM, PART * lease / 1000)
        """Seconds that one claim waits at most."""

    def note(self, now: float) -> None:
        """Note that jobs were claimed, and run now."""
        self._together = len(self._runs)
        self._until = now + self.longest

    def suit(self, now: float) -> bool:
        """Return whether the worker should claim on arrival now."""
        return now < self._until and not self._runs

    async def claim(self, now: float, timeout: float) -> Exchanged | None:
        """Wait for jobs, claim them and start them. ``None``: use `Storage.exchange`."""
        answer = await self._storage.claim_on_arrival(
            self._queue, self._worker, self._together, self._lease, timeout
        )
        if answer is not None and answer.jobs:
            self._launch(answer.jobs, now)
        if answer is not None and answer.expired:
            self._expired(answer.expired)
        return answer
