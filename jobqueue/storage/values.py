"""The values of the storage contract: arguments and answers of stores.

A store knows a worker by a text, ``worker``: the `worker_id` of the queue object whose runs it holds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from jobqueue.model.limits import MAX_WEIGHT, NO_LIMIT, Limit, Rate
from jobqueue.model.new_job import (
    DEAD_LETTER_TTL,
    MAX_HEADERS,
    MAX_LABEL_BYTES,
    CheckedJob,
    Conflict,
    NewJob,
    Reuse,
)
from jobqueue.model.outcomes import MAX_SUMMARY
from jobqueue.model.states import JobState

__all__ = [
    "DEAD_LETTER_TTL",
    "EXPIRE_LIMIT",
    "MAX_CHANGES",
    "MAX_DOCUMENT",
    "MAX_DOCUMENT_PAGE",
    "MAX_HEADERS",
    "MAX_HISTORY",
    "MAX_LABEL_BYTES",
    "MAX_SUMMARY",
    "MAX_WAITERS",
    "MAX_WAITER_BYTES",
    "MAX_WEIGHT",
    "PROMOTE_LIMIT",
    "WORKER_SEEN_FOR",
    "AdmissionInfo",
    "AttemptRecord",
    "CancelStatus",
    "Change",
    "CheckedJob",
    "Claimed",
    "Conflict",
    "Counts",
    "Document",
    "DocumentPage",
    "Exchanged",
    "InsertStatus",
    "Inserted",
    "LeaseStatus",
    "Limit",
    "LockInfo",
    "NewJob",
    "Page",
    "Rate",
    "Record",
    "Renewal",
    "Reply",
    "Reuse",
    "Rules",
    "SettleStatus",
    "Swept",
    "UpdateTtlStatus",
    "Usage",
    "WorkerInfo",
]

PROMOTE_LIMIT = 1000
"""Largest number of due jobs that one `Storage.exchange` moves to ready, so that no step takes long."""
EXPIRE_LIMIT = 1000
"""Largest number of jobs that one `Storage.exchange` fails since they have not started in time."""
WORKER_SEEN_FOR = 60_000
"""Milliseconds that a worker is listed after its last `exchange` or `extend`."""
MAX_WAITERS = 1_000
"""Largest number of addresses that wait for one job."""
MAX_WAITER_BYTES = 65_536
"""Largest number of bytes that a store keeps of the addresses that wait for one job."""
MAX_HISTORY = 20
"""Largest number of failed attempts and stalls that a store keeps of one job: the last ones."""
MAX_DOCUMENT = 65_536
"""Largest number of bytes in one document."""
MAX_CHANGES = 1_000
"""Largest number of documents that one call reads or changes."""
MAX_DOCUMENT_PAGE = 1_048_576
"""Bytes of documents after which a page of them ends."""


class InsertStatus(StrEnum):
    CREATED = "created"
    FOUND = "found"
    FULL = "full"
    REPLACED = "replaced"
    """The job that waited has become the new one."""


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


class Inserted(NamedTuple):
    """The answer of `Storage.insert` for one job."""

    status: InsertStatus
    seq: int
    """Number of this incarnation of the id: a replaced or re-created job has a larger one. 0 if full."""
    state: JobState
    data: bytes | None = None
    """The result if ``completed``, the encoded error if ``failed``, else ``None``."""
    attempts: int = 0


class AttemptRecord(NamedTuple):
    """One failed attempt of a job, or one stall."""

    at: int
    """Instant at which the store wrote it."""
    attempt: int
    """Claims counted so far, that of this attempt included."""
    worker: str
    """Name of the worker that had the lease."""
    error: bytes
    """`Settlement.summary` of the attempt; `STALLED_ERROR` of `jobqueue.model.outcomes` for a stall."""


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
    headers: bytes = b""
    """Not in listings."""
    task: str = ""
    group: str = ""
    history: tuple[AttemptRecord, ...] = ()
    """The last `MAX_HISTORY` failed attempts and stalls, oldest first. Not in listings."""
    expires: int | None = None
    """Milliseconds after ``run_at`` within which it has to start for the first time; ``None``: no limit."""


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
    headers: bytes = b""
    task: str = ""
    group: str = ""
    seq: int = 0
    """Number of this incarnation of the id."""
    due: int = 0
    """Instant at which it was due, as in `Record.run_at`: after a release or a stall still that of before."""
    saved: bytes | None = None
    """The last checkpoint of an earlier run; ``None`` without one."""
    history: tuple[AttemptRecord, ...] = ()
    """The last `MAX_HISTORY` failed attempts and stalls, oldest first."""


class Exchanged(NamedTuple):
    """The answer to `Storage.exchange`."""

    settled: list[SettleStatus]
    jobs: list[Claimed]
    next_due: int | None
    """Milliseconds until the next scheduled job is due (0: now), ``None`` if none is scheduled. If fewer jobs
    than ``limit`` were claimed: or until a rate that keeps others back opens, if that is earlier."""
    more: bool = False
    """Jobs may be ready although fewer than ``limit`` were claimed, since a store may keep an answer small:
    ask again at once. Then at least one job was claimed, or has ``expired``, unless ``limit`` is 0."""
    paused: bool = False
    """The queue is paused: nothing was claimed, and nothing will be until it is resumed."""
    expired: tuple[str, ...] = ()
    """Ids of the jobs that this call has failed, since they had not started in time: earliest first."""


class Renewal(NamedTuple):
    """A lease to extend."""

    id: str
    fence: int
    progress: bytes | None = None
    """Replaces the record's progress, unless ``None``."""
    saved: bytes | None = None
    """A checkpoint for later runs: replaces the one before, unless ``None``. Kept over retries, stalls and
    releases, dropped when the job ends."""


class Swept(NamedTuple):
    """A job whose lease had expired, or that had not started in time."""

    id: str
    state: JobState
    """``queued`` (recovered), ``failed`` (abandoned) or ``cancelled`` (had been requested)."""
    attempts: int
    stalls: int
    worker: str
    """Name of the worker that lost the lease; empty if none had it."""
    expired: bool = False
    """It had not started in time: it has ``failed``, and no lease was lost."""


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
    """Creation time of the oldest among the *next* ready job of each priority; ``None`` without any. Where
    groups take turns, the next job of any of them may be looked at, instead of the one whose turn it is."""


class Page(NamedTuple):
    """Part of a listing."""

    records: list[Record]
    """The records, without results, payloads, headers and history."""
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


class Rules(NamedTuple):
    """What a queue lets its workers claim. The default of each field restricts nothing.

    Grows by fields at the end, each with a default and an entry in the table of `jobqueue.storage.rules`. A
    store of an earlier release that meets a rule which it does not know must not take it for none: it
    claims nothing.
    """

    paused: bool = False
    """No job is claimed. Running ones go on, and are settled."""
    queue: Limit = NO_LIMIT
    """What holds for all its jobs together. This and all below: of a store that is `Limiting`."""
    group: Limit = NO_LIMIT
    """What holds for the jobs of each group. Jobs without a group have none."""
    operator: bool = False
    """The limits were set by an operator: no store minds, but what code declares leaves them alone."""


class AdmissionInfo(NamedTuple):
    """The rules of a queue, and where it stands by them."""

    rules: Rules
    running: int
    """Number of leases."""
    ready: int
    """Number of jobs that could be claimed if there were no rules."""
    next_due: int | None
    """Milliseconds until the next scheduled job is due (0: now), ``None`` if none is scheduled."""


class Usage(NamedTuple):
    """Where a queue, or one of its groups, stands by its limit."""

    running: int
    """Number of leases."""
    opens_in: int | None
    """Milliseconds until one more job may start; 0: now; ``None``: not before a run ends."""


class Document(NamedTuple):
    """A small named value."""

    name: str
    version: int
    """Rises with every change of the name, and starts at 1 or more."""
    data: bytes


class Change(NamedTuple):
    """A document to write or delete, if it has not been changed by others meanwhile."""

    name: str
    expected: int | None
    """The version read before; 0: there must be no such document; ``None``: whatever is there is replaced."""
    data: bytes | None
    """The new value, at most `MAX_DOCUMENT` bytes; ``None`` deletes."""


class DocumentPage(NamedTuple):
    """Part of a listing."""

    documents: list[Document]
    cursor: str | None
    """Argument for the next call; ``None`` after the last page."""
