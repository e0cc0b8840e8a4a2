"""The records of one queue and their indexes, between which the `Engine` moves jobs.

A live record is in exactly one of ready, scheduled and leased. Ended records wait for their expiry.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jobqueue.model.limits import clamped, opens_at
from jobqueue.model.states import Action, JobState
from jobqueue.storage.engine.deadlines import Deadlines
from jobqueue.storage.engine.group_lines import GroupLines
from jobqueue.storage.engine.job_entry import JobEntry
from jobqueue.storage.values import PROMOTE_LIMIT, Rules

__all__ = ["NO_RULES", "QueueState", "Roll"]

NO_RULES = Rules()
ROLL_KEPT = 10_000
"""Milliseconds for which a `Roll` that nobody asks for is kept: it holds records that are deleted."""


class Roll(NamedTuple):
    """The records as a list, for those who list them; see `listing`."""

    at: int
    """When it was last asked for."""
    jobs: list[JobEntry]


class QueueState:
    """The records of one queue and their indexes."""

    __slots__ = (
        "dead_expiries",
        "deadlines",
        "ended",
        "ended_total",
        "expiry",
        "expiry_times",
        "groups",
        "jobs",
        "leased",
        "name",
        "ordered",
        "ready",
        "roll",
        "ruled",
        "rules",
        "schedule",
        "tat",
        "waiting",
        "workers",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: dict[str, JobEntry] = {}
        self.ordered = True
        """Whether the records are in the order of their ``seq``."""
        self.roll: Roll | None = None
        self.ready: dict[int, OrderedDict[str, JobEntry]] = {}  # by priority; no empty entries
        self.schedule: list[tuple[int, int, JobEntry]] = []  # heap of (due, seq), with dead entries
        self.leased: dict[str, JobEntry] = {}  # in fence order
        # Ended jobs by the millisecond in which they are deleted, with dead entries, and a heap of those
        # milliseconds, with dead ones: at full speed a hundred jobs share one, and the heap hardly moves.
        self.expiry: dict[int, list[JobEntry]] = {}
        self.expiry_times: list[int] = []
        self.dead_expiries: dict[int, int] = {}
        """Number of dead entries in ``expiry``, where there are any; never too small."""
        self.deadlines: Deadlines[JobEntry] | None = None
        """The waiting jobs that have a `JobEntry.start_before`; ``None`` where there never was one."""
        self.waiting = {JobState.SCHEDULED: 0, JobState.FAILING: 0}
        self.ended = {JobState.COMPLETED: 0, JobState.FAILED: 0, JobState.CANCELLED: 0}
        self.ended_total = 0
        """Number of jobs that have ended since this index was made; never falls."""
        self.workers: dict[str, int] = {}
        self.groups: GroupLines | None = None
        """The groups with ready or running jobs; ``None`` without any."""
        self.tat = 0
        """The number for the rate of the queue; see `jobqueue.model.limits`."""
        self.set_rules(NO_RULES, 0)

    # -- rules ------------------------------------------------------------------------------------

    def set_rules(self, rules: Rules, now: int) -> None:
        """Obey these rules from now on."""
        self.rules = rules
        self.tat = clamped(rules.queue, self.tat, now)
        if self.groups is not None and self.groups.limit != rules.group:
            self.groups.set_limit(rules.group, now)
        self._look_at_rules()

    def _look_at_rules(self) -> None:
        self.ruled = self.rules != NO_RULES or self.groups is not None
        """Whether a claim has more to do than to take the first jobs."""

    def opens_in(self, now: int) -> int | None:
        """Return the milliseconds until a ready job may start; 0: now.

        ``None``: there is none, or none may before a run ends.
        """
        groups = self.groups
        if self.rules.paused or not (self.ready or (groups is not None and groups.count)):
            return None
        at = opens_at(self.rules.queue, len(self.leased), self.tat)
        if at is not None and at <= now and not self.ready and groups is not None and not groups.may_start():
            at = groups.next_opening()
        return None if at is None else max(0, at - now)

    # -- groups -----------------------------------------------------------------------------------

    def in_groups(self) -> GroupLines:
        """Return the groups, made if there are none."""
        groups = self.groups
        if groups is None:
            groups = self.groups = GroupLines(self.rules.group)
            self._look_at_rules()
        return groups

    def tidy_groups(self, now: int) -> None:
        """Forget what nobody asks for any more."""
        groups = self.groups
        if groups is not None:
            groups.tidy(now)
            if not groups:
                self.groups = None
                self._look_at_rules()

    def end_run(self, job: JobEntry, now: int) -> bool:
        """Take a job out of the running ones; return whether jobs of its group may start that could not."""
        del self.leased[job.id]
        group = job.extras.group
        return bool(group) and self.in_groups().ended(group, now)

    # -- all of them ------------------------------------------------------------------------------

    def count(self, state: JobState) -> int:
        """Count the jobs of a state, ended ones that are absent by now included."""
        if state is JobState.QUEUED:
            return self.ready_count()
        if state is JobState.PROCESSING:
            return len(self.leased)
        return self.waiting[state] if state in self.waiting else self.ended[state]

    # -- ready ------------------------------------------------------------------------------------

    def put_ready(self, job: JobEntry) -> None:
        """Put a job behind all others of its priority."""
        if job.extras.group:
            self.in_groups().put(job)
            return
        line = self.ready.get(job.priority)
        if line is None:
            line = self.ready[job.priority] = OrderedDict()
        line[job.id] = job

    def put_front(self, jobs: Iterable[JobEntry]) -> None:
        """Put jobs before all others of their priority, in the order of their fences."""
        for job in sorted(jobs, key=lambda job: job.fence, reverse=True):
            if job.extras.group:
                self.in_groups().put(job, front=True)
                continue
            self.put_ready(job)
            self.ready[job.priority].move_to_end(job.id, last=False)

    def drop_ready(self, job: JobEntry, now: int) -> None:
        """Remove a job from the ready ones."""
        if job.extras.group:
            self.in_groups().drop(job, now)
            return
        line = self.ready[job.priority]
        del line[job.id]
        if not line:
            del self.ready[job.priority]

    def ready_count(self) -> int:
        """Count the ready jobs."""
        count = sum(map(len, self.ready.values()))
        return count if self.groups is None else count + self.groups.count

    def ready_jobs(self) -> Iterator[JobEntry]:
        """Yield the ready jobs, each line in its order."""
        for line in self.ready.values():
            yield from line.values()
        if self.groups is not None:
            yield from self.groups

    def fronts(self) -> Iterator[JobEntry]:
        """Yield the first jobs of each priority: with and without a group."""
        for line in self.ready.values():
            yield next(iter(line.values()))
        if self.groups is not None:
            yield from self.groups.fronts()

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

    # -- deadlines --------------------------------------------------------------------------------

    def put_deadline(self, job: JobEntry) -> None:
        """Index a job that waits, if it has to start in time."""
        time = job.start_before
        if time is not None:
            if self.deadlines is None:
                self.deadlines = Deadlines()
            self.deadlines.add(job, job.seq, time)

    def drop_deadline(self, job: JobEntry) -> None:
        """Forget until when a job has to start: it starts, ends, or is to be due at another time."""
        if self.deadlines is not None and job.extras.expires is not None:
            self.deadlines.drop(job.seq, job.due + job.extras.expires)

    def shift_deadlines(self, delta: int) -> None:
        """Follow a clock that was set by ``delta`` ms: ready jobs keep what is left of their time."""
        jobs, self.deadlines = () if self.deadlines is None else tuple(self.deadlines), None
        for job in jobs:
            if job.state is JobState.QUEUED:
                job.due = max(0, job.due + delta)
            self.put_deadline(job)

    def over(self, now: int) -> bool:
        """Return whether the time to start is over for any job."""
        return self.deadlines is not None and self.deadlines.over(now)

    # -- ended ------------------------------------------------------------------------------------

    def put_ended(self, job: JobEntry, expires_at: int, kept_until: int) -> None:
        """Count an ended job and schedule its deletion."""
        self.ended[job.state] += 1
        self.ended_total += 1
        job.expires_at = expires_at
        entries = self.expiry.get(kept_until)
        if entries is None:
            self._put_expiry(job, kept_until)
        else:  # spares most ends the call
            entries.append(job)

    def expire(self, job: JobEntry, expires_at: int) -> None:
        """Change the expiry of an ended job; its former entry is dead from now on."""
        former = job.kept_until
        job.expires_at = expires_at
        if 0 < job.extras.letter_until < expires_at:
            job.extras = job.extras._replace(letter_until=expires_at)
        self._put_expiry(job, job.kept_until)
        self._bury_expiry(former)

    def revive(self, job: JobEntry) -> None:
        """Remove a failed job from the ended ones; its entry must not be used any more."""
        self.jobs[job.id] = self.jobs.pop(job.id)  # to the end: it gets a new ``seq``
        self.roll = None
        self.ended[job.state] -= 1
        kept_until, job.expires_at = job.kept_until, 0
        job.extras = job.extras._replace(letter_until=0)
        self._bury_expiry(kept_until)

    def drop(self, job: JobEntry) -> None:
        """Forget an ended job; its entry is dead from now on."""
        self._forget(job)
        self._bury_expiry(job.kept_until)

    def ended_now(self, now: int) -> dict[JobState, int]:
        """Count the ended jobs that are not absent, changing nothing: reads leave no trace."""
        counts = dict(self.ended)
        for time in self.expiry:
            if time <= now:
                for job in self._live(time):
                    counts[job.state] -= 1
        return counts

    def purge(self, now: int, limit: int) -> int:
        """Forget up to ``limit`` expired jobs; return their number."""
        times, dropped = self.expiry_times, 0
        if self.roll is not None and not 0 <= now - self.roll.at <= ROLL_KEPT:
            self.roll = None
        while times and times[0] <= now and dropped < limit:
            entries = self.expiry.get(times[0], [])
            while entries and dropped < limit:
                job = entries.pop()
                if job.kept_until == times[0] and self.jobs.get(job.id) is job:
                    self._forget(job)
                    dropped += 1
            if not entries:
                time = heapq.heappop(times)
                self.expiry.pop(time, None)
                self.dead_expiries.pop(time, None)
        return dropped

    def shift_expiry(self, delta: int) -> None:
        """Follow a clock that was set by ``delta`` ms."""
        # By their entries, and not by the records: those may be many more, and this is done again and again.
        entries = (job for at in self.expiry.values() for job in at)
        ended = {job.id: job for job in entries if job.expires_at and self.jobs.get(job.id) is job}
        self.expiry.clear()
        self.expiry_times.clear()
        self.dead_expiries.clear()
        for job in ended.values():
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

    def _bury_expiry(self, time: int) -> None:
        """Count one more dead entry, and drop those of its instant when most are dead: they hold results.

        Those of one instant, as all at once would keep everybody waiting.
        """
        dead = self.dead_expiries.get(time, 0) + 1
        if 2 * dead <= len(self.expiry[time]):
            self.dead_expiries[time] = dead
            return
        self.dead_expiries.pop(time, None)
        self.expiry[time] = self._live(time)
        if not self.expiry[time]:
            del self.expiry[time]
            if len(self.expiry_times) > 64 + 2 * len(self.expiry):
                self.expiry_times = list(self.expiry)
                heapq.heapify(self.expiry_times)

    def _live(self, time: int) -> list[JobEntry]:
        jobs = self.jobs
        entries = (job for job in self.expiry[time] if job.kept_until == time and jobs.get(job.id) is job)
        return list({job.seq: job for job in entries}.values())
