"""The contract once more, as plainly as it can be said: lists, dicts and full searches.

It shares no code with the stores and is no store: no I/O, no waiting, and every call looks at every
job. `jobqueue.testing.model` holds real stores against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobqueue.job import STALLED_ERROR, Action, JobState, Settlement
from jobqueue.storage.base import (
    PROMOTE_LIMIT,
    WORKER_SEEN_FOR,
    CancelStatus,
    Claimed,
    Counts,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    LockInfo,
    NewJob,
    Record,
    Renewal,
    Reply,
    Reuse,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
    WorkerInfo,
)

__all__ = ["Reference"]

S = JobState
WAIT_STATES = (S.SCHEDULED, S.QUEUED, S.FAILING)
END_STATES = (S.COMPLETED, S.FAILED, S.CANCELLED)


@dataclass
class Entry:
    """A job, with all its fields."""

    new: NewJob
    queue: str
    seq: int
    state: JobState
    due: int
    created_at: int
    payload: bytes | None
    attempts: int = 0
    stalls: int = 0
    fence: int = 0
    worker: str | None = None
    lease_until: int | None = None
    cancelling: bool = False
    result: bytes | None = None
    error: bytes | None = None
    progress: bytes | None = None
    expires_at: int | None = None
    place: int = 0
    """Place among the ready jobs of its priority: the lowest goes first."""
    waiters: set[str] = field(default_factory=set[str])


class Reference:
    """Gives the right answer to every call at an instant. Numbers are counted from one."""

    def __init__(self) -> None:
        self.jobs: list[Entry] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.locks: dict[str, LockInfo] = {}
        self.replies: list[tuple[str, Reply]] = []
        """Replies sent so far, with their addresses."""
        self.requests: set[tuple[str, str, str, int]] = set()
        """Requests to cancel so far: worker, queue, id, fence."""
        self.seq = self.fence = self.back = self.front = 0

    # -- looking up -------------------------------------------------------------------------------

    def present(self, queue: str, now: int) -> list[Entry]:
        return [
            job
            for job in self.jobs
            if job.queue == queue and (job.expires_at is None or job.expires_at > now)
        ]

    def find(self, queue: str, id: str, now: int) -> Entry | None:
        found = [job for job in self.present(queue, now) if job.new.id == id]
        assert len(found) <= 1, "two records of one id"
        return found[0] if found else None

    def in_state(self, queue: str, now: int, *states: JobState) -> list[Entry]:
        return [job for job in self.present(queue, now) if job.state in states]

    def get(
        self, queue: str, ids: Sequence[str], now: int, reply_to: str | None = None
    ) -> list[Record | None]:
        jobs = [self.find(queue, id, now) for id in ids]
        for job in jobs:
            if job is not None and reply_to is not None and job.state not in END_STATES:
                job.waiters.add(reply_to)
        return [None if job is None else record(job) for job in jobs]

    def scan(self, queue: str, state: JobState, now: int) -> dict[str, Record]:
        jobs = self.in_state(queue, now, state)
        return {job.new.id: record(job)._replace(result=None, payload=None) for job in jobs}

    def counts(self, queue: str, now: int) -> Counts:
        fronts: dict[int, Entry] = {}
        for job in self.ready(queue, now):
            fronts.setdefault(job.new.priority, job)
        numbers = {state.value: len(self.in_state(queue, now, state)) for state in S}
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

    # -- working ----------------------------------------------------------------------------------

    def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int, now: int
    ) -> Exchanged:
        self.seen[queue, worker] = now
        released: list[Entry] = []
        settled = [self.settle(queue, settlement, now, released) for settlement in settlements]
        self.to_front(released)
        claimed: list[Claimed] = []
        if limit:
            self.promote(queue, now)
            claimed = [self.claim(job, worker, now + lease) for job in self.ready(queue, now)[:limit]]
        later = [job.due for job in self.in_state(queue, now, S.SCHEDULED, S.FAILING)]
        return Exchanged(settled, claimed, max(0, min(later) - now) if later else None)

    def settle(self, queue: str, settlement: Settlement, now: int, released: list[Entry]) -> SettleStatus:
        job = self.find(queue, settlement.id, now)
        if job is None or job.fence != settlement.fence:
            return SettleStatus.LOST
        if job.state is not S.PROCESSING:
            return SettleStatus.CANCELLED if job.state is S.CANCELLED else SettleStatus.ACCEPTED
        if job.cancelling or settlement.action is Action.CANCEL:
            self.end(job, S.CANCELLED, now + job.new.ttl)
            return SettleStatus.CANCELLED
        if settlement.action is Action.COMPLETE:
            job.result, job.error = settlement.data, None
            self.end(job, S.COMPLETED, now + settlement.ttl)
        elif settlement.action is Action.FAIL:
            job.error = settlement.data
            self.end(job, S.FAILED, now + settlement.ttl)
        elif settlement.action is Action.RETRY:
            job.error = settlement.data
            job.due = now + settlement.delay
            job.state = S.FAILING
        else:
            job.attempts -= 1
            job.state = S.QUEUED
            released.append(job)
        job.worker = job.lease_until = None
        return SettleStatus.ACCEPTED

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
            new.id, job.payload, job.fence, job.attempts, new.max_attempts, new.ttl, job.created_at
        )

    def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int, now: int
    ) -> list[LeaseStatus]:
        self.seen[queue, worker] = now
        if not leases and not lease:
            del self.seen[queue, worker]
        statuses: list[LeaseStatus] = []
        for id, fence, progress in leases:
            job = self.find(queue, id, now)
            if job is None or job.state is not S.PROCESSING or job.fence != fence:
                statuses.append(LeaseStatus.LOST)
                continue
            job.lease_until = now + lease
            job.progress = job.progress if progress is None else progress
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
            worker, job.worker, job.lease_until = job.worker, None, None
            if job.cancelling:
                self.end(job, S.CANCELLED, now + job.new.ttl)
            elif job.stalls > job.new.max_stalls:
                job.error = STALLED_ERROR
                self.end(job, S.FAILED, now + job.new.ttl)
            else:
                job.state = S.QUEUED
            swept.append(Swept(job.new.id, job.state, job.attempts, job.stalls, worker or ""))
        self.to_front([job for job in expired if job.state is S.QUEUED])
        return swept

    # -- ending -----------------------------------------------------------------------------------

    def cancel(self, queue: str, ids: Sequence[str], running: bool, now: int) -> list[CancelStatus]:
        return [self.cancel_one(self.find(queue, id, now), running, now) for id in ids]

    def cancel_one(self, job: Entry | None, running: bool, now: int) -> CancelStatus:
        if job is None:
            return CancelStatus.NOT_FOUND
        if job.state in WAIT_STATES:
            self.end(job, S.CANCELLED, now + job.new.ttl)
        elif job.state is S.PROCESSING and running:
            job.cancelling = True
            self.requests.add((job.worker or "", job.queue, job.new.id, job.fence))
            return CancelStatus.CANCELLING
        return CancelStatus(job.state.value)

    def keep(self, queue: str, ttls: Sequence[tuple[str, int]], now: int) -> list[UpdateTtlStatus]:
        statuses: list[UpdateTtlStatus] = []
        for id, ttl in ttls:
            job = self.find(queue, id, now)
            if job is None:
                statuses.append(UpdateTtlStatus.NOT_FOUND)
            elif job.state not in END_STATES:
                statuses.append(UpdateTtlStatus.NOT_TERMINAL)
            else:
                job.expires_at = now + ttl
                statuses.append(UpdateTtlStatus.UPDATED)
        return statuses

    def end(self, job: Entry, state: JobState, expires_at: int) -> None:
        job.state, job.expires_at = state, expires_at
        job.worker = job.lease_until = None
        if state is S.CANCELLED:
            job.error = None
        if state is not S.FAILED:
            job.payload = None
        data = job.result if state is S.COMPLETED else job.error
        reply = Reply(job.queue, job.new.id, job.seq, state, data, job.attempts)
        self.replies += [(address, reply) for address in job.waiters]
        job.waiters = set()

    # -- order ------------------------------------------------------------------------------------

    def to_back(self, job: Entry) -> None:
        self.back += 1
        job.state, job.place = S.QUEUED, self.back

    def to_front(self, jobs: list[Entry]) -> None:
        for job in sorted(jobs, key=lambda job: job.fence, reverse=True):
            self.front -= 1
            job.place = self.front

    # -- locks ------------------------------------------------------------------------------------

    def holder(self, lock: str, now: int) -> LockInfo | None:
        held = self.locks.get(lock)
        return held if held is not None and held.expires_at > now else None

    def acquire(self, lock: str, owner: str, ttl: int, now: int) -> int | None:
        held = self.holder(lock, now)
        if held is not None and held.owner != owner:
            return None
        last = self.locks[lock].term if lock in self.locks else 0
        self.locks[lock] = LockInfo(owner, last if held is not None else last + 1, now + ttl)
        return self.locks[lock].term

    def renew(self, lock: str, owner: str, ttl: int, now: int) -> bool:
        held = self.holder(lock, now)
        if held is None or held.owner != owner:
            return False
        self.locks[lock] = held._replace(expires_at=now + ttl)
        return True

    def release(self, lock: str, owner: str, now: int) -> bool:
        return self.renew(lock, owner, 0, now)


def record(job: Entry) -> Record:
    """Return a job as a store would show it; ``updated_at`` is left out."""
    new = job.new
    return Record(
        new.id, job.seq, job.state, new.priority, job.due, job.created_at, 0, job.attempts,
        new.max_attempts, job.stalls, new.max_stalls, new.ttl, job.fence, job.worker, job.lease_until,
        job.cancelling, job.result, job.error, job.progress, job.expires_at, job.payload,
    )  # fmt: skip
