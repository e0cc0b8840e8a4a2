"""One job of an engine."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple

from jobqueue.model.states import TRANSITIONS, Action, JobState
from jobqueue.storage.values import (
    DEAD_LETTER_TTL,
    MAX_HISTORY,
    AttemptRecord,
    NewJob,
    Record,
)

__all__ = ["PLAIN", "Extras", "JobEntry"]

_PROCESSING, _COMPLETED, _FAILED = JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED


class Extras(NamedTuple):
    """The fields of a job that most jobs leave at their defaults.

    A job without any shares `PLAIN` with all others, so that a field more costs such jobs nothing. A field of
    the same name in `Record` shows it.
    """

    headers: bytes = b""
    task: str = ""
    group: str = ""
    dead_letter_ttl: int | None = None
    letter_until: int = 0
    """Instant at which a dead letter is deleted; 0 for what is none."""
    saved: bytes | None = None
    history: tuple[AttemptRecord, ...] = ()
    weight: int = 1
    expires: int | None = None


PLAIN = Extras()
_SHOWN = tuple(name for name in Extras._fields if name in Record._fields)
_shown: Any = attrgetter(*_SHOWN)


class JobEntry:
    """A record, in one index of its queue."""

    # Slots: to read a default that stands in the class takes ten times as long, and a job reads ten.
    __slots__ = (
        "attempts", "cancelling", "created_at", "data", "due", "expires_at", "extras", "fence", "id",
        "lease_until", "max_attempts", "max_stalls", "payload", "priority", "progress", "seq", "stalls",
        "state", "ttl", "updated_at", "waiters", "worker",
    )  # fmt: skip
    id: str
    payload: bytes | None
    state: JobState
    """Set before anything reads it."""
    data: bytes | None
    """The result, or the error of the last failed attempt."""
    progress: bytes | None
    waiters: tuple[str, ...]

    def __init__(self, new: NewJob, seq: int, now: int, reply_to: str | None) -> None:
        (
            self.id, self.payload, self.priority, delay, run_at,
            self.max_attempts, self.max_stalls, self.ttl, _, wait,
            headers, task, group, dead_letter_ttl, _, weight, expires,
        ) = new  # fmt: skip
        self.extras = PLAIN
        if headers or task or group or dead_letter_ttl is not None or expires is not None:
            weight = weight if group else 1
            self.extras = Extras(headers, task, group, dead_letter_ttl, weight=weight, expires=expires)
        self.due = now + delay if run_at is None else run_at
        self.seq = seq
        self.created_at = self.updated_at = now
        self.attempts = self.stalls = self.fence = self.lease_until = self.expires_at = 0
        self.cancelling = False
        self.worker = ""
        self.data = self.progress = None
        self.waiters = (reply_to,) if wait and reply_to is not None else ()

    def __lt__(self, other: JobEntry) -> bool:
        """Order entries of the heap of due times that say the same of one job."""
        return self.seq < other.seq

    def renew(self, new: NewJob, now: int, *, due: int) -> None:
        """Become the new job, and keep what this one has been through."""
        self.payload, self.priority, self.due, self.updated_at = new.payload, new.priority, due, now
        self.max_attempts, self.max_stalls, self.ttl = new.max_attempts, new.max_stalls, new.ttl
        weight = new.weight if new.group else 1
        extras = Extras(
            new.headers, new.task, new.group, new.dead_letter_ttl,
            history=self.extras.history, weight=weight, expires=new.expires,
        )  # fmt: skip
        self.extras = PLAIN if extras == PLAIN else extras

    def move(self, action: Action) -> None:
        """Change the state as the transition table says."""
        self.state = TRANSITIONS[self.state, action]

    @property
    def start_before(self) -> int | None:
        """Instant from which on it may not start; ``None`` if it may at any time, or has started once."""
        expires = self.extras.expires
        return None if expires is None or self.fence else self.due + expires

    @property
    def kept_until(self) -> int:
        """Instant at which an ended record is deleted: that of its expiry, or later for a dead letter."""
        return self.extras.letter_until or self.expires_at

    def note_failure(self, at: int, worker: str, error: bytes) -> None:
        """Add a failed attempt, or a stall, to the history."""
        history = (*self.extras.history, AttemptRecord(at, self.attempts, worker, error))
        self.extras = self.extras._replace(history=history[-MAX_HISTORY:])

    def end_extras(self, now: int, expires_at: int) -> int:
        """Drop the checkpoint, note the end of the time as a dead letter; return `kept_until`."""
        extras = self.extras._replace(saved=None)
        if self.state is _FAILED:
            kept = DEAD_LETTER_TTL if extras.dead_letter_ttl is None else extras.dead_letter_ttl
            extras = extras._replace(letter_until=kept and max(expires_at, now + kept))
        self.extras = extras
        return extras.letter_until or expires_at

    def record(self, *, payload: bool = False) -> Record:
        """Return the contract's view of this record."""
        state = self.state
        leased = state is _PROCESSING
        record = Record(
            id=self.id,
            seq=self.seq,
            state=state,
            priority=self.priority,
            run_at=self.due,
            created_at=self.created_at,
            updated_at=self.updated_at,
            attempts=self.attempts,
            max_attempts=self.max_attempts,
            stalls=self.stalls,
            max_stalls=self.max_stalls,
            ttl=self.ttl,
            fence=self.fence,
            worker=self.worker if leased else None,
            lease_until=self.lease_until if leased else None,
            cancelling=self.cancelling,
            result=self.data if state is _COMPLETED else None,
            error=self.data if state is not _COMPLETED else None,
            progress=self.progress,
            expires_at=self.expires_at or None,
            payload=self.payload if payload else None,
        )
        if self.extras is PLAIN:
            return record
        return record._replace(**dict(zip(_SHOWN, _shown(self.extras), strict=True)))
