"""Leader election: a named lock with a lease, held by at most one process that trusts itself.

How it works
------------
A candidate takes the lock for ``lock_ttl`` and renews it every ``renewal_interval``. It trusts its
leadership until a deadline by its *own monotonic clock*, counted from the **start** of the last
attempt that succeeded, and short of the TTL by a tenth: so it stops before the lock can expire, even
if the answer was slow, the process was stopped for a while, or the store cannot be reached.

A follower asks every ``acquire_retry_interval``, at once when the lock is released, and when the lock
that it saw is to expire. A leader that stops releases at once; one that dies is replaced when its lock
has expired.

What it does not do
-------------------
It does not make two leaders impossible: a process that was frozen learns only afterwards that it no
longer leads. So nothing may rest on it but economy. Sweeps are fenced and idempotent, and any number
of reapers may run at once. For everything else there is the term: it rises with every change of
hands; pass it on, and let the receiver refuse older ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.model.checks import (
    check_seconds,
    millis,
)
from jobqueue.runtime.bounded import within
from jobqueue.storage.contract import Storage

__all__ = ["LeaderElection", "Leadership"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderElection:
    """Options of the election of one leading reaper, all in seconds.

    Raises `InvalidArgumentError` if ``renewal_interval`` is not below ``lock_ttl``.
    """

    lock_ttl: float = 30.0
    """Seconds that leadership outlives a dead leader."""
    renewal_interval: float = 10.0
    """Seconds between two renewals by the leader."""
    acquire_retry_interval: float = 5.0
    """Seconds between two tries of a follower."""

    def __post_init__(self) -> None:
        check_seconds("lock_ttl", self.lock_ttl)
        check_seconds("renewal_interval", self.renewal_interval)
        check_seconds("acquire_retry_interval", self.acquire_retry_interval)
        if self.renewal_interval >= self.lock_ttl:
            raise InvalidArgumentError("renewal_interval", "must be shorter than lock_ttl")


MARGIN = 0.1
"""Part of the lock's TTL by which a leader stops early, to be sure to stop in time."""
CROWD = 0.05
"""Followers woken by the same release retry spread over so many seconds."""


class Leadership:
    """Runs a duty while this process leads.

    ``acquired(term)`` and ``lost(term, why)`` are called at the changes, ``failed(error)`` for a
    store that cannot be asked.
    """

    def __init__(
        self,
        storage: Storage,
        lock: str,
        owner: str,
        options: LeaderElection,
        *,
        acquired: Callable[[int], None],
        lost: Callable[[int, str], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._storage = storage
        self._clock = storage.clock
        self._lock = lock
        self._owner = owner
        self._options = options
        self._acquired = acquired
        self._lost = lost
        self._failed = failed
        self._deadline = 0.0
        self.term: int | None = None
        """The term that this process leads; ``None`` if it does not lead."""
        self.reached = False
        """Whether the store answered the last request."""

    async def while_leader(self, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Follow and lead in turns, until cancelled; ``duty`` runs while leading.

        The duty is cancelled when leadership ends. One that raises ends this call with its error.
        """
        while True:
            pause = self._options.acquire_retry_interval * self._clock.uniform(0.8, 1.2)
            try:
                term = await self._acquire()
                if term is None:
                    await self._follow(pause)
            except JobQueueError as error:
                self._fail(error)
                await self._clock.sleep(pause)
                continue
            if term is not None:
                await self._lead(term, duty)

    async def _acquire(self) -> int | None:
        started = self._clock.monotonic()
        try:
            term = await self._storage.lock_acquire(self._lock, self._owner, millis(self._options.lock_ttl))
        except asyncio.CancelledError:
            await self._release()  # the lock may be taken by now, and nobody would lead for its TTL
            raise
        self._trust_from(started)
        self.reached = True
        return term

    async def _follow(self, pause: float) -> None:
        started = self._clock.monotonic()
        pause = min(pause, await self._expiry(pause))
        await self._storage.wait_for_lock(self._lock, pause)
        if self._clock.monotonic() - started < pause:
            # Woken by a release: all followers were, so they come one after the other.
            await self._clock.sleep(self._clock.uniform(0.0, min(CROWD, pause)))

    async def _expiry(self, otherwise: float) -> float:
        """Estimate the seconds until the lock expires, to be there when its holder has died.

        An estimate, since the instant is on the store's clock: with clocks that differ it is too early or
        too late, and then the next regular try counts.
        """
        held = await self._storage.lock_holder(self._lock)
        left = otherwise if held is None else held.expires_at / 1000 - self._clock.time()
        return left + self._clock.uniform(0.0, CROWD) if left > 0 else otherwise

    async def _lead(self, term: int, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.term, why = term, "stopped"
        self._acquired(term)
        working = asyncio.create_task(duty(), name="jobqueue-duty")
        keeping = asyncio.create_task(self._keep(), name="jobqueue-leadership")
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            why = _why(working, keeping)
        finally:
            keeping.cancel()
            working.cancel()
            self.term = None
            self._lost(term, why)
            await asyncio.wait({working, keeping})
            await self._release()
        if not working.cancelled():
            working.result()  # raises what the duty raised

    async def _keep(self) -> str:
        """Renew until leadership ends; return the reason."""
        pause = self._options.renewal_interval
        while True:
            left = self._deadline - self._clock.monotonic()
            await self._clock.sleep(max(0.0, min(pause, left)))
            started = self._clock.monotonic()
            if started >= self._deadline:
                return "no renewal succeeded in time"
            call = self._storage.lock_renew(self._lock, self._owner, millis(self._options.lock_ttl))
            try:
                held = await within(self._clock, call, self._deadline - started)
            except (JobQueueError, TimeoutError) as error:
                self._fail(error)
                pause = self._options.renewal_interval / 10
                continue
            self.reached = True
            if not held:
                return "another took the lock"
            self._trust_from(started)
            pause = self._options.renewal_interval

    async def _release(self) -> None:
        # Best effort, for a fast change of hands: a lock that stays expires.
        call = self._storage.lock_release(self._lock, self._owner)
        try:
            await within(self._clock, call, self._options.renewal_interval)
        except (JobQueueError, TimeoutError) as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.reached = False
        self._failed(error)

    def _trust_from(self, started: float) -> None:
        self._deadline = started + self._options.lock_ttl * (1 - MARGIN)


def _why(working: asyncio.Task[None], keeping: asyncio.Task[str]) -> str:
    if working.cancelled() or keeping.cancelled():
        return "one of its tasks was cancelled by other code; it is sought again"
    return keeping.result() if keeping.done() else "stopped"
