"""Renews the leases of a worker's running jobs, from a thread.

Liveness must not depend on what it certifies: a handler that blocks the event loop keeps its lease,
because the renewals come from another thread, with its own event loop and its own connection, which all
workers on the same store share: `heartbeat_thread`. All leases of one worker, which is one queue object,
travel in one call, every third of the visibility timeout.

A run that has ended keeps its lease until its outcome is handed in, which a blocked event loop may hold up,
but for one visibility timeout more at most: an outcome that the store does not take must not hold its job.

A process that cannot renew distrusts itself before others may take its jobs: a run whose lease was
not confirmed for two thirds of the visibility timeout, by the monotonic clock and counted from the
*start* of the last call that held it, is aborted as lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from jobqueue.errors import JobQueueError
from jobqueue.model.checks import millis
from jobqueue.model.outcomes import AbortedReason
from jobqueue.runtime.bounded import within
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import LeaseStatus, Renewal
from jobqueue.worker.heartbeat_thread import thread_for

__all__ = ["Heartbeat", "Lease"]

_THREAD_DRAIN = 5.0
"""Seconds that the thread gets to end its call, or itself, when a worker stops."""


class Lease(Protocol):
    """The part of a run that a heartbeat uses."""

    confirmed_at: float
    renew_until: float | None

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def fence(self) -> int:
        """The claim's fence."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing runs any more."""
        ...


def trusted_for(lease: float) -> float:
    """Return for how long after its last confirmation a lease of ``lease`` seconds is relied on."""
    return lease * 2 / 3


class Heartbeat:
    """Renews the runs in ``leases`` (by fence), and those in ``ended``, until stopped.

    In the owner's event loop are called ``abort(fence, reason)`` for runs that lost their lease or were
    asked to cancel, ``begin(fence)`` for runs that ended without a word, and ``report(error)`` for a
    renewal that failed and is tried again.
    """

    def __init__(
        self,
        storage: Storage,
        queue: str,
        worker: str,
        lease: float,
        leases: Mapping[int, Lease],
        ended: Iterable[Lease],
        abort: Callable[[int, AbortedReason], None],
        begin: Callable[[int], None],
        report: Callable[[BaseException], None],
    ) -> None:
        self._storage = storage
        self._clock = storage.clock
        self._queue = queue
        self._worker = worker
        self._lease = lease
        self._leases = leases
        self._ended = ended
        self._abort = abort
        self._begin = begin
        self._report = report
        self._hand_in_until: dict[int, float] = {}
        """By fence, of the runs that had ended at the last beat: when their leases are renewed no more."""
        self._owner = asyncio.get_running_loop()

    @property
    def lease(self) -> float:
        """Seconds of a lease."""
        return self._lease

    @property
    def worker_label(self) -> str:
        """The worker and its queue, for the log."""
        return f"worker {self._worker} of {self._queue}"

    async def run(self) -> None:
        """Renew until cancelled."""
        if self._clock.virtual:
            # Time stands still until the test moves it: a thread would race with the test.
            while True:
                await self._clock.sleep(self.pause())
                await self.beat(self._storage)
        thread = thread_for(self._storage)
        broken = thread.add(self)
        try:
            await asyncio.shield(broken)
        finally:
            # Bounded: a store that does not close must not keep the owner from stopping.
            ends = [thread.leave(self), thread.over]
            await asyncio.wait(ends, timeout=_THREAD_DRAIN, return_when=asyncio.FIRST_COMPLETED)

    def pause(self) -> float:
        """Return the seconds until the next beat: a third of the lease, less before a run is distrusted."""
        now, pause = self._clock.monotonic(), self._lease / 3
        for lease in self._snapshot():
            left = lease.confirmed_at + trusted_for(self._lease) - now
            # A renewed lease has two thirds left. One third or less: its renewal failed, try again soon.
            if left < pause * 1.5:
                return max(self._lease / 30, min(left, self._lease / 15))
        return pause

    async def beat(self, storage: Storage) -> None:
        """Renew the leases that are to be renewed, in one call."""
        now = self._clock.monotonic()
        renewable: list[Lease] = []
        for lease in self.distrust():
            if lease.over:
                self._tell(partial(self._begin, lease.fence))
            if lease.renew_until is None or now < lease.renew_until:
                renewable.append(lease)
        renewable += self._ended_lately(now)
        if not renewable:
            return
        renewals = [Renewal(lease.id, lease.fence) for lease in renewable]
        call = storage.extend(self._queue, self._worker, renewals, millis(self._lease))
        try:
            # Bounded, so that a store that does not answer cannot keep a run from distrusting itself.
            statuses = await within(self._clock, call, self._lease / 3)
        except (JobQueueError, TimeoutError) as error:
            self.failed(error)
            return
        self._apply(renewable, statuses, now)

    def _ended_lately(self, now: float) -> list[Lease]:
        """Return the leases of runs that have ended, and whose outcome is still to be handed in."""
        ended = list(self._ended)
        until = self._hand_in_until
        self._hand_in_until = {lease.fence: until.get(lease.fence, now + self._lease) for lease in ended}
        return [lease for lease in ended if now < self._hand_in_until[lease.fence]]

    def _apply(self, leases: Sequence[Lease], statuses: Sequence[LeaseStatus], now: float) -> None:
        for lease, status in zip(leases, statuses, strict=True):
            if status is LeaseStatus.LOST:
                self._tell_abort(lease, AbortedReason.LEASE_LOST)
                continue
            lease.confirmed_at = now
            if status is LeaseStatus.CANCELLING:
                self._tell_abort(lease, AbortedReason.CANCELLED)

    def distrust(self) -> list[Lease]:
        """Abort the runs whose lease was not confirmed for too long; return the leases still relied on."""
        now = self._clock.monotonic()
        trusted: list[Lease] = []
        for lease in self._snapshot():
            if lease.confirmed_at + trusted_for(self._lease) <= now:
                self._tell_abort(lease, AbortedReason.LEASE_LOST)
            else:
                trusted.append(lease)
        return trusted

    def _snapshot(self) -> Sequence[Lease]:
        # One call into C, which no other thread can interrupt: the owner changes the dict meanwhile.
        return list(self._leases.values())

    def _tell_abort(self, lease: Lease, reason: AbortedReason) -> None:
        self._tell(lambda: self._abort(lease.fence, reason))

    def failed(self, error: BaseException) -> None:
        """Report, in the owner's event loop, a fault that is tried again."""
        self._tell(lambda: self._report(error))

    def _tell(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the owner's loop has closed: it is gone, and so are its runs
            self._owner.call_soon_threadsafe(function)
