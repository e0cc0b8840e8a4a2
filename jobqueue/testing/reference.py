"""The contract once more, as plainly as it can be said: lists, dicts and full searches.

It shares no code with the stores and is no store: no I/O, no waiting, and every call looks at every
job. `jobqueue.testing.model` holds real stores against it. The file is long because it has all calls of the
contract but those of locks, and they share the jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.model.limits import admit, opens_at
from jobqueue.model.outcomes import EXPIRED_ERROR, STALLED_ERROR, Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import (
    DEAD_LETTER_TTL,
    EXPIRE_LIMIT,
    MAX_HISTORY,
    PROMOTE_LIMIT,
    WORKER_SEEN_FOR,
    AdmissionInfo,
    AttemptRecord,
    CancelStatus,
    Claimed,
    Conflict,
    Counts,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    NewJob,
    Record,
    Renewal,
    Reply,
    Reuse,
    Rules,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
    Usage,
    WorkerInfo,
)
from jobqueue.testing.reference_job import END_STATES, WAIT_STATES, Entry, record
from jobqueue.testing.reference_locks import LocksAndDocuments
from jobqueue.testing.reference_turns import Turns, line_of

__all__ = ["Reference"]

S = JobState


class Reference(LocksAndDocuments):
    """Gives the right answer to every call at an instant. Numbers are counted from one."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Entry] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.replies: list[tuple[str, Reply]] = []
        """Replies sent so far, with their addresses."""
        self.requests: set[tuple[str, str, str, int]] = set()
        """Requests to cancel so far: worker, queue, id, fence."""
        self.rules: dict[str, Rules] = {}
        self.limiting = False
        """Whether limits hold and groups take turns."""
        self.turns = Turns()
        self.tats: dict[tuple[str, str], int] = {}
        """The numbers of rates: by queue, and group or ``""``."""
        self.released: list[Entry] = []
        """Jobs that are ready, and whose places are given at the end of the call."""
        self.seq = self.fence = self.back = self.front = 0

    # -- looking up -------------------------------------------------------------------------------

    def present(self, queue: str, now: int) -> list[Entry]:
        return [
            job
            for job in self.jobs
            if job.queue == queue and (job.expires_at is None or job.expires_at > now)
        ]

    def letters(self, queue: str, now: int) -> list[Entry]:
        """Return the dead letters whose ids are free."""
        return [
            job
            for job in self.jobs
            if job.queue == queue and job.expires_at is not None and job.expires_at <= now < job.letter_until
        ]

    def find(self, queue: str, id: str, now: int, *, letters: bool = False) -> Entry | None:
        looked_at = self.present(queue, now) + (self.letters(queue, now) if letters else [])
        found = [job for job in looked_at if job.new.id == id]
        assert len(found) <= 1, "two records of one id"
        return found[0] if found else None

    def in_state(self, queue: str, now: int, *states: JobState) -> list[Entry]:
        return [job for job in self.present(queue, now) if job.state in states]

    def listed(self, queue: str, now: int, state: JobState) -> list[Entry]:
        return self.in_state(queue, now, state) + (self.letters(queue, now) if state is S.FAILED else [])

    def get(
        self,
        queue: str,
        ids: Sequence[str],
        now: int,
        reply_to: str | None = None,
        *,
        letters: bool = False,
    ) -> list[Record | None]:
        jobs = [self.find(queue, id, now, letters=letters) for id in ids]
        for job in jobs:
            if job is not None and reply_to is not None and job.state not in END_STATES:
                job.waiters.add(reply_to)
        return [None if job is None else record(job) for job in jobs]

    def scan(self, queue: str, state: JobState, now: int) -> dict[str, Record]:
        jobs = self.listed(queue, now, state)
        return {
            job.new.id: record(job)._replace(result=None, payload=None, headers=b"", history=())
            for job in jobs
        }

    def counts(self, queue: str, now: int) -> Counts:
        fronts: dict[int, Entry] = {}
        for job in self.ready(queue, now):
            fronts.setdefault(job.new.priority, job)
        numbers = {state.value: len(self.listed(queue, now, state)) for state in S}
        return Counts(**numbers, oldest=min((job.created_at for job in fronts.values()), default=None))

    def workers(self, queue: str, now: int) -> list[WorkerInfo]:
        running = [job.worker for job in self.in_state(queue, now, S.PROCESSING)]
        return [
            WorkerInfo(worker, at, running.count(worker))
            for (where, worker), at in sorted(self.seen.items())
            if where == queue and at + WORKER_SEEN_FOR > now
        ]

    def ready(self, queue: str, now: int) -> list[Entry]:
        return sorted(self.in_state(queue, now, S.QUEUED), key=lambda job: (-job.new.priority, job.place))

    # -- producing --------------------------------------------------------------------------------

    def insert(
        self, queue: str, batch: Sequence[NewJob], now: int, reply_to: str | None, max_length: int | None
    ) -> list[Inserted]:
        return [self.insert_one(queue, new, now, reply_to if new.wait else None, max_length) for new in batch]

    def insert_one(
        self, queue: str, new: NewJob, now: int, reply_to: str | None, max_length: int | None
    ) -> Inserted:
        old = self.find(queue, new.id, now)
        replaced = (
            (S.CANCELLED,)
            + (S.FAILED,) * (new.reuse is not Reuse.RETURN)
            + (S.COMPLETED,) * (new.reuse is Reuse.RERUN)
        )
        if old is not None and new.conflict is not Conflict.JOIN and old.state in WAIT_STATES:
            return self.renew(old, new, now, reply_to)
        if old is not None and old.state not in replaced:
            if reply_to is not None and old.state not in END_STATES:
                old.waiters.add(reply_to)
            data = {S.COMPLETED: old.result, S.FAILED: old.error}.get(old.state)
            return Inserted(InsertStatus.FOUND, old.seq, old.state, data, old.attempts)
        if max_length is not None and len(self.in_state(queue, now, *WAIT_STATES)) >= max_length:
            return Inserted(InsertStatus.FULL, 0, S.QUEUED)
        self.jobs = [job for job in self.jobs if (job.queue, job.new.id) != (queue, new.id)]
        due = now + new.delay if new.run_at is None else new.run_at
        self.seq += 1
        job = Entry(new, queue, self.seq, S.SCHEDULED, due, now, new.payload)
        if due <= now:
            self.to_back(job)
        if reply_to is not None:
            job.waiters.add(reply_to)
        self.jobs.append(job)
        return Inserted(InsertStatus.CREATED, job.seq, job.state)

    def renew(self, job: Entry, new: NewJob, now: int, reply_to: str | None) -> Inserted:
        due = now + new.delay if new.run_at is None else new.run_at
        if new.conflict is Conflict.DEBOUNCE:
            due = max(due, job.due)
        same = (job.new.priority, job.new.group) == (new.priority, new.group)
        if not same and not self.limiting:
            same = job.new.priority == new.priority
        stays = job.state is S.QUEUED and due <= now and same
        job.new, job.payload, job.due, job.saved = new, new.payload, due, None
        if due > now:
            job.state = S.FAILING if job.attempts else S.SCHEDULED
        elif not stays:
            self.to_back(job)
        if reply_to is not None:
            job.waiters.add(reply_to)
        return Inserted(InsertStatus.REPLACED, job.seq, job.state, None, job.attempts)

    # -- working ----------------------------------------------------------------------------------

    def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int, now: int
    ) -> Exchanged:
        self.seen[queue, worker] = now
        settled = [self.settle(queue, settlement, now) for settlement in settlements]
        self.to_front(self.released)
        rules = self.rules_of(queue)
        claimed: list[Claimed] = []
        expired: list[str] = []
        if limit:
            self.promote(queue, now)
        if limit and not rules.paused:
            expired = [job.new.id for job in self.expire(queue, EXPIRE_LIMIT, now)]
        while len(claimed) < limit and not rules.paused:
            job = self.next_job(queue, now)
            if job is None:
                break
            claimed.append(self.claim(job, worker, now + lease))
        due = self.next_due(queue, now)
        if len(claimed) < limit and not rules.paused:
            opening = self.opens_in(queue, now)
            due = opening if due is None or (opening is not None and opening < due) else due
        return Exchanged(settled, claimed, due, paused=rules.paused, expired=tuple(expired))

    def expire(self, queue: str, limit: int, now: int) -> list[Entry]:
        waiting = [
            (job.due + job.new.expires, job.seq, job)
            for job in self.in_state(queue, now, *WAIT_STATES)
            if job.new.expires is not None and not job.fence
        ]
        late = [job for before, _, job in sorted(waiting, key=lambda one: one[:2]) if before <= now][:limit]
        for job in late:
            job.error = EXPIRED_ERROR
            self.end(job, S.FAILED, now, job.new.ttl)
        return late

    def next_job(self, queue: str, now: int) -> Entry | None:
        """Return the job that is claimed next, and count its start."""
        ready = self.ready(queue, now)
        if not self.limiting:
            return ready[0] if ready else None
        rules = self.rules_of(queue)
        open_queue, tat = admit(rules.queue, *self.use(queue, "", now), now, 1)
        groups = {job.new.group for job in ready if job.new.group}
        admitted = {group: admit(rules.group, *self.use(queue, group, now), now, 1) for group in groups}
        choice = [job for job in ready if not job.new.group or admitted[job.new.group][0]]
        if not open_queue or not choice:
            return None
        first = [job for job in choice if job.new.priority == choice[0].new.priority]
        job = self.turns.take(first, ready)
        self.tats[queue, ""] = tat
        if job.new.group:
            self.tats[queue, job.new.group] = admitted[job.new.group][1]
        return job

    def use(self, queue: str, group: str, now: int) -> tuple[int, int]:
        """Return how many jobs of a group run, or of the queue, and the number of its rate."""
        running = [job for job in self.in_state(queue, now, S.PROCESSING) if group in {"", job.new.group}]
        return len(running), self.tats.get((queue, group), 0)

    def opens_in(self, queue: str, now: int) -> int | None:
        """Return the milliseconds until a rate opens that keeps a ready job back."""
        ready = self.ready(queue, now)
        if not ready or not self.limiting:
            return None
        rules = self.rules_of(queue)
        at = opens_at(rules.queue, *self.use(queue, "", now))
        if at is None or at > now:
            return None if at is None else at - now
        ats = [opens_at(rules.group, *self.use(queue, job.new.group, now)) for job in ready if job.new.group]
        return min((at - now for at in ats if at is not None and at > now), default=None)

    def usage(self, queue: str, groups: Sequence[str], now: int) -> list[Usage]:
        usages: list[Usage] = []
        for group in groups:
            limit = self.rules_of(queue).group if group else self.rules_of(queue).queue
            running, tat = self.use(queue, group, now)
            at = opens_at(limit, running, tat)
            usages.append(Usage(running, None if at is None else max(0, at - now)))
        return usages

    def next_due(self, queue: str, now: int) -> int | None:
        later = [job.due for job in self.in_state(queue, now, S.SCHEDULED, S.FAILING)]
        return max(0, min(later) - now) if later else None

    def settle(self, queue: str, settlement: Settlement, now: int) -> SettleStatus:
        job = self.find(queue, settlement.id, now)
        if job is None or job.fence != settlement.fence:
            return SettleStatus.LOST
        if job.state is not S.PROCESSING:
            return SettleStatus.CANCELLED if job.state is S.CANCELLED else SettleStatus.ACCEPTED
        if job.cancelling or settlement.action is Action.CANCEL:
            self.end(job, S.CANCELLED, now, job.new.ttl)
            return SettleStatus.CANCELLED
        if settlement.action is Action.COMPLETE:
            job.result, job.error = settlement.data, None
            self.end(job, S.COMPLETED, now, settlement.ttl)
        elif settlement.action is Action.FAIL:
            job.error = settlement.data
            self.note_failure(job, now, settlement.summary)
            self.end(job, S.FAILED, now, settlement.ttl)
        elif settlement.action is Action.RETRY:
            job.error = settlement.data
            self.note_failure(job, now, settlement.summary)
            job.due = now + settlement.delay
            job.state = S.FAILING
        else:
            job.attempts -= 1
            job.state = S.QUEUED
            self.released.append(job)
        job.worker = job.lease_until = None
        self.insert(queue, settlement.then, now, None, None)
        return SettleStatus.ACCEPTED

    def note_failure(self, job: Entry, now: int, error: bytes) -> None:
        job.history.append(AttemptRecord(now, job.attempts, job.worker or "", error))
        del job.history[:-MAX_HISTORY]

    def promote(self, queue: str, now: int) -> None:
        waiting = sorted(
            self.in_state(queue, now, S.SCHEDULED, S.FAILING), key=lambda job: (job.due, job.seq)
        )
        for job in [job for job in waiting if job.due <= now][:PROMOTE_LIMIT]:
            self.to_back(job)

    def claim(self, job: Entry, worker: str, lease_until: int) -> Claimed:
        self.fence += 1
        job.state, job.fence, job.worker, job.lease_until = S.PROCESSING, self.fence, worker, lease_until
        job.attempts += 1
        job.progress = None
        assert job.payload is not None
        new = job.new
        return Claimed(
            new.id, job.payload, job.fence, job.attempts, new.max_attempts, new.ttl, job.created_at,
            new.headers, new.task, new.group, job.seq, job.due, job.saved, tuple(job.history),
        )  # fmt: skip

    def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int, now: int
    ) -> list[LeaseStatus]:
        self.seen[queue, worker] = now
        if not leases and not lease:
            del self.seen[queue, worker]
        statuses: list[LeaseStatus] = []
        for id, fence, progress, saved in leases:
            job = self.find(queue, id, now)
            if job is None or job.state is not S.PROCESSING or job.fence != fence:
                statuses.append(LeaseStatus.LOST)
                continue
            job.lease_until = now + lease
            job.progress = job.progress if progress is None else progress
            job.saved = job.saved if saved is None else saved
            statuses.append(LeaseStatus.CANCELLING if job.cancelling else LeaseStatus.HELD)
        return statuses

    def sweep(self, queue: str, limit: int, now: int) -> list[Swept]:
        leased = sorted(self.in_state(queue, now, S.PROCESSING), key=lambda job: job.fence)
        expired = [job for job in leased if job.lease_until is not None and job.lease_until <= now][:limit]
        swept: list[Swept] = []
        for job in expired:
            self.fence += 1
            job.fence = self.fence
            job.stalls += 1
            self.note_failure(job, now, STALLED_ERROR)
            worker, job.worker, job.lease_until = job.worker, None, None
            if job.cancelling:
                self.end(job, S.CANCELLED, now, job.new.ttl)
            elif job.stalls > job.new.max_stalls:
                job.error = STALLED_ERROR
                self.end(job, S.FAILED, now, job.new.ttl)
            else:
                job.state = S.QUEUED
            swept.append(Swept(job.new.id, job.state, job.attempts, job.stalls, worker or ""))
        self.released = [job for job in expired if job.state is S.QUEUED]
        self.to_front(self.released)
        late = self.expire(queue, limit - len(swept), now)
        return swept + [Swept(job.new.id, S.FAILED, 0, 0, "", expired=True) for job in late]

    # -- ending -----------------------------------------------------------------------------------

    def cancel(self, queue: str, ids: Sequence[str], running: bool, now: int) -> list[CancelStatus]:
        return [self.cancel_one(self.find(queue, id, now), running, now) for id in ids]

    def cancel_one(self, job: Entry | None, running: bool, now: int) -> CancelStatus:
        if job is None:
            return CancelStatus.NOT_FOUND
        if job.state in WAIT_STATES:
            self.end(job, S.CANCELLED, now, job.new.ttl)
        elif job.state is S.PROCESSING and running:
            job.cancelling = True
            self.requests.add((job.worker or "", job.queue, job.new.id, job.fence))
            return CancelStatus.CANCELLING
        return CancelStatus(job.state.value)

    def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]], now: int) -> list[UpdateTtlStatus]:
        statuses: list[UpdateTtlStatus] = []
        for id, ttl in ttls:
            job = self.find(queue, id, now)
            if job is None:
                statuses.append(UpdateTtlStatus.NOT_FOUND)
            elif job.state not in END_STATES:
                statuses.append(UpdateTtlStatus.NOT_TERMINAL)
            else:
                job.expires_at = now + ttl
                if job.letter_until:
                    job.letter_until = max(job.letter_until, job.expires_at)
                statuses.append(UpdateTtlStatus.UPDATED)
        return statuses

    def end(self, job: Entry, state: JobState, now: int, ttl: int) -> None:
        job.state, job.expires_at = state, now + ttl
        job.worker = job.lease_until = job.saved = None
        if state is S.FAILED:
            kept = DEAD_LETTER_TTL if job.new.dead_letter_ttl is None else job.new.dead_letter_ttl
            job.letter_until = now + max(ttl, kept) if kept else 0
        if state is S.CANCELLED:
            job.error = None
        if state is not S.FAILED:
            job.payload = None
        data = job.result if state is S.COMPLETED else job.error
        reply = Reply(job.queue, job.new.id, job.seq, state, data, job.attempts)
        self.replies += [(address, reply) for address in job.waiters]
        job.waiters = set()

    # -- failed jobs once more --------------------------------------------------------------------

    def revive(
        self, queue: str, ids: Sequence[str], delay: int, payload: bytes | None, now: int
    ) -> list[bool]:
        return [self.revive_one(self.find(queue, id, now, letters=True), delay, payload, now) for id in ids]

    def revive_one(self, job: Entry | None, delay: int, payload: bytes | None, now: int) -> bool:
        if job is None or job.state is not S.FAILED:
            return False
        self.seq += 1
        job.seq, job.state, job.due = self.seq, S.SCHEDULED, now + delay
        job.attempts = job.stalls = job.letter_until = 0
        job.error = job.progress = job.expires_at = None
        job.payload = job.payload if payload is None else payload
        job.new = job.new._replace(expires=None)
        if not delay:
            self.to_back(job)
        return True

    def forget(self, queue: str, ids: Sequence[str], now: int) -> list[bool]:
        return [self.forget_one(self.find(queue, id, now, letters=True), now) for id in ids]

    def forget_one(self, job: Entry | None, now: int) -> bool:
        if job is None or job.state is S.PROCESSING:
            return False
        if job.state in WAIT_STATES:
            self.end(job, S.CANCELLED, now, job.new.ttl)
        self.jobs.remove(job)
        return True

    # -- rules ------------------------------------------------------------------------------------

    def rules_of(self, queue: str) -> Rules:
        return self.rules.get(queue, Rules())

    def set_rules(self, queue: str, rules: Rules | None, expected: Rules | None) -> bool:
        if expected is not None and expected != self.rules_of(queue):
            return False
        self.rules[queue] = rules or Rules()
        return True

    def get_rules(self, queue: str, now: int) -> AdmissionInfo:
        running, ready = self.in_state(queue, now, S.PROCESSING), self.in_state(queue, now, S.QUEUED)
        return AdmissionInfo(self.rules_of(queue), len(running), len(ready), self.next_due(queue, now))

    # -- order ------------------------------------------------------------------------------------

    def to_back(self, job: Entry) -> None:
        self.back += 1
        self.joins(job)
        job.state, job.place = S.QUEUED, self.back

    def to_front(self, jobs: list[Entry]) -> None:
        for job in sorted(jobs, key=lambda job: job.fence, reverse=True):
            self.front -= 1
            self.joins(job)
            job.place = self.front
            jobs.remove(job)

    def joins(self, job: Entry) -> None:
        """Give the line of a job a turn if it is the first in it."""
        if not any(
            other.state is S.QUEUED and line_of(other) == line_of(job)
            for other in self.jobs
            if other is not job and not any(other is one for one in self.released)
        ):
            self.turns.begin(job)
