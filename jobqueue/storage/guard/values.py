"""The values between a guarded store, its ledger, and those who ask about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from jobqueue.model.new_job import NewJob
from jobqueue.model.states import JobState

__all__ = [
    "CODES",
    "REPLACED",
    "Change",
    "GuardEvent",
    "GuardNotice",
    "GuardStats",
    "History",
    "Known",
    "Reconciled",
    "Row",
    "Written",
]

CODES = {state: number for number, state in enumerate(JobState, start=1)}
"""The states by their numbers in the ledger."""
REPLACED = 8
"""State of a job whose id another one has, and whose end was not recorded."""


class Written(NamedTuple):
    """A job to be written into the ledger before the store has it."""

    token: str
    queue: str
    job: NewJob
    at: float
    """When it was asked for, by the monotonic clock."""

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return len(self.job.payload) + len(self.job.headers) + 700


class Row(NamedTuple):
    """A live job of the ledger."""

    token: str
    queue: str
    id: str
    state: JobState
    attempts: int
    due: int
    created: int


class Known(NamedTuple):
    """The last job of an id that the ledger remembers, and the store may have lost."""

    id: str
    token: str
    state: JobState
    data: bytes | None
    attempts: int
    created: int
    updated: int
    expires: int
    """0 while it is live."""
    fence: int
    """That of its last run."""


class History(NamedTuple):
    """One change of a job's state."""

    at: int
    """Milliseconds since 1970."""
    event: str
    worker: str = ""
    attempt: int = 0
    error: str = ""


@dataclass(slots=True)
class Change:
    """What has become of a job since the ledger was last told. Later changes are merged into earlier ones."""

    token: str
    state: int | None = None
    attempts: int | None = None
    worker: str | None = None
    error: str | None = None
    data: bytes | None = None
    due: int | None = None
    payload: bytes | None = None
    ttl: int | None = None
    """Milliseconds from now until the outcome expires."""
    seq: int | None = None
    """Number that the job had in the store, if known: what is told of one that was revived since counts no
    more."""
    fence: int | None = None
    """That of the run."""
    revives: int | None = None
    """For a failed job that lives again: the number that it had until then."""
    replaces: bool = False
    """Whether it took the place of a job of its id that waited."""
    drops: bool = False
    """Whether the job was never made: its row goes."""
    history: list[History] = field(default_factory=list[History])

    def merge(self, later: Change) -> None:
        """Take a later change in."""
        if later.revives is not None:
            self.state = self.data = self.ttl = None
            self.revives = later.revives
        for name in ("state", "attempts", "worker", "error", "data", "due", "payload", "ttl", "seq", "fence"):
            value = getattr(later, name)
            if value is not None:
                setattr(self, name, value)
        self.replaces |= later.replaces
        self.drops |= later.drops
        self.history += later.history

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        data = len(self.data or b"") + len(self.payload or b"") + len(self.error or "")
        return 500 + data + sum(200 + len(entry.error) for entry in self.history)


class GuardStats(NamedTuple):
    """Counts of the ledger, and the state of the guard in this process."""

    pending: int
    """Jobs that wait, scheduled ones included."""
    processing: int
    completed: int
    failed: int
    """Jobs whose last attempt failed and whose next one waits."""
    stuck: int
    """Jobs whose lease was over for ``stuck_after`` seconds when the store was last compared."""
    dead: int
    """Jobs that failed for good."""
    total: int
    """All jobs that the ledger remembers, cancelled ones included."""
    buffered: int
    """Writes of this process that the ledger does not have yet."""
    breaker: str
    """``closed``, ``open`` or ``half_open``."""


class GuardEvent(NamedTuple):
    """One change of a job's state, for its history."""

    at: datetime
    event: str
    """``enqueued``, ``claimed``, ``completed``, ``failed``, ``retried``, ``released``, ``recovered``,
    ``expired``, ``cancelled``, ``requeued``, ``revived``, ``removed``, ``replacing`` (it took the place of a
    job of its id that waited) or ``replaced`` (that happened to it, or its end was not recorded)."""
    worker: str
    attempt: int
    error: str
    """At most 5,000 characters, control characters escaped."""


class GuardNotice(NamedTuple):
    """Something that befell the guard of this process."""

    kind: str
    """``ledger_away``, ``ledger_back``, ``ledger_slow`` (callers wait for it: it is slower than the store),
    ``dropped`` (a write that was refused, or the first that found no room), ``store_lost`` (it was wiped or
    set back) or ``brought_back`` (jobs that the store had lost)."""
    detail: str
    """The same for people."""


class Reconciled(NamedTuple):
    """The outcome of a comparison."""

    compared: int
    """Live jobs of the ledger that were looked up."""
    requeued: int
    """Jobs that the store had lost, and has again."""
    updated: int
    """Rows that were behind the store."""
    stuck: int
    """Jobs whose lease was long over."""
    set_aside: int = 0
    """Rows that cannot be read, as after an edit by hand: they stay as they are, and are logged."""
