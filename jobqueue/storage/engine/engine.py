"""The state machine as plain data structures: no I/O, no clock, no awaits.

`MemoryStorage` is this engine behind the contract, and any store that keeps its jobs in the memory of
a process can be built on it. Every call gets ``now`` from outside and depends on nothing else, so the
same calls always lead to the same state: a journal of calls is enough to rebuild it.

Notifications to others are collected, not sent: `Engine.take_effects` hands them over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.limits import NO_LIMIT, opens_at
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.storage.engine.documents import DocumentSpaces
from jobqueue.storage.engine.group_lines import GroupLines, SavedGroups
from jobqueue.storage.engine.job_entry import PLAIN
from jobqueue.storage.engine.listing import jobs_after
from jobqueue.storage.engine.locks import Locks
from jobqueue.storage.engine.persistence import Counters, SavedJob, restored, saved
from jobqueue.storage.engine.queue_state import NO_RULES
from jobqueue.storage.engine.steps import JobSteps
from jobqueue.storage.values import (
    WORKER_SEEN_FOR,
    AdmissionInfo,
    Change,
    Counts,
    Document,
    LockInfo,
    Page,
    Rules,
    Usage,
    WorkerInfo,
)

__all__ = ["Counters", "Engine", "SavedGroups", "SavedJob"]

_QUEUED, _PROCESSING = JobState.QUEUED, JobState.PROCESSING
_COMPLETED, _FAILED, _CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


class Engine(JobSteps):
    """All queues, documents and locks of one store. Not thread-safe: the owner serialises the calls.

    The calls are those of `jobqueue.storage.contract.Storage`, whose docstrings define them. Those that
    change jobs are in `JobSteps`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._locks = Locks()
        self.documents = DocumentSpaces()

    # -- reading ----------------------------------------------------------------------------------

    def scan(self, queue: str, state: JobState, limit: int, now: int, cursor: str | None = None) -> Page:
        after = 0
        if cursor is not None:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 20):
                raise InvalidArgumentError("cursor", "was not made by this store")
            after = int(cursor)
        q = self._peek(queue)
        page, more = ([], False) if q is None else jobs_after(q, state, limit, now, after)
        whole = state is _COMPLETED
        records = [
            job.record()._replace(result=None, headers=b"", history=())
            if whole or job.extras is not PLAIN
            else job.record()
            for job in page
        ]
        return Page(records, str(page[-1].seq) if more else None)

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
            oldest=min((job.created_at for job in q.fronts()), default=None),
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
        if not q.ruled and (q.ready or not q.schedule):  # nearly always
            return 0 if q.ready else None
        due = q.next_due()
        waits = [at for at in (q.opens_in(now), None if due is None else max(0, due - now)) if at is not None]
        return min(waits, default=None)

    def has_work(self, queue: str, now: int) -> bool:
        """Return whether an `exchange` could claim something now."""
        return self.work_in(queue, now) == 0

    def has_stalled(self, queue: str, now: int) -> bool:
        """Return whether a `sweep` would recover a job now."""
        q = self._peek(queue)
        return q is not None and any(job.lease_until <= now for job in q.leased.values())

    def has_late(self, queue: str, now: int) -> bool:
        """Return whether a `sweep` would fail a job now that has not started in time."""
        q = self._peek(queue)
        return q is not None and q.over(now)

    def has_expired(self, queue: str, now: int) -> bool:
        """Return whether a `purge` would delete a record now."""
        q = self._peek(queue)
        return q is not None and bool(q.expiry_times) and q.expiry_times[0] <= now

    def to_sweep(self, queues: Sequence[str], now: int) -> list[str]:
        """Return the queues in which a sweep or a purge would find something."""
        return [
            queue
            for queue in queues
            if self.has_stalled(queue, now) or self.has_late(queue, now) or self.has_expired(queue, now)
        ]

    # -- rules ------------------------------------------------------------------------------------

    def set_rules(self, queue: str, rules: Rules | None, now: int, *, expected: Rules | None = None) -> bool:
        q = self._peek(queue)
        if expected is not None and expected != (NO_RULES if q is None else q.rules):
            return False
        q = self._queue(queue)
        before = q.rules
        q.set_rules(NO_RULES if rules is None else rules, now)
        if before != q.rules and not q.rules.paused:
            self.effects.woken.add(queue)
        return True

    def usage(self, queue: str, groups: Sequence[str], now: int) -> list[Usage]:
        q = self._peek(queue)
        found: list[Usage] = []
        for name in groups:
            limit, running, tat = NO_LIMIT, 0, 0
            if q is not None and name:
                limit = q.rules.group
                running, tat = (0, 0) if q.groups is None else q.groups.usage(name)
            elif q is not None:
                limit, running, tat = q.rules.queue, len(q.leased), q.tat
            at = opens_at(limit, running, tat)
            found.append(Usage(running, None if at is None else max(0, at - now)))
        return found

    def get_rules(self, queue: str, now: int) -> AdmissionInfo:
        q = self._peek(queue)
        if q is None:
            return AdmissionInfo(NO_RULES, 0, 0, None)
        due = q.next_due()
        return AdmissionInfo(
            q.rules, len(q.leased), q.ready_count(), None if due is None else max(0, due - now)
        )

    @property
    def rules(self) -> list[tuple[str, Rules]]:
        """Return the queues that have rules, with them."""
        return [(q.name, q.rules) for q in self._queues.values() if q.rules != NO_RULES]

    @property
    def groups(self) -> list[SavedGroups]:
        """Return the turns and rates of the queues that have any, for `load_groups`."""
        return [
            (q.groups or GroupLines()).save(q.name, q.tat)
            for q in self._queues.values()
            if q.groups is not None or q.tat
        ]

    def load_groups(self, saved: SavedGroups) -> None:
        """Take them back, after the rules of the queue and before its jobs."""
        q = self._queue(saved.queue)
        q.tat = saved.tat
        if saved.lines or saved.tats:
            q.in_groups().restore(saved)

    # -- documents --------------------------------------------------------------------------------

    def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        answers: list[int | None] = []
        for change in changes:
            if not self.documents.matches(space, change):
                answers.append(None)
                continue
            # Counted with the jobs: so no version comes twice, whatever was deleted meanwhile.
            self._seq = version = self._seq + 1
            if change.data is None:
                self.documents.delete(space, change.name)
            else:
                self.documents.put(space, Document(change.name, version, change.data))
            answers.append(version)
        return answers

    # -- locks ------------------------------------------------------------------------------------

    def lock_acquire(self, lock: str, owner: str, ttl: int, now: int) -> int | None:
        # Counted from the fences: who raises them (`advance`) raises the terms too.
        return self._locks.acquire(lock, owner, ttl, now, self._fence)

    def lock_renew(self, lock: str, owner: str, ttl: int, now: int) -> bool:
        return self._locks.renew(lock, owner, ttl, now)

    def lock_release(self, lock: str, owner: str, now: int) -> bool:
        released = self._locks.release(lock, owner, now)
        if released:
            self.effects.unlocked.add(lock)
        return released

    def lock_holder(self, lock: str, now: int) -> LockInfo | None:
        return self._locks.holder(lock, now)

    # -- the state as a whole ---------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Return the last numbers given."""
        return Counters(self._seq, self._fence)

    def size(self) -> int:
        """Return the number of records kept, expired ones included."""
        return sum(len(q.jobs) for q in self._queues.values())

    def needs_no_waiter(self, queue: str, id: str, address: str, now: int) -> bool:
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
            q.shift_deadlines(delta)
            q.tat = q.tat and max(1, q.tat + delta * 1000)
            if q.groups is not None:
                q.groups.shift(delta)
            if retries:
                q.shift_retries(delta)

    def dump(self, now: int) -> Iterator[SavedJob]:
        """Yield every record that is not absent, for `load`. Their order holds that of the indexes."""
        for q in self._queues.values():
            for job in q.ready_jobs():
                yield saved(q.name, job)
            for job in q.leased.values():
                yield saved(q.name, job)
            for job in q.jobs.values():
                state = job.state
                if state is not _QUEUED and state is not _PROCESSING and not 0 < job.kept_until <= now:
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
            q.ordered = False
            state = job.state
            if state is _QUEUED:
                q.put_ready(job)
            elif state is _PROCESSING:
                q.leased[job.id] = job
                if job.extras.group:
                    q.in_groups().started(job.extras.group)
            elif state in ENDED:
                q.put_ended(job, job.expires_at, job.kept_until)
            else:
                q.put_scheduled(job)
            if job.extras is not PLAIN and state in WAITING:
                q.put_deadline(job)
