"""The reaper: recovers the jobs of dead workers, deletes expired records, enqueues what schedules are due.

It also fails the jobs that have not started in time.
It looks at leases, not at workers: a lease that has run out is recovered, whoever held it. Its steps
are idempotent and fenced, so any number of reapers may run; a leader election only saves work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, overload

from jobqueue.emitter import Emitter
from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.events import (
    ErrorOccurred,
    JobDeadLettered,
    JobStalled,
    LeadershipAcquired,
    LeadershipLost,
    Listener,
    ReaperEvent,
    ReaperEventName,
)
from jobqueue.maintenance.leadership import LeaderElection, Leadership
from jobqueue.maintenance.session import ReaperSession
from jobqueue.model.checks import check_queue_name, check_seconds, fitting_lock_name
from jobqueue.model.names import REAPER_LOCK
from jobqueue.model.outcomes import EXPIRED_ERROR, STALLED_ERROR, decode_error
from jobqueue.model.states import JobState
from jobqueue.observe.logs import EventLog
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.runtime.identity import Identity
from jobqueue.runtime.lifecycle import Service
from jobqueue.runtime.loops import Home, open_apart
from jobqueue.schedules.scheduler import Scheduler
from jobqueue.storage.capabilities import Documents, Sweepable, Tended
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import as_storage

__all__ = ["Reaper"]

ABREAST = 100
"""Queues that are swept at once: their calls share round trips, or turns of a file store."""
SWEEP_ALL = 60.0
"""Seconds between two sweeps that leave no queue out: they forget workers and empty queues, too."""
SPREAD = (0.8, 0.95)
"""From the start of one sweep to that of the next, in parts of the interval.

Drawn, so that reapers do not sweep in step. Less than one, so that the sweep itself, and the claim after it,
fit into the interval: it is part of a promise.
"""

_EVENTS = get_args(ReaperEvent)

E = TypeVar("E", bound=ReaperEvent)


def lock_name(queues: Sequence[str] | None) -> str:
    """Return the name of the lock for reapers of these queues. Reapers of others do other work."""
    return REAPER_LOCK if queues is None else fitting_lock_name(REAPER_LOCK, ",".join(sorted(set(queues))))


class Reaper(Service[ReaperSession]):
    """Recovers stalled jobs, purges expired ones, and enqueues the jobs of schedules, until stopped.

    Args:
        storage: a store, or a URL for `open_storage`; ``None``: the URL in ``JOBQUEUE_STORAGE``.
        queues: names of the queues to sweep and to run the schedules of; ``None``: all queues of the store.
        sweep_interval: seconds from the start of one sweep to that of the next, at most; it begins up to
            a fifth earlier, and only later if the sweep before takes longer.
        leader_election: sweep only while this reaper is the elected one; ``None``: always. Schedules run
            with every reaper, as each tick is enqueued once.

    Raises `InvalidArgumentError`.
    """

    def __init__(
        self,
        storage: Storage | str | None = None,
        queues: Sequence[str] | None = None,
        *,
        sweep_interval: float = 5.0,
        leader_election: LeaderElection | None = None,
    ) -> None:
        super().__init__("this reaper", "Reaper")
        self._storage = as_storage(storage)
        if isinstance(queues, str) or not isinstance(queues, Sequence | None):
            raise InvalidArgumentError("queues", f"must be a list of names, not {type(queues).__name__}")
        self._queues = None if queues is None else [check_queue_name(name, "queues") for name in queues]
        self._interval = check_seconds("sweep_interval", sweep_interval)
        if leader_election is not None and not isinstance(leader_election, LeaderElection):
            raise InvalidArgumentError("leader_election", "must be a LeaderElection or None")
        self._election = leader_election
        self._identity = Identity()
        self._emitter = Emitter(*_EVENTS)
        EventLog(self._emitter)
        self._swept = False
        self._sweep_all_at = 0.0

    @property
    def storage(self) -> Storage:
        """The store of this reaper."""
        return self._storage

    @property
    def id(self) -> str:
        """The name of this reaper as owner of the leader lock; it differs in a forked child."""
        return self._identity.name

    @property
    def is_leader(self) -> bool:
        """Whether this reaper is started and sweeps; with an election, only the leader does."""
        return self._session is not None and self._session.leads

    @property
    def queues(self) -> tuple[str, ...] | None:
        """The names of the queues that it serves; ``None``: all of the store."""
        return None if self._queues is None else tuple(self._queues)

    @property
    def schedule_lag(self) -> float | None:
        """Seconds by which the most overdue tick of its schedules is late, 0.0 if none is.

        ``None`` while it is not started, and if no schedule has a tick to come.
        """
        scheduler = None if self._session is None else self._session.scheduler
        return None if scheduler is None else scheduler.lag

    def configure(self, *, storage: Storage | str) -> None:
        """Replace the store, as a command line does; only before `start`.

        Raises `InvalidArgumentError`, and `JobQueueError` if the reaper is started.
        """
        self._check_unstarted()
        self._storage = as_storage(storage)

    @overload
    def on(self, name: type[E], listener: Listener[E]) -> Callable[[], None]: ...
    @overload
    def on(self, name: ReaperEventName, listener: Listener[Any]) -> Callable[[], None]: ...
    def on(self, name: Any, listener: Listener[Any]) -> Callable[[], None]:
        """Call ``listener(event)`` at every event of that name or class; return a function that removes it.

        Names: ``stalled``, ``dead_lettered``, ``leadership_acquired``, ``leadership_lost``, ``error``.
        """
        return self._emitter.on(name, listener)

    async def stop(self) -> None:
        """Cancel the current sweep and give leadership up. Does nothing if not started."""
        await self._stop()

    def hurry(self) -> None:
        """Do nothing: a reaper holds no jobs, and stops at once."""

    async def _begin(self, home: Home) -> ReaperSession:
        await open_apart(self._storage)
        self._swept = False
        session = ReaperSession(home, self._storage, self.id, self._report, swept=lambda: self._swept)
        try:
            await session.supervisor.start()
        except BaseException:
            await session.close()
            raise
        if self._election is not None:
            session.leadership = Leadership(
                self._storage, lock_name(self._queues), self.id, self._election,
                acquired=lambda term: self._emitter.emit(LeadershipAcquired(self.id, term)),
                lost=lambda term, why: self._emitter.emit(LeadershipLost(self.id, term, why)),
                failed=lambda error: self._report(error, "electing the leading reaper"),
            )  # fmt: skip
        if isinstance(self._storage, Documents):
            session.scheduler = Scheduler(
                self._storage, self._queues, leads=lambda: session.leads, failed=self._report
            )
        session.work(self._work_forever)
        return session

    async def _has_stopped(self) -> None:
        await self._until_told()

    async def _until_told(self) -> None:
        await self._emitter.drain(self._storage.clock)

    async def sweep(self) -> int:
        """Sweep once now: recover and purge until nothing is left; return the number of stalled jobs.

        A queue that fails causes an ``error`` event, and the others are swept all the same; the first
        such error is raised in the end. Needs an open store: call it between `start` and `stop`.
        Raises `StorageError`.
        """
        try:
            queues = await self._choose_queues()
        except JobQueueError as error:
            self._report(error, "sweeping")
            raise
        stalled, first = 0, None  # the first failure, if any
        for start in range(0, len(queues), ABREAST):
            swept = await asyncio.gather(*map(self._try_to_sweep, queues[start : start + ABREAST]))
            stalled += sum(count for count, _ in swept)
            first = first or next((failure for _, failure in swept if failure is not None), None)
        if first is not None:
            raise first
        return stalled

    async def _choose_queues(self) -> Sequence[str]:
        """Return the queues to sweep now: all of them every minute, otherwise those that need it."""
        queues = self._queues if self._queues is not None else await self._storage.queues()
        now = self._storage.clock.monotonic()
        if now >= self._sweep_all_at or not isinstance(self._storage, Sweepable):
            self._sweep_all_at = now + SWEEP_ALL
            return queues
        return await self._storage.to_sweep(queues)

    async def _try_to_sweep(self, queue: str) -> tuple[int, JobQueueError | None]:
        try:
            return await self._sweep(queue), None
        except JobQueueError as error:
            self._report(error, f"sweeping queue {queue!r}", queue)
            return 0, error

    async def _sweep(self, queue: str) -> int:
        stalled = 0
        while swept := await self._storage.sweep(queue, MOST_ITEMS):
            stalled += sum(not job.expired for job in swept)
            for job in swept:
                failed = job.state is JobState.FAILED
                if not job.expired:
                    self._emitter.emit(JobStalled(job.id, queue, job.worker, job.stalls, failed))
                if failed:
                    error, reason = decode_error(EXPIRED_ERROR if job.expired else STALLED_ERROR)
                    self._emitter.emit(
                        JobDeadLettered(job.id, queue, error, job.attempts, reason, worker_id=job.worker)
                    )
        while await self._storage.purge(queue, MOST_ITEMS) == MOST_ITEMS:
            pass
        return stalled

    async def _work_forever(self) -> None:
        """Sweep, and do what the store has to do beside that."""
        if not isinstance(self._storage, Tended):
            await self._sweep_forever()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_forever(), name="jobqueue-sweeping")
            group.create_task(self._storage.tend(), name="jobqueue-tending")

    async def _sweep_forever(self) -> None:
        clock = self._storage.clock
        while True:
            due = clock.monotonic() + self._interval * clock.uniform(*SPREAD)
            try:
                await self.sweep()
                self._swept = True
            except JobQueueError:  # told by `sweep`
                self._swept = False
            await clock.sleep(max(0.0, due - clock.monotonic()))

    def _report(self, error: BaseException, doing: str, queue: str | None = None) -> None:
        self._emitter.emit(ErrorOccurred(error, doing, queue))
