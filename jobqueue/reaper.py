"""The reaper: takes jobs back from dead workers, and deletes expired records.

It looks at leases, not at workers: a lease that has run out is recovered, whoever held it. Its steps
are idempotent and fenced, so any number of reapers may run; a leader election only saves work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar, get_args, overload

from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.eventlog import EventLog
from jobqueue.events import (
    Emitter,
    ErrorOccurred,
    JobStalled,
    LeadershipAcquired,
    LeadershipLost,
    Listener,
    ReaperEvent,
    ReaperEventName,
)
from jobqueue.forks import tell_in_child
from jobqueue.identity import Identity
from jobqueue.job import JobState
from jobqueue.leadership import Leadership
from jobqueue.loops import Home, open_apart
from jobqueue.options import LeaderElection, check_queue_name, check_seconds, fitting_lock_name
from jobqueue.presence import Presence
from jobqueue.signals import serve_until_signal
from jobqueue.storage.base import Storage
from jobqueue.storage.sweeping import Sweepable
from jobqueue.storage.urls import as_storage
from jobqueue.supervisor import Supervisor

__all__ = ["REAPER_LOCK", "Reaper"]

REAPER_LOCK = "reaper"
"""Name of the lock that the reapers of all queues of a store contend for."""
BATCH = 500
ABREAST = 100
"""Queues that are swept at once: their calls share round trips, or turns of a file store."""
SWEEP_ALL = 60.0
"""Seconds between two sweeps that leave no queue out: they forget workers and empty queues, too."""
LAST_CALL = 1.0
"""Seconds that a stopping reaper waits until it is off the list of reapers."""
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


class Reaper:
    """Recovers stalled jobs and purges expired ones, until stopped.

    Args:
        storage: a store, or a URL for `open_storage`; ``None``: the URL in ``JOBQUEUE_STORAGE``.
        queues: names of the queues to sweep; ``None``: all queues of the store.
        sweep_interval: seconds from the start of one sweep to that of the next, at most; it begins up to
            a fifth earlier, and only later if the sweep before takes longer.
        leader_election: sweep only while this reaper is the elected one; ``None``: always.

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
        self._storage = as_storage(storage)
        if isinstance(queues, str) or not isinstance(queues, Sequence | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError("queues", f"must be a list of names, not {type(queues).__name__}")
        self._queues = None if queues is None else [check_queue_name(name, "queues") for name in queues]
        self._interval = check_seconds("sweep_interval", sweep_interval)
        if leader_election is not None and not isinstance(leader_election, LeaderElection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError("leader_election", "must be a LeaderElection or None")
        self._election = leader_election
        self._identity = Identity()
        self._emitter = Emitter(*_EVENTS)
        EventLog(self._emitter)
        self._supervisor: Supervisor | None = None
        self._leadership: Leadership | None = None
        self._presence: Presence | None = None
        self._swept = False
        self._sweep_all_at = 0.0
        self._defect: BaseException | None = None
        self._over = asyncio.Event()
        self._home: Home | None = None
        """The event loop of the current or last start."""
        self._changing = asyncio.Lock()
        self._in_child = False

    @property
    def id(self) -> str:
        """The name of this reaper as owner of the leader lock; it differs in a forked child."""
        return self._identity.name

    @property
    def is_leader(self) -> bool:
        """Whether this reaper is started and sweeps; with an election, only the leader does."""
        if self._supervisor is None or self._defect is not None:
            return False
        return self._leadership is None or self._leadership.term is not None

    @property
    def ready(self) -> bool:
        """Whether the reaper is started and the store answered the last sweep and election."""
        if self._supervisor is None or self._defect is not None:
            return False
        if self._leadership is None:
            return self._swept
        return self._leadership.reached and (self._leadership.term is None or self._swept)

    @overload
    def on(self, name: type[E], listener: Listener[E]) -> Callable[[], None]: ...
    @overload
    def on(self, name: ReaperEventName, listener: Listener[Any]) -> Callable[[], None]: ...
    def on(self, name: Any, listener: Listener[Any]) -> Callable[[], None]:
        """Call ``listener(event)`` at every event of that name or class; return a function that removes it.

        Names: ``stalled``, ``leadership_acquired``, ``leadership_lost``, ``error``.
        """
        return self._emitter.on(name, listener)

    async def start(self) -> None:
        """Open the store and sweep. Does nothing if started. Raises `StorageError`."""
        self._check_loop()
        async with self._changing:
            if self._supervisor is not None:
                if self._in_child:
                    raise JobQueueError(
                        "this reaper was started before a fork: "
                        "make a new Reaper, on a new store, in the child"
                    )
                return
            self._home = Home()
            await open_apart(self._storage)
            tell_in_child(self)
            self._over, self._defect = asyncio.Event(), None
            self._swept = False
            supervisor = Supervisor(self._break)
            try:
                await supervisor.start()
            except BaseException:
                await supervisor.stop()
                await self._storage.close()
                raise
            self._supervisor = supervisor
            self._presence = Presence(
                self._storage, self.id,
                sweeps=lambda: self.is_leader,
                failed=lambda error: self._report(error, "noting that this reaper sweeps"),
            )  # fmt: skip
            self._supervisor.spawn(self._presence.keep(), "presence")
            if self._election is None:
                self._supervisor.spawn(self._sweep_forever(), "reaper")
            else:
                self._leadership = Leadership(
                    self._storage, lock_name(self._queues), self.id, self._election,
                    acquired=lambda term: self._emitter.emit(LeadershipAcquired(self.id, term)),
                    lost=lambda term, why: self._emitter.emit(LeadershipLost(self.id, term, why)),
                    failed=lambda error: self._report(error, "electing the leading reaper"),
                )  # fmt: skip
                self._supervisor.spawn(self._leadership.while_leader(self._sweep_forever), "reaper")

    async def stop(self) -> None:
        """Cancel the current sweep and give leadership up. Does nothing if not started."""
        self._check_loop()
        async with self._changing:
            supervisor, self._supervisor = self._supervisor, None
            if supervisor is None or self._in_child:  # what a child finds is the parent's
                return
            try:
                await supervisor.stop()
                await self._leave()
            finally:
                self._leadership = None
                try:
                    await self._storage.close()
                finally:
                    self._over.set()
        await self._emitter.drain(self._storage.clock)

    async def _leave(self) -> None:
        if self._presence is not None:
            call = self._presence.leave()
            with suppress(TimeoutError):  # then it is taken for dead after a while
                await (call if self._storage.clock.virtual else asyncio.wait_for(call, LAST_CALL))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop. Also returns when another task calls `stop`.

        Raises the error of a background task that only a restart can fix, as `until_broken` does.
        """
        await serve_until_signal(self.start, self.stop, lambda: None, self.until_broken)
        await self._emitter.drain(self._storage.clock)  # of a stop by another task, which may be at it still

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
        """Return the queues to sweep now: all of them every minute, and else those that need it."""
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
        while swept := await self._storage.sweep(queue, BATCH):
            stalled += len(swept)
            for job in swept:
                failed = job.state is JobState.FAILED
                self._emitter.emit(JobStalled(job.id, queue, job.worker, job.stalls, failed))
        while await self._storage.purge(queue, BATCH) == BATCH:
            pass
        return stalled

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

    def _check_loop(self) -> None:
        """Raise `JobQueueError` in another event loop than that of the start; forget one that has ended."""
        home = self._home
        if home is None or home.is_here() or self._in_child:
            return
        if home.is_gone:
            self._home, self._supervisor, self._leadership = None, None, None
            self._changing = asyncio.Lock()
        elif self._supervisor is not None or self._changing.locked():
            raise JobQueueError(
                "this reaper was started in another event loop: use it there, "
                "or make another Reaper, on a store of its own, in this one"
            )

    def forked(self) -> None:
        """Neither sweep nor stop: tasks, sockets and event loop are the parent's."""
        self._in_child = self._supervisor is not None

    def _report(self, error: BaseException, doing: str, queue: str | None = None) -> None:
        self._emitter.emit(ErrorOccurred(error, doing, queue))

    def _break(self, defect: BaseException) -> None:
        self._defect = defect
        self._report(defect, "running the reaper")
        self._over.set()

    async def until_broken(self) -> None:
        """Wait until a background task fails in a way only a restart can fix, and raise that error.

        Returns when the reaper is stopped.
        """
        self._check_loop()
        if self._supervisor is not None:
            await self._over.wait()
        if self._defect is not None:
            raise JobQueueError(f"the reaper broke: {self._defect!r}") from self._defect
