"""Renews the leases of a worker's running jobs, from a thread.

Liveness must not depend on what it certifies: a handler that blocks the event loop keeps its lease,
because the renewals come from another thread, with its own event loop and its own connection. All
leases of one worker, which is one queue object, travel in one call, every third of the visibility timeout.

A process that cannot renew distrusts itself before others may take its jobs: a run whose lease was
not confirmed for two thirds of the visibility timeout, by the monotonic clock and counted from the
*start* of the last call that held it, is aborted as lost.

The thread also notices when the owner's event loop is blocked, and logs where: `loopwatch`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from jobqueue.errors import JobQueueError
from jobqueue.job import AbortedReason
from jobqueue.loopwatch import LoopWatch
from jobqueue.options import millis
from jobqueue.storage.base import LeaseStatus, Renewal, Storage

__all__ = ["Heartbeat", "Lease"]

_LAST_CALL = 5.0
"""Seconds that the thread gets to end when its worker stops."""
BLOCKED = 0.3
"""Part of the lease after which an event loop that does not answer counts as blocked."""


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
    """Renews what is in ``leases`` (fence to run) until stopped.

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
        self._abort = abort
        self._begin = begin
        self._report = report
        self._owner: asyncio.AbstractEventLoop | None = None
        self._watch: LoopWatch | None = None
        self._stopped = False
        self._wake: Callable[[], None] | None = None

    async def run(self) -> None:
        """Renew until cancelled."""
        self._owner = asyncio.get_running_loop()
        if self._clock.virtual:
            # Time stands still until the test moves it: a thread would race with the test.
            await self._beat_forever(self._storage)
            return
        # A little less than the pause between two looks, so that the second one finds it.
        bound = self._lease * BLOCKED
        self._watch = LoopWatch(self._owner, bound, self._clock, f"worker {self._worker} of {self._queue}")
        ended = self._owner.create_future()
        thread = threading.Thread(target=self._thread, args=(ended,), name="jobqueue-heartbeat", daemon=True)
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            self._stopped = True
            if self._wake is not None:
                self._wake()
            # Bounded: a store that does not close must not keep the owner from stopping.
            await asyncio.wait([ended], timeout=_LAST_CALL)

    def _thread(self, ended: asyncio.Future[None]) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again where somebody sees it
            failure = error
            self._tell(lambda: ended.set_exception(failure))
        else:
            self._tell(lambda: ended.set_result(None))

    async def _main(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # this loop has ended already
                loop.call_soon_threadsafe(stop.set)

        self._wake = wake
        if self._stopped:  # before there was anything to wake
            return
        beating = asyncio.create_task(self._connected())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({beating, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating

    async def _connected(self) -> None:
        storage = self._storage.clone()
        while True:
            try:
                # Bounded as a renewal is, and for the same reason.
                await asyncio.wait_for(storage.open(), self._lease / 3)
                break
            except (JobQueueError, TimeoutError) as error:
                self._failed(error)
                self._trusted(self._clock.monotonic())
                await self._clock.sleep(self._pause())
        try:
            await self._beat_forever(storage)
        finally:
            await storage.close()

    async def _beat_forever(self, storage: Storage) -> None:
        while True:
            await self._clock.sleep(self._pause())
            if self._owner is None or self._owner.is_closed():  # its runs have ended with it
                return
            if self._watch is not None:
                await self._watch.look()
            await self._beat(storage)

    def _pause(self) -> float:
        """Return the seconds to sleep: a third of the lease, less if a run is to be distrusted earlier."""
        now, pause = self._clock.monotonic(), self._lease / 3
        for lease in self._snapshot():
            left = lease.confirmed_at + trusted_for(self._lease) - now
            # A renewed lease has two thirds left. One third or less: its renewal failed, try again soon.
            if left < pause * 1.5:
                return max(self._lease / 30, min(left, self._lease / 15))
        return pause

    async def _beat(self, storage: Storage) -> None:
        now = self._clock.monotonic()
        renewable: list[Lease] = []
        for lease in self._trusted(now):
            if lease.over:
                self._tell(partial(self._begin, lease.fence))
            if lease.renew_until is None or now < lease.renew_until:
                renewable.append(lease)
        if not renewable:
            return
        renewals = [Renewal(lease.id, lease.fence) for lease in renewable]
        call = storage.extend(self._queue, self._worker, renewals, millis(self._lease))
        try:
            # Bounded, so that a store that does not answer cannot keep a run from distrusting itself.
            statuses = await (call if self._clock.virtual else asyncio.wait_for(call, self._lease / 3))
        except (JobQueueError, TimeoutError) as error:
            self._failed(error)
            return
        self._apply(renewable, statuses, now)

    def _apply(self, leases: Sequence[Lease], statuses: Sequence[LeaseStatus], now: float) -> None:
        for lease, status in zip(leases, statuses, strict=True):
            if status is LeaseStatus.LOST:
                self._tell_abort(lease, AbortedReason.LEASE_LOST)
                continue
            lease.confirmed_at = now
            if status is LeaseStatus.CANCELLING:
                self._tell_abort(lease, AbortedReason.CANCELLED)

    def _trusted(self, now: float) -> list[Lease]:
        """Return the leases that are still relied on; abort the runs of all others."""
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

    def _failed(self, error: BaseException) -> None:
        self._tell(lambda: self._report(error))

    def _tell(self, function: Callable[[], object]) -> None:
        assert self._owner is not None
        with suppress(RuntimeError):  # the owner's loop has closed: it is gone, and so are its runs
            self._owner.call_soon_threadsafe(function)
