"""Decides when it is worth asking the store for jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial

from jobqueue.errors import JobQueueError
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.supervisor import Supervisor
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Exchanged
from jobqueue.worker.arrivals import Arrivals

__all__ = ["Pauses", "WorkHint"]

MOST = 10
"""Failures in a row that still make the next pause longer."""
LONGEST = 5.0
"""Seconds of the longest pause."""


class Pauses:
    """Growing random pauses between tries that fail."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.failures = 0
        """Tries that have failed since the last one that succeeded."""

    async def pause(self) -> None:
        """Wait after one more failure."""
        self.failures = min(self.failures + 1, MOST)
        await self._clock.sleep(self._clock.uniform(0.0, min(LONGEST, 0.05 * 2**self.failures)))


class WorkHint:
    """Knows whether a claim may bring jobs, and listens for the store's wake-up when it may not.

    ``wake()`` is called when a wake-up has come, ``report(error, doing)`` for a store that cannot be
    listened to. With ``arrivals``, a wake-up may bring jobs.
    """

    def __init__(
        self,
        storage: Storage,
        queue: str,
        worker: str,
        block_timeout: float,
        supervisor: Supervisor,
        wake: Callable[[], None],
        report: Callable[[BaseException, str], None],
        arrivals: Arrivals | None,
    ) -> None:
        self._storage = storage
        self._arrivals = arrivals
        self._clock = storage.clock
        self._queue = queue
        self._worker = worker
        self._block_timeout = block_timeout
        self._supervisor = supervisor
        self._wake = wake
        self._report = report
        self._pauses = Pauses(self._clock)
        self._due_at = math.inf
        """When the next scheduled job is due, by the monotonic clock."""
        self._listener: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._listening = False
        """Whether `_listener` listens. It stays between two waits: making a task takes longer."""
        self._wait: Callable[[], Awaitable[bool]] = partial(self._hear, block_timeout)
        """How it listens; returns whether asking may bring jobs."""
        self._claims = False
        """Whether it listens for jobs that are claimed on their arrival."""
        self._listening_until = 0.0
        """When the wait for a wake-up ends of itself."""
        self.promising = True
        """Whether asking may bring jobs. Set by answers and by wake-ups; cleared only by who asks, before
        the call and not after it: a wake-up that comes meanwhile is for jobs that the call has not seen.
        """

    def take(self, answer: Exchanged, limit: int | None = None) -> None:
        """Note an answer: that to an exchange that asked for ``limit`` jobs, or to a claim on arrival."""
        due, jobs = answer.next_due, answer.jobs
        self._due_at = math.inf if due is None else self._clock.monotonic() + due / 1000
        if jobs and self._arrivals is not None:
            self._arrivals.note(self._clock.monotonic())
        if answer.more or len(jobs) == limit:
            self.promising = True

    def listen(self, *, alone: bool = True) -> None:
        """Have the next wake-up set `promising`, or bring jobs.

        Not jobs unless ``alone``: a call that is under way may fill the slots.
        """
        now = self._clock.monotonic()
        claims = alone and self._arrivals is not None and self._arrivals.suit(now)
        if not self._listening:
            self._begin(now, claims=claims)
        elif self._due_at < self._listening_until:
            # A run of ours was put off since the wait began, until before its end.
            self.stop()
            self._wake()
        elif claims and not self._claims:
            # If its wake-up comes just now, `claim_on_arrival` asks for an exchange: none is lost.
            self._dismiss()
            self._begin(now, claims=True)

    def _begin(self, now: float, *, claims: bool) -> None:
        self._claims = claims
        if claims and self._arrivals is not None:
            timeout = max(0.0, min(self._arrivals.longest, self._due_at - now))
            self._wait = partial(self._claim, self._arrivals, now, timeout)
        else:
            timeout = max(0.0, min(self._block_timeout, self._due_at - now))
            self._wait = partial(self._hear, timeout)
        self._listening_until = now + timeout
        self._listening = True
        if self._listener is None:
            self._listener = self._supervisor.spawn(self._listen(), "hint")
        self._begun.set()  # now, as a task that is eager has begun by now, and must not listen unknown

    def stop(self) -> None:
        """Stop listening: a wake-up that a full worker consumes is one that a free worker misses."""
        if self._listening:
            self._dismiss()
            self.promising = True  # the wake-up may have come just now, and nobody hears it any more

    def _dismiss(self) -> None:
        listener, self._listener = self._listener, None
        self._listening = False
        self._begun.clear()
        if listener is not None:
            self._supervisor.dismiss(listener)

    async def close(self) -> None:
        """Stop listening, and wait for the end of it."""
        listener = self._listener
        self.stop()
        if listener is not None:
            self._dismiss()
            await asyncio.wait([listener])

    async def _listen(self) -> None:
        me = asyncio.current_task()
        while True:
            await self._begun.wait()
            self._begun.clear()
            promising = True
            try:
                promising = await self._wait()
                self._pauses.failures = 0
            except JobQueueError as error:
                if self._listener is not me:
                    return  # it was dismissed, and the store calls that a failure
                self._report(error, "waiting for work")
                await self._pauses.pause()
            finally:
                if self._listener is me:
                    self._listening = False
                    self.promising = self.promising or promising
                    self._wake()
            if self._listener is not me:
                return

    async def _hear(self, timeout: float) -> bool:
        """Wait for a wake-up: asking may bring jobs then."""
        await self._storage.wait_for_work(self._queue, self._worker, timeout)
        return True

    async def _claim(self, arrivals: Arrivals, now: float, timeout: float) -> bool:
        """Claim jobs on their arrival; return whether asking may bring more."""
        answer = await arrivals.claim(now, timeout)
        if answer is None:
            return True
        self.take(answer)
        if answer.jobs:
            await self._clock.sleep(0)  # as after an exchange: runs that end at once are handed in next
        return False
