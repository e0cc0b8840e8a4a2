"""The records of one queue and their indexes, between which the `Engine` moves jobs.

A live record is in exactly one of ready, scheduled and leased. Ended records wait for their expiry.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable

from jobqueue.job import TRANSITIONS, Action, JobState
from jobqueue.storage.base import PROMOTE_LIMIT, NewJob, Record

__all__ = ["Entry", "Index"]

_PROCESSING, _COMPLETED = JobState.PROCESSING, JobState.COMPLETED


class Entry:
    """A record, in one index of its queue."""

    id: str
    payload: bytes | None

    # Defaults stand in the class, not in __init__: it costs a third of what an insert takes as it is.
    state: JobState  # set before anything reads it
    worker: str  # set by the first claim
    attempts = stalls = fence = lease_until = expires_at = 0
    cancelling = False
    data: bytes | None = None
    """The result, or the error of the last failed attempt."""
    progress: bytes | None = None
    waiters: tuple[str, ...] = ()

    def __init__(self, new: NewJob, seq: int, now: int) -> None:
        (
            self.id, self.payload, self.priority, delay, run_at,
            self.max_attempts, self.max_stalls, self.ttl, _, _,
        ) = new  # fmt: skip
        self.due = now + delay if run_at is None else run_at
        self.seq = seq
        self.created_at = self.updated_at = now

    def move(self, action: Action) -> None:
        """Change the state as the transition table says."""
        self.state = TRANSITIONS[self.state, action]

    def record(self, *, payload: bool = False) -> Record:
        """Return the contract's view of this record."""
        state = self.state
        leased = state is _PROCESSING
        return Record(
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


class Index:
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
        "ready",
        "schedule",
        "waiting",
        "workers",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: dict[str, Entry] = {}
        self.ready: dict[int, OrderedDict[str, Entry]] = {}  # by priority; no empty entries
        self.schedule: list[tuple[int, int, Entry]] = []  # heap of (due, seq), with dead entries
        self.leased: dict[str, Entry] = {}  # in fence order
        # Ended jobs by the millisecond in which they expire, with dead entries, and a heap of those
        # milliseconds: at full speed a hundred jobs share one, and the heap hardly moves.
        self.expiry: dict[int, list[Entry]] = {}
        self.expiry_times: list[int] = []
        self.dead_expiries = 0
        self.waiting = {JobState.SCHEDULED: 0, JobState.FAILING: 0}
        self.ended = {JobState.COMPLETED: 0, JobState.FAILED: 0, JobState.CANCELLED: 0}
        self.ended_total = 0
        """Number of jobs that have ended since this index was made; never falls."""
        self.workers: dict[str, int] = {}

    # -- ready ------------------------------------------------------------------------------------

    def put_ready(self, job: Entry) -> None:
        """Put a job behind all others of its priority."""
        line = self.ready.get(job.priority)
        if line is None:
            line = self.ready[job.priority] = OrderedDict()
        line[job.id] = job

    def put_front(self, jobs: Iterable[Entry]) -> None:
        """Put jobs before all others of their priority, in the order of their fences."""
        for job in sorted(jobs, key=lambda job: job.fence, reverse=True):
            self.put_ready(job)
            self.ready[job.priority].move_to_end(job.id, last=False)

    def drop_ready(self, job: Entry) -> None:
        """Take a job out of ready."""
        line = self.ready[job.priority]
        del line[job.id]
        if not line:
            del self.ready[job.priority]

    def ready_count(self) -> int:
        """Count the ready jobs."""
        return sum(map(len, self.ready.values()))

    # -- scheduled --------------------------------------------------------------------------------

    def put_scheduled(self, job: Entry) -> bool:
        """Index a job by its due time; return whether it is now the first."""
        self.waiting[job.state] += 1
        self._trim_schedule()
        heapq.heappush(self.schedule, (job.due, job.seq, job))
        return self.schedule[0][2] is job

    def drop_scheduled(self, job: Entry) -> None:
        """Take a job out of scheduled."""
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

    def put_ended(self, job: Entry, expires_at: int) -> None:
        """Count an ended job and schedule its expiry."""
        self.ended[job.state] += 1
        self.ended_total += 1
        self._put_expiry(job, expires_at)

    def expire(self, job: Entry, expires_at: int) -> None:
        """Change the expiry of an ended job; its former entry is dead from now on."""
        self._put_expiry(job, expires_at)
        self._bury_expiry()

    def drop(self, job: Entry) -> None:
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
                if job.expires_at == times[0] and self.jobs.get(job.id) is job:
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
            self._put_expiry(job, max(1, job.expires_at + delta))

    def _forget(self, job: Entry) -> None:
        del self.jobs[job.id]
        self.ended[job.state] -= 1

    def _put_expiry(self, job: Entry, expires_at: int) -> None:
        job.expires_at = expires_at
        entries = self.expiry.get(expires_at)
        if entries is None:
            self.expiry[expires_at] = [job]
            heapq.heappush(self.expiry_times, expires_at)
        else:
            entries.append(job)

    def _bury_expiry(self) -> None:
        """Count one more dead entry, and drop them all when most are dead: they hold results."""
        self.dead_expiries += 1
        if self.dead_expiries > 64 + sum(self.ended.values()):
            self.shift_expiry(0)

    def _expired(self, time: int) -> Iterable[Entry]:
        return [j for j in self.expiry[time] if j.expires_at == time and self.jobs.get(j.id) is j]
