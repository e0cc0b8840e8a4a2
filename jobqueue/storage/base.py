"""The storage contract: the exact behaviour of every store.

Units and rules that hold for every call:

* Instants and durations are whole **milliseconds** (instants since the epoch). Only the store's own
  clock decides what is due or expired; a store built with ``clock=`` (for tests) uses that.
* Every argument is **checked per call, before anything is stored**: a bad one raises `InvalidArgumentError`,
  which names it, and fails the call that has it alone, although a store may merge calls. The checks, for
  stores to begin their calls with, are `jobqueue.storage.arguments`. Payloads, results, errors and progress
  are opaque bytes. What a store returns never aliases what it keeps.
* Calls are batch first: results stand in the order of the arguments. Each call is **one atomic step**
  per queue: another call sees all of it or nothing. Items are applied in order, so that an id that
  occurs twice in one `insert` is created once and then found.
* A record is *absent* if it was never written, or its ``expires_at`` has passed. Whether the bytes
  are still there makes no difference to any call.
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
from enum import StrEnum
from typing import NamedTuple, Protocol, Self, runtime_checkable

from jobqueue.job import JobState, Settlement
from jobqueue.runtime import Clock

__all__ = [
    "MAX_WAITERS",
    "MAX_WAITER_BYTES",
    "PROMOTE_LIMIT",
    "WORKER_SEEN_FOR",
    "CancelStatus",
    "CheckedJob",
    "Claimed",
    "Counts",
    "Exchanged",
    "InsertStatus",
    "Inserted",
    "LeaseStatus",
    "LockInfo",
    "NewJob",
    "Page",
    "Record",
    "Renewal",
    "Reply",
    "Reuse",
    "SettleStatus",
    "Sink",
    "Storage",
    "Swept",
    "UpdateTtlStatus",
    "WorkerInfo",
]

PROMOTE_LIMIT = 1000
"""Largest number of due jobs that one `Storage.exchange` moves to ready, so that no step takes long."""
WORKER_SEEN_FOR = 60_000
"""Milliseconds that a worker is listed after its last `exchange` or `extend`."""
MAX_WAITERS = 1_000
"""Largest number of addresses that wait for one job."""
MAX_WAITER_BYTES = 65_536
"""Largest number of bytes that a store keeps of the addresses that wait for one job."""


class Reuse(StrEnum):
    """How `Storage.insert` treats an id whose job has ended. A cancelled job is always absent."""

    RETURN = "return"
    """The ended job is found and its outcome returned."""
    RERUN_FAILED = "rerun_failed"
    """A failed job is replaced; a completed one is found."""
    RERUN = "rerun"
    """Any ended job is replaced."""


class InsertStatus(StrEnum):
    CREATED = "created"
    FOUND = "found"
    FULL = "full"


class SettleStatus(StrEnum):
    ACCEPTED = "accepted"
    """Written, now or by an earlier call with this fence."""
    CANCELLED = "cancelled"
    """A cancellation had been requested: the job ended as cancelled, whatever the settlement said."""
    LOST = "lost"
    """The record has another fence or is absent: nothing was written."""


class LeaseStatus(StrEnum):
    HELD = "held"
    CANCELLING = "cancelling"
    """The lease is held, and a cancellation of the job has been requested."""
    LOST = "lost"


class CancelStatus(StrEnum):
    """The answer to a cancel."""

    CANCELLED = "cancelled"
    NOT_FOUND = "not_found"
    PROCESSING = "processing"
    """The job runs and ``running=True`` was not given: nothing was changed."""
    CANCELLING = "cancelling"
    """The job runs: its worker has been asked to end it, and it will end as cancelled."""
    COMPLETED = "completed"
    FAILED = "failed"


class UpdateTtlStatus(StrEnum):
    """The answer to a change of TTL."""

    UPDATED = "updated"
    NOT_FOUND = "not_found"
    NOT_TERMINAL = "not_terminal"
    """The job has not ended, so nothing expires yet."""


class NewJob(NamedTuple):
    """A job to insert."""

    id: str
    payload: bytes
    priority: int = 0
    delay: int = 0
    """Milliseconds from the store's now until it is due."""
    run_at: int | None = None
    """The instant at which it is due; overrides ``delay``."""
    max_attempts: int = 3
    max_stalls: int = 2
    ttl: int = 3_600_000
    """Milliseconds that the record stays after the job has ended."""
    reuse: Reuse = Reuse.RETURN
    wait: bool = False
    """Register the call's ``reply_to`` as a waiter, unless the job has ended."""


class CheckedJob(NewJob):
    """A job whose fields need no check: a queue made it. A changed copy is a `NewJob` again."""

    __slots__ = ()
    # `_replace` calls it, and makes what is not checked.
    _make = NewJob._make  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class Inserted(NamedTuple):
    """The answer of `Storage.insert` for one job."""

    status: InsertStatus
    seq: int
    """Number of this incarnation of the id: a replaced or re-created job has a larger one. 0 if full."""
    state: JobState
    data: bytes | None = None
    """The result if ``completed``, the encoded error if ``failed``, else ``None``."""
    attempts: int = 0


class Record(NamedTuple):
    """A job as it is in the store."""

    id: str
    seq: int
    state: JobState
    priority: int
    run_at: int
    """Instant at which it is or was due."""
    created_at: int
    updated_at: int
    attempts: int
    max_attempts: int
    stalls: int
    max_stalls: int
    ttl: int
    fence: int
    """Fence of the last claim, recovery or abandonment; 0 before the first."""
    worker: str | None
    """Name of the worker that holds the lease; ``None`` unless ``processing``."""
    lease_until: int | None
    """Instant at which the lease ends; ``None`` unless ``processing``."""
    cancelling: bool
    result: bytes | None
    """Only if ``completed``."""
    error: bytes | None
    """Encoded error of the last failed attempt, until the job completes."""
    progress: bytes | None
    """The last value that the running or last attempt reported."""
    expires_at: int | None
    """``None`` while the job is live."""
    payload: bytes | None
    """Only if requested; ``None`` for completed and cancelled jobs, whose payload is dropped."""


class Claimed(NamedTuple):
    """A job handed to a worker, with its lease."""

    id: str
    payload: bytes
    fence: int
    attempts: int
    """Claims so far, this one included; runs that were released do not count."""
    max_attempts: int
    ttl: int
    created_at: int


class Exchanged(NamedTuple):
    """The answer to `Storage.exchange`."""

    settled: list[SettleStatus]
    jobs: list[Claimed]
    next_due: int | None
    """Milliseconds until the next scheduled job is due (0: now), ``None`` if none is scheduled."""
    more: bool = False
    """Jobs may be ready although fewer than ``limit`` were claimed, since a store may keep an answer small:
    ask again at once. Then at least one job was claimed, unless ``limit`` is 0."""


class Renewal(NamedTuple):
    """A lease to extend."""

    id: str
    fence: int
    progress: bytes | None = None
    """Replaces the record's progress, unless ``None``."""


class Swept(NamedTuple):
    """A job whose lease had expired."""

    id: str
    state: JobState
    """``queued`` (recovered), ``failed`` (abandoned) or ``cancelled`` (had been requested)."""
    attempts: int
    stalls: int
    worker: str
    """Name of the worker that lost the lease."""


class Counts(NamedTuple):
    """Number of jobs in each state. Absent ones are not counted."""

    scheduled: int = 0
    queued: int = 0
    processing: int = 0
    failing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    oldest: int | None = None
    """Creation time of the oldest among the *next* ready job of each priority; ``None`` without any."""


class Page(NamedTuple):
    """Part of a listing."""

    records: list[Record]
    """The records, without results and payloads."""
    cursor: str | None
    """Argument for the next call; ``None`` after the last page."""


class WorkerInfo(NamedTuple):
    """A worker that has called lately."""

    worker: str
    seen_at: int
    running: int
    """Number of leases that it holds."""


class LockInfo(NamedTuple):
    """The holder of a named lock."""

    owner: str
    term: int
    expires_at: int


class Reply(NamedTuple):
    """A hint that a job has ended."""

    queue: str
    id: str
    seq: int
    state: JobState
    """``completed``, ``failed`` or ``cancelled``."""
    data: bytes | None
    """The result or the encoded error; ``None`` if there is none or it is too large to push."""
    attempts: int


class Sink(Protocol):
    """Receives the messages that a store pushes to one address, in the event loop that subscribed."""

    def deliver(self, replies: Sequence[Reply]) -> None:
        """Receive replies for jobs this address waits for."""

    def cancel(self, queue: str, id: str, fence: int) -> None:
        """Receive a request to end a running job of this worker."""

    def resync(self) -> None:
        """Read everything waited for again: the connection was renewed, and messages may have been missed."""


@runtime_checkable
class Storage(Protocol):
    """Keeps jobs. One object serves many queues and reapers of one event loop."""

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
    ) -> list[Record | None]:
        """Read records, ``None`` where absent. With ``reply_to``, register it at the live ones."""
        ...

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        """Hand in finished runs and claim up to ``limit`` jobs; never blocks.

        In this order: (1) Each settlement whose fence is the record's and whose job is
        ``processing`` is written; one already settled by that fence is accepted again without
        effect; others are lost. With a cancel request, the job ends as cancelled. ``retry`` makes it
        due after its delay. ``release`` undoes the claim's attempt and puts the job in front.
        Waiters of ended jobs are sent a `Reply` and forgotten.
        (2) Unless ``limit`` is 0, up to `PROMOTE_LIMIT` due jobs move from scheduled to the back of
        ready, by due time, then by ``seq``. (3) Up to ``limit`` jobs are claimed in ready order:
        attempts + 1, a new fence (rising in that order), progress cleared, the worker and a lease of
        ``lease`` ms. A store whose answers travel may claim fewer, at least one, so that the answer
        stays small; it then says that there may be ``more``.

        The worker is noted as seen.
        """
        ...

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        """Renew leases to now + ``lease`` and store progress. Lost where the fence is not current.

        A lease whose time has run out but that no sweep has taken is still held.
        The worker is noted as seen. One that renews nothing, for 0 ms, leaves: it is no longer listed.
        """
        ...

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        """Take up to ``limit`` jobs with an expired lease from their workers, oldest claim first; idempotent.

        Stalls + 1 and a new fence. A job whose cancellation was requested ends as cancelled; one with
        more stalls than ``max_stalls`` fails with `jobqueue.job.STALLED_ERROR`; any other goes to the
        front of ready. Waiters of ended jobs are sent a `Reply`.
        """
        ...

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        """Cancel waiting jobs; with ``running``, ask the workers of running ones to end them.

        A cancelled record stays for its TTL, for later questions, but its id is free at once.
        A request for a running job is stored (`extend` and settlements honour it) and pushed to
        the worker's address. Repeating it is harmless.
        """
        ...

    async def keep(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        """Set the expiry of ended jobs to so many milliseconds from now."""
        ...

    async def purge(self, queue: str, limit: int) -> int:
        """Delete up to ``limit`` expired records and forget unseen workers; return the number of records."""
        ...

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

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        """Block until work may exist or ``timeout`` seconds have passed.

        A hint: True at once if a job is ready; True early if one becomes ready, or if one is
        scheduled that is due sooner than any other. One that was scheduled before this call, but after
        the worker's last `exchange`, ends it when it is due at the latest. False alarms are allowed.
        """
        ...

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Push the messages for ``address`` about jobs of ``queue`` to ``sink``, from this return on.

        That is replies and cancel requests. An address may have several sinks; each gets everything. Hints:
        any may be lost. ``sink.resync`` follows every reconnection. A sink must not call the store.
        """
        ...

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Stop pushing to this sink. Harmless if it is not subscribed."""
        ...

    async def acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        """Take a named lock for ``ttl`` ms; return its term number, or ``None`` if another owner holds it.

        Terms rise with every change of hands. The holder gets its own term again, renewed.
        """
        ...

    async def renew(self, lock: str, owner: str, ttl: int) -> bool:
        """Extend the lock to ``ttl`` ms from now, if ``owner`` still holds it."""
        ...

    async def release(self, lock: str, owner: str) -> bool:
        """Give the lock up, if ``owner`` still holds it, and wake those that wait for it."""
        ...

    async def holder(self, lock: str) -> LockInfo | None:
        """Return the holder of the lock, ``None`` if it is free."""
        ...

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        """Block until the lock may be free or ``timeout`` seconds have passed. A hint."""
        ...
