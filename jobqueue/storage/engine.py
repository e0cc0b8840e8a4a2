"""The state machine as plain data structures: no I/O, no clock, no awaits.

`MemoryStorage` is this engine behind the contract, and any store that keeps its jobs in the memory of
a process can be built on it. Every call gets ``now`` from outside and depends on nothing else, so the
same calls always lead to the same state: a journal of calls is enough to rebuild it.

Notifications to others are collected, not sent: `Engine.take_effects` hands them over.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jobqueue.errors import InvalidArgumentError
from jobqueue.job import ENDED, STALLED_ERROR, TRANSITIONS, WAITING, Action, JobState, Settlement
from jobqueue.runtime import make_tuple
from jobqueue.storage.base import (
    MAX_WAITER_BYTES,
    MAX_WAITERS,
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
    Page,
    Record,
    Renewal,
    Reply,
    Reuse,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
    WorkerInfo,
)
from jobqueue.storage.index import Entry, Index
from jobqueue.storage.locks import Locks
from jobqueue.storage.saved import Counters, SavedJob, restored, saved

__all__ = ["CancelRequest", "Counters", "Effects", "Engine", "SavedJob"]

# Members looked up once: an enum's attribute access costs as much as the write that it guards.
_QUEUED, _PROCESSING = JobState.QUEUED, JobState.PROCESSING
_COMPLETED, _FAILED, _CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
_COMPLETE, _CLAIM, _CANCEL = Action.COMPLETE, Action.CLAIM, Action.CANCEL
_RETRY, _RELEASE = Action.RETRY, Action.RELEASE
_ACCEPTED, _LOST = SettleStatus.ACCEPTED, SettleStatus.LOST
_CREATED, _FOUND = InsertStatus.CREATED, InsertStatus.FOUND
_RERUN_FAILED = Reuse.RERUN_FAILED
_ENQUEUED, _SCHEDULED = TRANSITIONS[None, Action.ENQUEUE], TRANSITIONS[None, Action.SCHEDULE]

_PURGE_STEP = 8
"""Expired records that an insert deletes on its way, so that a store nobody sweeps stays bounded."""


class CancelRequest(NamedTuple):
    """Asks the worker at ``address`` to end a job."""

    address: str
    queue: str
    id: str
    fence: int


class Effects:
    """Notifications produced by the calls so far; losing one is harmless."""

    __slots__ = ("cancels", "replies", "unlocked", "woken")

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        """Replies by address."""
        self.cancels: list[CancelRequest] = []
        self.woken: set[str] = set()
        """Queues with new work."""
        self.unlocked: set[str] = set()
        """Locks that were released."""

    def __bool__(self) -> bool:
        return bool(self.woken or self.replies or self.cancels or self.unlocked)

    def clear(self) -> None:
        """Drop all notifications."""
        self.woken.clear()
        if self.replies:
            self.replies.clear()
        if self.cancels:
            self.cancels.clear()
        if self.unlocked:
            self.unlocked.clear()


class Engine:
    """All queues and locks of one store. Not thread-safe: the owner serialises the calls.

    The calls are those of `jobqueue.storage.base.Storage`, whose docstrings define them.
    """

    def __init__(self) -> None:
        self._queues: dict[str, Index] = {}
        self._seq = 0
        self._fence = 0
        self._locks = Locks()
        self.effects = Effects()

    def take_effects(self) -> Effects | None:
        """Return the notifications so far and start new ones; ``None`` if there are none."""
        effects = self.effects
        if not effects:
            return None
        self.effects = Effects()
        return effects

    # -- jobs -------------------------------------------------------------------------------------

    def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        now: int,
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        q = self._queues.get(queue) or self._queue(queue)
        if q.expiry_times and q.expiry_times[0] <= now:
            q.purge(now, _PURGE_STEP)
        answers: list[Inserted] = []
        by_id, woken = q.jobs, self.effects.woken
        for new in jobs:
            job = by_id.get(new.id)
            if job is not None and not _replaces(new.reuse, job, now):
                answers.append(self._found(job, reply_to if new.wait else None))
                continue
            if max_length is not None and q.ready_count() + q.scheduled_count() >= max_length:
                answers.append(Inserted(InsertStatus.FULL, 0, _QUEUED))
                continue
            if job is not None:
                q.drop(job)
            self._seq = seq = self._seq + 1
            job = by_id[new.id] = Entry(new, seq, now)
            if new.wait and reply_to is not None:
                job.waiters = (reply_to,)
            if job.due <= now:
                job.state = _ENQUEUED
                q.put_ready(job)
                woken.add(queue)
            else:
                job.state = _SCHEDULED
                if q.put_scheduled(job):
                    woken.add(queue)
            answers.append(make_tuple(Inserted, (_CREATED, seq, job.state, None, 0)))
        return answers

    def _found(self, job: Entry, reply_to: str | None) -> Inserted:
        ended = job.state in ENDED
        if reply_to is not None and not ended:
            self._add_waiter(job, reply_to)
        return Inserted(_FOUND, job.seq, job.state, job.data if ended else None, job.attempts)

    def get(
        self,
        queue: str,
        ids: Sequence[str],
        now: int,
        *,
        reply_to: str | None = None,
        payload: bool = False,
    ) -> list[Record | None]:
        q = self._peek(queue)
        records: list[Record | None] = []
        for id in ids:
            job = self._find(q, id, now)
            if job is not None and reply_to is not None and job.state not in ENDED:
                self._add_waiter(job, reply_to)
            records.append(None if job is None else job.record(payload=payload))
        return records

    def exchange(
        self,
        queue: str,
        worker: str,
        settlements: Sequence[Settlement],
        limit: int,
        lease: int,
        now: int,
    ) -> Exchanged:
        q = self._queues.get(queue) or self._queue(queue)
        q.workers[worker] = now
        settled = self._settle(q, settlements, now) if settlements else []
        due = q.next_due() if q.schedule else None
        if limit > 0 and due is not None and due <= now:
            q.promote(now)
            due = q.next_due()
        claimed = self._claim(q, worker, limit, now, now + lease) if limit > 0 else []
        return Exchanged(settled, claimed, None if due is None else max(0, due - now))

    def _settle(  # noqa: C901 - one branch an action; the hottest loop of all
        self, q: Index, settlements: Sequence[Settlement], now: int
    ) -> list[SettleStatus]:
        jobs, leased, released = q.jobs, q.leased, list[Entry]()
        statuses: list[SettleStatus] = []
        for id, fence, action, data, ttl, delay in settlements:
            job = jobs.get(id)
            if job is None or job.fence != fence or 0 < job.expires_at <= now:
                statuses.append(_LOST)
                continue
            if job.state is not _PROCESSING:  # settled by this fence before
                statuses.append(SettleStatus.CANCELLED if job.state is _CANCELLED else _ACCEPTED)
                continue
            if job.cancelling:
                action = _CANCEL  # noqa: PLW2901 - whatever the run came to
            del leased[id]
            job.state = TRANSITIONS[_PROCESSING, action]
            job.updated_at = now
            if action is _COMPLETE:
                job.payload = None
                job.data = data
                self._end(q, job, now + ttl)
            elif action is _RETRY:
                job.data = data
                job.due = now + delay
                if q.put_scheduled(job):
                    self.effects.woken.add(q.name)
            elif action is _RELEASE:
                job.attempts -= 1
                released.append(job)
            elif action is _CANCEL:
                self._end_cancelled(q, job, now)
                statuses.append(SettleStatus.CANCELLED)
                continue
            else:
                job.data = data
                self._end(q, job, now + ttl)
            statuses.append(_ACCEPTED)
        if released:
            q.put_front(released)
            self.effects.woken.add(q.name)
        return statuses

    def _claim(self, q: Index, worker: str, limit: int, now: int, lease_until: int) -> list[Claimed]:
        claimed: list[Claimed] = []
        leased, fence, state = q.leased, self._fence, TRANSITIONS[_QUEUED, _CLAIM]
        while limit and q.ready:
            priority = max(q.ready)
            line = q.ready[priority]
            take = min(limit, len(line))
            limit -= take
            for _ in range(take):
                id, job = line.popitem(last=False)
                fence += 1
                attempts = job.attempts + 1
                job.state = state
                job.attempts = attempts
                job.fence = fence
                job.worker = worker
                job.lease_until = lease_until
                job.updated_at = now
                job.progress = None
                leased[id] = job
                fields = (id, job.payload, fence, attempts, job.max_attempts, job.ttl, job.created_at)
                claimed.append(make_tuple(Claimed, fields))
            if not line:
                del q.ready[priority]
        self._fence = fence
        return claimed

    def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int, now: int
    ) -> list[LeaseStatus]:
        q = self._queue(queue)
        q.workers[worker] = now
        if not leases and not lease:
            del q.workers[worker]
        statuses: list[LeaseStatus] = []
        for id, fence, progress in leases:
            job = q.leased.get(id)
            if job is None or job.fence != fence:
                statuses.append(LeaseStatus.LOST)
                continue
            job.lease_until = now + lease
            job.updated_at = now
            if progress is not None:
                job.progress = progress
            statuses.append(LeaseStatus.CANCELLING if job.cancelling else LeaseStatus.HELD)
        return statuses

    def sweep(self, queue: str, limit: int, now: int) -> list[Swept]:
        q = self._peek(queue)
        if q is None:
            return []
        # All leases are looked at: there are as many as jobs run at this moment, which is few.
        expired = [job for job in q.leased.values() if job.lease_until <= now][: max(0, limit)]
        swept, recovered = list[Swept](), list[Entry]()
        for job in expired:
            del q.leased[job.id]
            self._fence += 1
            job.fence = self._fence
            job.stalls += 1
            job.updated_at = now
            worker = job.worker
            if job.cancelling:
                job.move(_CANCEL)
                self._end_cancelled(q, job, now)
            elif job.stalls > job.max_stalls:
                job.move(Action.ABANDON)
                job.data = STALLED_ERROR
                self._end(q, job, now + job.ttl)
            else:
                job.move(Action.RECOVER)
                recovered.append(job)
            swept.append(Swept(job.id, job.state, job.attempts, job.stalls, worker))
        if recovered:
            q.put_front(recovered)
            self.effects.woken.add(queue)
        return swept

    def cancel(
        self, queue: str, ids: Sequence[str], now: int, *, running: bool = False
    ) -> list[CancelStatus]:
        q = self._peek(queue)
        return [self._cancel(q, self._find(q, id, now), now, running=running) for id in ids]

    def _cancel(self, q: Index | None, job: Entry | None, now: int, *, running: bool) -> CancelStatus:
        if q is None or job is None:
            return CancelStatus.NOT_FOUND
        state = job.state
        if state is _PROCESSING:
            if not running:
                return CancelStatus.PROCESSING
            job.cancelling = True
            self.effects.cancels.append(CancelRequest(job.worker, q.name, job.id, job.fence))
            return CancelStatus.CANCELLING
        if state in WAITING:
            if state is _QUEUED:
                q.drop_ready(job)
            else:
                q.drop_scheduled(job)
            job.move(_CANCEL)
            job.updated_at = now
            self._end_cancelled(q, job, now)
            return CancelStatus.CANCELLED
        return CancelStatus(state.value)

    def keep(self, queue: str, ttls: Sequence[tuple[str, int]], now: int) -> list[UpdateTtlStatus]:
        q = self._peek(queue)
        statuses: list[UpdateTtlStatus] = []
        for id, ttl in ttls:
            job = self._find(q, id, now)
            if q is None or job is None:
                statuses.append(UpdateTtlStatus.NOT_FOUND)
            elif job.state not in ENDED:
                statuses.append(UpdateTtlStatus.NOT_TERMINAL)
            else:
                q.expire(job, now + ttl)
                statuses.append(UpdateTtlStatus.UPDATED)
        return statuses

    def purge(self, queue: str, limit: int, now: int) -> int:
        q = self._peek(queue)
        if q is None:
            return 0
        for worker in [w for w, seen in q.workers.items() if seen + WORKER_SEEN_FOR <= now]:
            del q.workers[worker]
        dropped = q.purge(now, limit)
        if not q.jobs and not q.workers:
            del self._queues[queue]
        return dropped

    # -- reading ----------------------------------------------------------------------------------

    def scan(self, queue: str, state: JobState, limit: int, now: int, cursor: str | None = None) -> Page:
        after = 0
        if cursor is not None:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 20):
                raise InvalidArgumentError("cursor", "was not made by this store")
            after = int(cursor)
        q = self._peek(queue)
        found = [] if q is None else [
            job for job in q.jobs.values()
            if job.state is state and job.seq > after and not 0 < job.expires_at <= now
        ]  # fmt: skip
        page = heapq.nsmallest(limit, found, key=lambda job: job.seq)
        more = str(page[-1].seq) if page and len(found) > len(page) else None
        return Page([job.record()._replace(result=None) for job in page], more)

    def counts(self, queue: str, now: int) -> Counts:
        q = self._peek(queue)
        if q is None:
            return Counts()
        ended = q.ended_now(now)
        return Counts(
            scheduled=q.waiting[JobState.SCHEDULED],
            queued=q.ready_count(),
            processing=len(q.leased),
            failing=q.waiting[JobState.FAILING],
            completed=ended[_COMPLETED],
            failed=ended[_FAILED],
            cancelled=ended[_CANCELLED],
            oldest=min((next(iter(line.values())).created_at for line in q.ready.values()), default=None),
        )

    def ended(self, queue: str) -> int:
        """Return how many jobs have ended since this engine began."""
        q = self._peek(queue)
        return 0 if q is None else q.ended_total

    def queues(self) -> list[str]:
        return sorted(name for name, q in self._queues.items() if q.jobs)

    def workers(self, queue: str, now: int) -> list[WorkerInfo]:
        q = self._peek(queue)
        if q is None:
            return []
        running = dict.fromkeys(q.workers, 0)
        for job in q.leased.values():
            running[job.worker] = running.get(job.worker, 0) + 1
        return [
            WorkerInfo(worker, seen, running[worker])
            for worker, seen in sorted(q.workers.items())
            if seen + WORKER_SEEN_FOR > now
        ]

    def work_in(self, queue: str, now: int) -> int | None:
        """Return the milliseconds until an `exchange` could claim something, ``None`` if nothing waits."""
        q = self._peek(queue)
        if q is None:
            return None
        if q.ready:
            return 0
        due = q.next_due()
        return None if due is None else max(0, due - now)

    def has_work(self, queue: str, now: int) -> bool:
        """Return whether an `exchange` could claim something now."""
        return self.work_in(queue, now) == 0

    def has_stalled(self, queue: str, now: int) -> bool:
        """Return whether a `sweep` would take a job now."""
        q = self._peek(queue)
        return q is not None and any(job.lease_until <= now for job in q.leased.values())

    def has_expired(self, queue: str, now: int) -> bool:
        """Return whether a `purge` would delete a record now."""
        q = self._peek(queue)
        return q is not None and bool(q.expiry_times) and q.expiry_times[0] <= now

    def to_sweep(self, queues: Sequence[str], now: int) -> list[str]:
        """Return the queues in which a sweep or a purge would find something."""
        return [queue for queue in queues if self.has_stalled(queue, now) or self.has_expired(queue, now)]

    # -- locks ------------------------------------------------------------------------------------

    def acquire(self, lock: str, owner: str, ttl: int, now: int) -> int | None:
        # Counted from the fences: who raises them (`advance`) raises the terms too.
        return self._locks.acquire(lock, owner, ttl, now, self._fence)

    def renew(self, lock: str, owner: str, ttl: int, now: int) -> bool:
        return self._locks.renew(lock, owner, ttl, now)

    def release(self, lock: str, owner: str, now: int) -> bool:
        released = self._locks.release(lock, owner, now)
        if released:
            self.effects.unlocked.add(lock)
        return released

    def holder(self, lock: str, now: int) -> LockInfo | None:
        return self._locks.holder(lock, now)

    # -- the state as a whole ---------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Return the last numbers given."""
        return Counters(self._seq, self._fence)

    def size(self) -> int:
        """Return the number of records kept, expired ones included."""
        return sum(len(q.jobs) for q in self._queues.values())

    def has_waiter(self, queue: str, id: str, address: str, now: int) -> bool:
        """Return whether registering this waiter changes nothing: it is there, or the job is not live."""
        job = self._find(self._peek(queue), id, now)
        return job is None or job.state in ENDED or address in job.waiters

    def skip_fences(self, count: int) -> None:
        """Never give the next ``count`` fences: claims that were lost may have had them."""
        self._fence += count

    def advance(self, counters: Counters) -> None:
        """Continue after these numbers, if they are larger than the own."""
        self._seq, self._fence = max(self._seq, counters.seq), max(self._fence, counters.fence)

    def restart(self, fence_gap: int) -> None:
        """Continue after a restart of the host: no earlier lease, lock or worker is alive.

        The fences jump by ``fence_gap``, past any that was given but not written down.
        """
        self.skip_fences(fence_gap)
        self._locks.end_all()
        for q in self._queues.values():
            q.workers.clear()
            for job in q.leased.values():
                job.lease_until = 0

    def shift(self, delta: int, *, retries: bool = True) -> None:
        """Follow a clock that was set by ``delta`` ms.

        Leases, locks, TTLs and the pauses before ``retries`` keep their length; a start time that was
        asked for stays.
        """
        self._locks.shift(delta)
        for q in self._queues.values():
            for worker in q.workers:
                q.workers[worker] += delta
            for job in q.leased.values():
                job.lease_until = job.lease_until and job.lease_until + delta
            q.shift_expiry(delta)
            if retries:
                q.shift_retries(delta)

    def dump(self, now: int) -> Iterator[SavedJob]:
        """Yield every record that is not absent, for `load`. Their order holds that of the indexes."""
        for q in self._queues.values():
            for line in q.ready.values():
                for job in line.values():
                    yield saved(q.name, job)
            for job in q.leased.values():
                yield saved(q.name, job)
            for job in q.jobs.values():
                state = job.state
                if state is not _QUEUED and state is not _PROCESSING and not 0 < job.expires_at <= now:
                    yield saved(q.name, job)

    @property
    def locks(self) -> dict[str, LockInfo]:
        """Return the named locks, released ones included, whose terms go on."""
        return dict(self._locks.all)

    @property
    def seen(self) -> list[tuple[str, str, int]]:
        """Return (queue, worker, instant) of every worker seen."""
        return [(q.name, worker, at) for q in self._queues.values() for worker, at in q.workers.items()]

    def see(self, queue: str, worker: str, at: int) -> None:
        """Note that a worker was seen."""
        self._queue(queue).workers[worker] = at

    def load(self, jobs: Iterable[SavedJob], locks: dict[str, LockInfo], counters: Counters) -> None:
        """Fill an empty engine with the dump of another one."""
        self._seq, self._fence = counters
        self._locks.all = dict(locks)
        for record in jobs:
            q = self._queue(record.queue)
            job = restored(record)
            q.jobs[job.id] = job
            state = job.state
            if state is _QUEUED:
                q.put_ready(job)
            elif state is _PROCESSING:
                q.leased[job.id] = job
            elif state in ENDED:
                q.put_ended(job, job.expires_at)
            else:
                q.put_scheduled(job)

    # -- shared steps -----------------------------------------------------------------------------

    def _queue(self, name: str) -> Index:
        q = self._queues.get(name)
        if q is None:
            q = self._queues[name] = Index(name)
        return q

    def _peek(self, name: str) -> Index | None:
        return self._queues.get(name)

    def _find(self, q: Index | None, id: str, now: int) -> Entry | None:
        job = None if q is None else q.jobs.get(id)
        return None if job is None or 0 < job.expires_at <= now else job

    def _add_waiter(self, job: Entry, address: str) -> None:
        if address not in job.waiters:
            job.waiters = _bounded((*job.waiters, address))

    def _end_cancelled(self, q: Index, job: Entry, now: int) -> None:
        job.payload = job.data = None
        self._end(q, job, now + job.ttl)

    def _end(self, q: Index, job: Entry, expires_at: int) -> None:
        q.put_ended(job, expires_at)
        if job.waiters:
            reply = make_tuple(Reply, (q.name, job.id, job.seq, job.state, job.data, job.attempts))
            replies = self.effects.replies
            for address in job.waiters:
                told = replies.get(address)
                if told is None:
                    replies[address] = [reply]
                else:
                    told.append(reply)
            job.waiters = ()


def _bounded(waiters: tuple[str, ...]) -> tuple[str, ...]:
    """Return as many of the latest addresses as may wait for one job."""
    waiters = waiters[-MAX_WAITERS:]
    excess = len("".join(waiters).encode()) - MAX_WAITER_BYTES
    dropped = 0
    while excess > 0:
        excess -= len(waiters[dropped].encode())
        dropped += 1
    return waiters[dropped:]


def _replaces(reuse: Reuse, job: Entry, now: int) -> bool:
    """Return whether a new job replaces the record that has its id."""
    state = job.state
    if state not in ENDED:
        return False
    if state is _CANCELLED or job.expires_at <= now or reuse is Reuse.RERUN:
        return True
    return state is _FAILED and reuse is _RERUN_FAILED
