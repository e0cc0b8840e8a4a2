"""The storage contract: the exact behaviour of every store.

Units and rules that hold for every call:

* Instants and durations are whole **milliseconds** (instants since the epoch). Only the store's own
  clock decides what is due or expired; a store built with ``clock=`` (for tests) uses that.
* Every argument is **checked per call, before anything is stored**: a bad one raises `InvalidArgumentError`,
  which names it, and fails the call that has it alone, although a store may merge calls. The checks, for
  stores to begin their calls with, are `jobqueue.storage.arguments`. Payloads, headers, results, errors,
  progress and checkpoints are opaque bytes. What a store returns never aliases what it keeps.
* Calls are batch first: results stand in the order of the arguments. Each call is **one atomic step**
  per queue: another call sees all of it or nothing. Items are applied in order, so that an id that
  occurs twice in one `insert` is created once and then found.
* A record is *absent* if it was never written, or its ``expires_at`` has passed. Whether the bytes
  are still there makes no difference to any call.
* A failed job with a ``dead_letter_ttl`` is a *dead letter* until its end + max(``ttl``,
  ``dead_letter_ttl``). From ``expires_at`` on it is absent to every call but these: `scan` lists it and
  `counts` counts it as failed, `get` finds it if asked for ``letters``, and
  `jobqueue.storage.capabilities.Revival` acts on it. `purge` deletes it when its time is over; a new job of
  its id replaces it at once.
* A live job is in exactly one index: *ready* (``queued``), *scheduled* (``scheduled``, ``failing``)
  or *leased* (``processing``).
* Ready jobs are ordered by priority, highest first, and within a priority first in, first out.
  What one call releases or recovers goes to the front of its priority, in the order of the fences.
* Every claim, recovery and abandonment gives the record a new **fence**, larger than every fence that
  this store gave before. A write with another fence than the record's has no effect.
* The waiters of a live job are a set of addresses, registered by `insert` and `get` and taken off only when
  the job ends: who stops waiting is not known to a store. So the set is **bounded**, to `MAX_WAITERS`
  addresses, for which no more than `MAX_WAITER_BYTES` bytes are kept: a new one that exceeds this drops those
  that were registered first. Registering again moves nothing, and a dropped one can register again: it lost
  a push, which costs its caller one poll at the most.
* Every answer about a job names its incarnation by the same ``seq``: insertions, records and replies. It is
  never that of an earlier or later job with the id, or somebody who waits would take one for the other.
* Faults: `StorageUnavailableError` if a later try may work, `StorageError` if not, `QueueFullError`
  if there is no room. A store retries by itself what it can retry without doing it twice.
* Every coroutine may be cancelled at any await: the step then happened or did not, and the store
  stays usable. What a cancelled `Storage.exchange` has claimed is given back as soon as the store knows
  of it, since nobody else ever will.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import get_annotations
from typing import Protocol, Self, runtime_checkable

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import Clock
from jobqueue.storage.values import (
    CancelStatus,
    Counts,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    Reply,
    Swept,
    UpdateTtlStatus,
    WorkerInfo,
)

__all__ = [
    "Jobs",
    "Listing",
    "Locks",
    "Opening",
    "Pushes",
    "Sink",
    "Storage",
    "Upkeep",
    "Work",
    "members",
    "missing",
]


class Sink(Protocol):
    """Receives the messages that a store pushes to one address, in the event loop that subscribed."""

    def deliver(self, replies: Sequence[Reply]) -> None:
        """Receive replies for jobs this address waits for."""

    def cancel_requested(self, queue: str, id: str, fence: int) -> None:
        """Receive a request to end a running job of this worker."""

    def resync(self) -> None:
        """Read everything waited for again: the connection was renewed, and messages may have been missed."""


class Opening(Protocol):
    """The lifecycle and the properties of a store object."""

    clock: Clock
    """The clock of all queues, workers and reapers on this store."""
    batched: bool
    """Whether calls cost a round trip or a disk write, so that merging them pays."""
    shared: bool
    """Whether other processes see the same jobs."""

    async def open(self) -> None:
        """Connect on the first call; later calls are counted. Each `open` needs one `close`.

        Raises `StorageUnavailableError` if the store cannot be reached, `StorageError` if it can
        and must not be used. Every other call needs an open store and raises `StorageError`
        otherwise.
        """

    async def close(self) -> None:
        """Undo one `open`; the last one releases all connections. Jobs stay. Closing again does nothing."""

    def clone(self) -> Self:
        """Return an unopened handle on the same jobs for another thread's event loop."""
        ...


class Jobs(Protocol):
    """Creating, reading, cancelling and keeping jobs."""

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        """Create every job whose id is absent, or whose ended job ``reuse`` replaces.

        A cancelled job counts as absent. A created job starts over in every field and gets a new
        ``seq``; it is ready if its due time has come, else scheduled. A found one is not changed.
        With ``reply_to``, jobs that ask to ``wait`` register it as a waiter, created or found, unless they
        have ended.

        ``max_length`` refuses (``full``) a job that would make the number of waiting jobs (ready and
        scheduled) exceed it; found jobs are answered all the same.
        """
        ...

    async def get(
        self,
        queue: str,
        ids: Sequence[str],
        *,
        reply_to: str | None = None,
        payload: bool = False,
        letters: bool = False,
    ) -> list[Record | None]:
        """Read records, ``None`` where absent. With ``reply_to``, register it at the live ones.

        With ``letters``, dead letters are found too: failed jobs whose ``expires_at`` has passed.
        """
        ...

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        """Cancel waiting jobs; with ``running``, ask the workers of running ones to end them.

        A cancelled record stays for its TTL, for later questions, but its id is free at once.
        A request for a running job is stored (`extend` and settlements honour it) and pushed to
        the worker's address. Repeating it is harmless.
        """
        ...

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        """Set the expiry of ended jobs to some milliseconds from now; dead letters stay as long at least."""
        ...


class Work(Protocol):
    """Handing out jobs under a lease and taking their outcomes."""

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        """Hand in finished runs and claim up to ``limit`` jobs; never blocks.

        In this order: (1) Each settlement whose fence is the record's and whose job is
        ``processing`` is written; one already settled by that fence is accepted again without
        effect; others are lost. With a cancel request, the job ends as cancelled. ``retry`` makes it
        due after its delay. ``release`` undoes the claim's attempt and puts the job in front.
        ``retry`` and ``fail`` add an `AttemptRecord` to the history, of which the last `MAX_HISTORY` stay.
        Waiters of ended jobs are sent a `Reply` and forgotten. A settlement that is accepted now inserts
        its ``then`` right after it is written, before the next one, as `insert` would without ``reply_to``
        and ``max_length``; one that is lost, cancelled, or accepted again by a repeat inserts nothing.
        (2) Unless ``limit`` is 0, up to `PROMOTE_LIMIT` due jobs move from scheduled to the back of
        ready, by due time, then by ``seq``. (3) Unless ``limit`` is 0 or the queue is ``paused``, jobs that
        have not started in time fail, as `sweep` says: at most `EXPIRE_LIMIT`; when there are more, none is
        claimed, and there is ``more``. So what is claimed is in time. (4) Up to ``limit`` jobs are claimed in
        ready order: attempts + 1, a new fence (rising in that order), progress cleared, the worker and a
        lease of ``lease`` ms. A store whose answers travel may claim fewer, at least one, so that the answer
        stays small; it then says that there may be ``more``. None is claimed while the queue is ``paused``
        by `jobqueue.storage.capabilities.Admission`; (1) and (2) are done all the same.

        The worker is noted as seen.
        """
        ...

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        """Renew leases to now + ``lease``; store progress and checkpoints. Lost where the fence is old.

        A lease whose time has run out but that no sweep has taken is still held.
        The worker is noted as seen. One that renews nothing, for 0 ms, leaves: it is no longer listed.
        """
        ...

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        """Block until work may exist or ``timeout`` seconds have passed.

        A hint: True at once if a job is ready; True early if one becomes ready, or if one is
        scheduled that is due sooner than any other. One that was scheduled before this call, but after
        the worker's last `exchange`, ends it when it is due at the latest. False alarms are allowed.
        While the queue is paused a ready job is no reason to return; that it is resumed is one.
        """
        ...


class Upkeep(Protocol):
    """Recovering jobs of dead workers and deleting expired records."""

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        """Recover jobs with an expired lease, and fail those that have not started in time; idempotent.

        Up to ``limit``: first those with a lease, oldest claim first.

        Stalls + 1, a new fence, and an `AttemptRecord` in the history, with `STALLED_ERROR` of
        `jobqueue.model.outcomes`. A job whose cancellation was requested ends as cancelled; one with more
        stalls than ``max_stalls`` fails with that error; any other goes to the front of ready. Waiters of
        ended jobs are sent a `Reply`.

        Then those that were never claimed, and whose time to start (``expires`` ms after they were due) has
        passed, by that instant, then by ``seq``: each fails with `EXPIRED_ERROR` of
        `jobqueue.model.outcomes`, for its own ``ttl``, and is a dead letter like any failed job.
        """
        ...

    async def purge(self, queue: str, limit: int) -> int:
        """Delete up to ``limit`` expired records and forget unseen workers; return the number of records."""
        ...


class Listing(Protocol):
    """Listing and counting jobs, queues and workers."""

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        """List jobs of one state, a page at a time.

        A job that is in the state from the first page to the last is listed exactly once; the order
        is the store's own. A cursor that the store did not give raises `InvalidArgumentError`.
        """
        ...

    async def counts(self, queue: str) -> Counts:
        """Count jobs by state."""
        ...

    async def queues(self) -> list[str]:
        """Return the names of the queues that hold a record, sorted. An emptied one may still be named."""
        ...

    async def workers(self, queue: str) -> list[WorkerInfo]:
        """List the workers seen within `WORKER_SEEN_FOR`, by name."""
        ...


class Pushes(Protocol):
    """Pushes: replies and cancel requests for subscribers."""

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Push the messages for ``address`` about jobs of ``queue`` to ``sink``, from this return on.

        That is replies and cancel requests. An address may have several sinks; each gets everything. Hints:
        any may be lost. ``sink.resync`` follows every reconnection. A sink must not call the store.
        """
        ...

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Stop pushing to this sink. Harmless if it is not subscribed."""
        ...


class Locks(Protocol):
    """Named locks with a term."""

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        """Acquire a named lock for ``ttl`` ms; return its term number, or ``None`` if another owner holds it.

        Terms rise with every change of hands. The holder gets its own term again, renewed.
        """
        ...

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        """Extend the lock to ``ttl`` ms from now, if ``owner`` still holds it."""
        ...

    async def lock_release(self, lock: str, owner: str) -> bool:
        """Release the lock if ``owner`` still holds it, and wake its waiters."""
        ...

    async def lock_holder(self, lock: str) -> LockInfo | None:
        """Return the holder of the lock, ``None`` if it is free."""
        ...

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        """Block until the lock may be free or ``timeout`` seconds have passed. A hint."""
        ...


@runtime_checkable
class Storage(Opening, Jobs, Work, Upkeep, Listing, Pushes, Locks, Protocol):
    """Keeps jobs. One object serves many queues and reapers of one event loop.

    Closed at these calls: abilities that come later are `jobqueue.storage.capabilities`, facts that come
    later are fields with a default at the end of a value.
    """


def members(protocol: type) -> list[str]:
    """Return the names of a protocol's attributes and calls, in the order in which they are written."""
    parts = [part for part in protocol.__mro__ if getattr(part, "_is_protocol", False)]
    names = (name for part in parts for name in (*get_annotations(part), *vars(part)))
    return list(dict.fromkeys(name for name in names if not name.startswith("_")))


_WHOLE = members(Storage)


def missing(store: object) -> list[str]:
    """Return the names of `Storage` that an object lacks; empty if it is whole."""
    return [name for name in _WHOLE if getattr(store, name, None) is None]
