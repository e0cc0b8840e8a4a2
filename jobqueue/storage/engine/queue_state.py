"""The records of one queue and their indexes, between which the `Engine` moves jobs.

A live record is in exactly one of ready, scheduled and leased. Ended records wait for their expiry.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from jobqueue.model.states import TRANSITIONS, Action, JobState
from jobqueue.storage.values import (
    DEAD_LETTER_TTL,
    MAX_HISTORY,
    PROMOTE_LIMIT,
    AttemptRecord,
    NewJob,
    Record,
    Rules,
)

__all__ = ["NO_RULES", "PLAIN", "Extras", "JobEntry", "QueueState"]

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


PLAIN = Extras()
NO_RULES = Rules()
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
    state: JobState  # set before anything reads it

    def __init__(self, new: NewJob, seq: int, now: int) -> None:
        (
            self.id, self.payload, self.priority, delay, run_at,
            self.max_attempts, self.max_stalls, self.ttl, _, _, headers, task, group, dead_letter_ttl, _,
        ) = new  # fmt: skip
        self.extras = PLAIN
        if headers or task or group or dead_letter_ttl is not None:
            self.extras = Extras(headers, task, group, dead_letter_ttl)
        self.due = now + delay if run_at is None else run_at
        self.seq = seq
        self.created_at = self.updated_at = now
        self.attempts = self.stalls = self.fence = self.lease_until = self.expires_at = 0
        self.cancelling = False
        self.worker = ""
        self.data: bytes | None = None
        """The result, or the error of the last failed attempt."""
        self.progress: bytes | None = None
        self.waiters: tuple[str, ...] = ()

    def __lt__(self, other: JobEntry) -> bool:
        """Order entries of the heap of due times that say the same of one job."""
        return self.seq < other.seq

    def renew(self, new: NewJob, now: int, *, due: int) -> None:
        """Become the new job, and keep what this one has been through."""
        self.payload, self.priority, self.due, self.updated_at = new.payload, new.priority, due, now
        self.max_attempts, self.max_stalls, self.ttl = new.max_attempts, new.max_stalls, new.ttl
        extras = Extras(new.headers, new.task, new.group, new.dead_letter_ttl, history=self.extras.history)
        self.extras = PLAIN if extras == PLAIN else extras

    def move(self, action: Action) -> None:
        """Change the state as the transition table says."""
        self.state = TRANSITIONS[self.state, action]

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


class QueueState:
    """The records of one queue and their indexes."""

    __slots__ = (
        "dead_expiries",
        "ended",
        "ended_total",
        "expiry",
        "expiry_times",
        "jobs",
        "leased",
        "name",
        "paused",
        "ready",
        "rules",
        "schedule",
        "waiting",
        "workers",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: dict[str, JobEntry] = {}
        self.ready: dict[int, OrderedDict[str, JobEntry]] = {}  # by priority; no empty entries
        self.schedule: list[tuple[int, int, JobEntry]] = []  # heap of (due, seq), with dead entries
        self.leased: dict[str, JobEntry] = {}  # in fence order
        # Ended jobs by the millisecond in which they are deleted, with dead entries, and a heap of those
        # milliseconds: at full speed a hundred jobs share one, and the heap hardly moves.
        self.expiry: dict[int, list[JobEntry]] = {}
        self.expiry_times: list[int] = []
        self.dead_expiries = 0
        self.waiting = {JobState.SCHEDULED: 0, JobState.FAILING: 0}
        self.ended = {JobState.COMPLETED: 0, JobState.FAILED: 0, JobState.CANCELLED: 0}
        self.ended_total = 0
        """Number of jobs that have ended since this index was made; never falls."""
        self.workers: dict[str, int] = {}
        self.set_rules(NO_RULES)

    # -- rules ------------------------------------------------------------------------------------

    def set_rules(self, rules: Rules) -> None:
        """Obey these rules from now on."""
        self.rules = rules
        self.paused = rules.paused
        """That rule, which every claim looks at."""

    # -- ready ------------------------------------------------------------------------------------

    def put_ready(self, job: JobEntry) -> None:
        """Put a job behind all others of its priority."""
        line = self.ready.get(job.priority)
        if line is None:
            line = self.ready[job.priority] = OrderedDict()
        line[job.id] = job

    def put_front(self, jobs: Iterable[JobEntry]) -> None:
        """Put jobs before all others of their priority, in the order of their fences."""
        for job in sorted(jobs, key=lambda job: job.fence, reverse=True):
            self.put_ready(job)
            self.ready[job.priority].move_to_end(job.id, last=False)

    def drop_ready(self, job: JobEntry) -> None:
        """Remove a job from the ready ones."""
        line = self.ready[job.priority]
        del line[job.id]
        if not line:
            del self.ready[job.priority]

    def ready_count(self) -> int:
        """Count the ready jobs."""
        return sum(map(len, self.ready.values()))

    # -- scheduled --------------------------------------------------------------------------------

    def put_scheduled(self, job: JobEntry) -> bool:
        """Index a job by its due time; return whether it is now the first."""
        self.waiting[job.state] += 1
        self._trim_schedule()
        heapq.heappush(self.schedule, (job.due, job.seq, job))
        return self.schedule[0][2] is job

    def drop_scheduled(self, job: JobEntry) -> None:
        """Remove a job from the scheduled ones."""
        self.waiting[job.state] -= 1  # its heap entry is dead from now on

    def scheduled_count(self) -> int:
        """Count the scheduled jobs."""
        return sum(self.waiting.values())

    def next_due(self) -> int | None:
        """Return the earliest due time, clearing dead entries from the top."""
        schedule = self.schedule
        while schedule:
            due, _, job = schedule[0]
            if job.state in self.waiting and job.due == due and self.jobs.get(job.id) is job:
                return due
            heapq.heappop(schedule)
        return None

    def promote(self, now: int) -> None:
        """Move due jobs to ready."""
        for _ in range(PROMOTE_LIMIT):
            due = self.next_due()
            if due is None or due > now:
                return
            job = heapq.heappop(self.schedule)[2]
            self.drop_scheduled(job)
            job.move(Action.PROMOTE)
            self.put_ready(job)

    def shift_retries(self, delta: int) -> None:
        """Follow a clock that was set by ``delta`` ms; a start time that was asked for stays."""
        for due, _, job in self.schedule:
            if job.state is JobState.FAILING and job.due == due:
                job.due += delta
        self._rebuild_schedule()

    def _trim_schedule(self) -> None:
        if len(self.schedule) > 64 + 2 * self.scheduled_count():
            self._rebuild_schedule()

    def _rebuild_schedule(self) -> None:
        live = {(j.due, j.seq): j for _, _, j in self.schedule if j.state in self.waiting}
        self.schedule = [(due, seq, job) for (due, seq), job in live.items()]
        heapq.heapify(self.schedule)

    # -- ended ------------------------------------------------------------------------------------

    def put_ended(self, job: JobEntry, expires_at: int, kept_until: int) -> None:
        """Count an ended job and schedule its deletion."""
        self.ended[job.state] += 1
        self.ended_total += 1
        job.expires_at = expires_at
        self._put_expiry(job, kept_until)

    def expire(self, job: JobEntry, expires_at: int) -> None:
        """Change the expiry of an ended job; its former entry is dead from now on."""
        job.expires_at = expires_at
        if 0 < job.extras.letter_until < expires_at:
            job.extras = job.extras._replace(letter_until=expires_at)
        self._put_expiry(job, job.kept_until)
        self._bury_expiry()

    def revive(self, job: JobEntry) -> None:
        """Remove a failed job from the ended ones; its entry must not be used any more."""
        self.ended[job.state] -= 1
        job.expires_at = 0
        self._bury_expiry()

    def drop(self, job: JobEntry) -> None:
        """Forget an ended job; its entry is dead from now on."""
        self._forget(job)
        self._bury_expiry()

    def ended_now(self, now: int) -> dict[JobState, int]:
        """Count the ended jobs that are not absent, changing nothing: reads leave no trace."""
        counts = dict(self.ended)
        for time in self.expiry_times:
            if time <= now:
                for job in {entry.seq: entry for entry in self._expired(time)}.values():
                    counts[job.state] -= 1
        return counts

    def purge(self, now: int, limit: int) -> int:
        """Forget up to ``limit`` expired jobs; return their number."""
        times, dropped = self.expiry_times, 0
        while times and times[0] <= now and dropped < limit:
            entries = self.expiry[times[0]]
            while entries and dropped < limit:
                job = entries.pop()
                if job.kept_until == times[0] and self.jobs.get(job.id) is job:
                    self._forget(job)
                    dropped += 1
                else:
                    self.dead_expiries -= 1
            if not entries:
                del self.expiry[heapq.heappop(times)]
        return dropped

    def shift_expiry(self, delta: int) -> None:
        """Follow a clock that was set by ``delta`` ms."""
        ended = [job for job in self.jobs.values() if job.expires_at]
        self.expiry.clear()
        self.expiry_times.clear()
        self.dead_expiries = 0
        for job in ended:
            job.expires_at = max(1, job.expires_at + delta)
            if job.extras.letter_until:
                job.extras = job.extras._replace(letter_until=max(1, job.extras.letter_until + delta))
            self._put_expiry(job, job.kept_until)

    def _forget(self, job: JobEntry) -> None:
        del self.jobs[job.id]
        self.ended[job.state] -= 1

    def _put_expiry(self, job: JobEntry, kept_until: int) -> None:
        entries = self.expiry.get(kept_until)
        if entries is None:
            self.expiry[kept_until] = [job]
            heapq.heappush(self.expiry_times, kept_until)
        else:
            entries.append(job)

    def _bury_expiry(self) -> None:
        """Count one more dead entry, and drop them all when most are dead: they hold results."""
        self.dead_expiries += 1
        if self.dead_expiries > 64 + sum(self.ended.values()):
            self.shift_expiry(0)

    def _expired(self, time: int) -> Iterable[JobEntry]:
        return [j for j in self.expiry[time] if j.kept_until == time and self.jobs.get(j.id) is j]
