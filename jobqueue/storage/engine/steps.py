"""The steps of the state machine that change jobs: from insertion to the end, and back by revival.

Each is one call of the contract, on plain data. `Engine` adds listings, locks, documents and what outlives a
process; `Runs`, the base, has what begins and ends a run. The file is long because the state machine of a job
is read best in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.model.fast import make_tuple
from jobqueue.model.outcomes import STALLED_ERROR, Settlement
from jobqueue.model.states import ENDED, TRANSITIONS, WAITING, Action, JobState
from jobqueue.storage.engine.effects import CancelRequest, Effects
from jobqueue.storage.engine.job_entry import PLAIN, JobEntry
from jobqueue.storage.engine.queue_state import QueueState
from jobqueue.storage.engine.runs import Runs
from jobqueue.storage.values import (
    MAX_WAITER_BYTES,
    MAX_WAITERS,
    WORKER_SEEN_FOR,
    CancelStatus,
    Conflict,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    NewJob,
    Record,
    Renewal,
    Reuse,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
)

__all__ = ["JobSteps"]

# Members looked up once: an enum's attribute access costs as much as the write that it guards.
_QUEUED, _PROCESSING = JobState.QUEUED, JobState.PROCESSING
_FAILED, _CANCELLED = JobState.FAILED, JobState.CANCELLED
_COMPLETE, _CLAIM, _CANCEL = Action.COMPLETE, Action.CLAIM, Action.CANCEL
_RETRY, _RELEASE = Action.RETRY, Action.RELEASE
_ACCEPTED, _LOST = SettleStatus.ACCEPTED, SettleStatus.LOST
_CREATED, _FOUND = InsertStatus.CREATED, InsertStatus.FOUND
_RERUN_FAILED, _JOIN = Reuse.RERUN_FAILED, Conflict.JOIN
_ENQUEUED, _SCHEDULED = TRANSITIONS[None, Action.ENQUEUE], TRANSITIONS[None, Action.SCHEDULE]

# Looked up for every job: with the state before it in the key, it would take twice as long.
_SETTLED = {action: state for (before, action), state in TRANSITIONS.items() if before is _PROCESSING}
_PURGE_STEP = 8
"""Expired records that an insert deletes on its way, so that a store nobody sweeps stays bounded."""


class JobSteps(Runs):
    """The queues of one store, and the steps that change their jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.promoted = False
        """Whether an exchange has moved due jobs, which its answer does not tell if it claims none. Who wants
        to know resets it."""

    def take_effects(self) -> Effects | None:
        """Return the notifications so far and start new ones; ``None`` if there are none."""
        effects = self.effects
        if not effects:
            return None
        self.effects = Effects()
        return effects

    # -- jobs -------------------------------------------------------------------------------------

    def insert(  # noqa: C901 - the path of every job, written out
        self,
        queue: str,
        jobs: Sequence[NewJob],
        now: int,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        q = self._queues.get(queue) or self._queue(queue)
        if q.expiry_times and q.expiry_times[0] <= now:
            q.purge(now, _PURGE_STEP)
        answers: list[Inserted] = []
        by_id, woken = q.jobs, self.effects.woken
        for new in jobs:
            id = new.id
            job = by_id.get(id)
            if job is not None and not _replaces(new.reuse, job, now):
                if new.conflict is not _JOIN and job.state in WAITING:
                    answers.append(self._renew(q, job, new, now, reply_to if new.wait else None))
                    continue
                answers.append(self._found(job, reply_to if new.wait else None))
                continue
            if max_length is not None and q.ready_count() + q.scheduled_count() >= max_length:
                answers.append(Inserted(InsertStatus.FULL, 0, _QUEUED))
                continue
            if job is not None:
                q.drop(job)
            self._seq = seq = self._seq + 1
            job = by_id[id] = JobEntry(new, seq, now, reply_to)
            plain = job.extras is PLAIN
            if not plain:
                q.put_deadline(job)
            if job.due <= now:
                job.state = _ENQUEUED
                line = q.ready.get(job.priority)
                if line is None or not plain:
                    q.put_ready(job)
                else:  # spares nearly all inserts the call
                    line[id] = job
                woken.add(queue)
            else:
                job.state = _SCHEDULED
                if q.put_scheduled(job):
                    woken.add(queue)
            answers.append(make_tuple(Inserted, (_CREATED, seq, job.state, None, 0)))
        return answers

    def _found(self, job: JobEntry, reply_to: str | None) -> Inserted:
        ended = job.state in ENDED
        if reply_to is not None and not ended:
            self._add_waiter(job, reply_to)
        return Inserted(_FOUND, job.seq, job.state, job.data if ended else None, job.attempts)

    def _renew(self, q: QueueState, job: JobEntry, new: NewJob, now: int, reply_to: str | None) -> Inserted:
        due = now + new.delay if new.run_at is None else new.run_at
        if new.conflict is Conflict.DEBOUNCE:
            due = max(due, job.due)
        q.drop_deadline(job)
        if (
            job.state is not _QUEUED
            or due > now
            or new.priority != job.priority
            or new.group != job.extras.group
        ):
            if job.state is _QUEUED:
                q.drop_ready(job, now)
            else:
                q.drop_scheduled(job)
            job.renew(new, now, due=due)
            if due <= now:
                job.state = _QUEUED
                q.put_ready(job)
                self.effects.woken.add(q.name)
            else:
                job.state = JobState.FAILING if job.attempts else _SCHEDULED
                if q.put_scheduled(job):
                    self.effects.woken.add(q.name)
        else:  # it stays where it is
            job.renew(new, now, due=due)
        q.put_deadline(job)
        if reply_to is not None:
            self._add_waiter(job, reply_to)
        return Inserted(InsertStatus.REPLACED, job.seq, job.state, None, job.attempts)

    def get(
        self,
        queue: str,
        ids: Sequence[str],
        now: int,
        *,
        reply_to: str | None = None,
        payload: bool = False,
        letters: bool = False,
    ) -> list[Record | None]:
        q = self._peek(queue)
        records: list[Record | None] = []
        for id in ids:
            job = self._find(q, id, now, letters=letters)
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
            self.promoted = True
            q.promote(now)
            due = q.next_due()
        if q.deadlines is not None and limit > 0 and not q.rules.paused and q.over(now):
            return self._expire_and_claim(q, worker, settled, limit, now, now + lease)
        if q.ruled:
            return self._exchange_by_rules(q, worker, settled, limit, now, now + lease, due)
        claimed = self._claim(q, worker, limit, now, now + lease) if limit > 0 else []
        return Exchanged(settled, claimed, None if due is None else max(0, due - now))

    def _settle(  # noqa: C901 - one branch an action; the hottest loop of all
        self, q: QueueState, settlements: Sequence[Settlement], now: int
    ) -> list[SettleStatus]:
        jobs, leased, released = q.jobs, q.leased, list[JobEntry]()
        statuses: list[SettleStatus] = []
        for id, fence, action, data, ttl, delay, summary, then in settlements:
            job = jobs.get(id)
            if job is None or job.fence != fence or 0 < job.expires_at <= now:
                statuses.append(_LOST)
                continue
            if job.state is not _PROCESSING:  # settled by this fence before
                statuses.append(SettleStatus.CANCELLED if job.state is _CANCELLED else _ACCEPTED)
                continue
            if job.cancelling:
                action = _CANCEL  # noqa: PLW2901 - whatever the run came to
            if job.extras is PLAIN:
                del leased[id]
            else:
                q.end_run(job, now)
            job.state = _SETTLED[action]
            job.updated_at = now
            if action is _COMPLETE:
                job.payload = None
                job.data = data
                if job.extras is PLAIN and not job.waiters:  # spares most ends the call of `_end`
                    q.put_ended(job, now + ttl, now + ttl)
                else:
                    self._end(q, job, now, ttl)
            elif action is _RETRY:
                job.data = data
                job.note_failure(now, job.worker, summary)
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
                job.note_failure(now, job.worker, summary)
                self._end(q, job, now, ttl)
            statuses.append(_ACCEPTED)
            if then:
                self.insert(q.name, then, now)
        if released:
            q.put_front(released)
            self.effects.woken.add(q.name)
        return statuses

    def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int, now: int
    ) -> list[LeaseStatus]:
        q = self._queue(queue)
        q.workers[worker] = now
        if not leases and not lease:
            del q.workers[worker]
        statuses: list[LeaseStatus] = []
        for id, fence, progress, checkpoint in leases:
            job = q.leased.get(id)
            if job is None or job.fence != fence:
                statuses.append(LeaseStatus.LOST)
                continue
            job.lease_until = now + lease
            job.updated_at = now
            if progress is not None:
                job.progress = progress
            if checkpoint is not None:
                job.extras = job.extras._replace(saved=checkpoint)
            statuses.append(LeaseStatus.CANCELLING if job.cancelling else LeaseStatus.HELD)
        return statuses

    def sweep(self, queue: str, limit: int, now: int) -> list[Swept]:
        q = self._peek(queue)
        if q is None:
            return []
        # All leases are looked at: there are as many as jobs run at this moment, which is few.
        expired = [job for job in q.leased.values() if job.lease_until <= now][: max(0, limit)]
        swept, recovered = list[Swept](), list[JobEntry]()
        for job in expired:
            q.end_run(job, now)
            self._fence += 1
            job.fence = self._fence
            job.stalls += 1
            job.updated_at = now
            worker = job.worker
            job.note_failure(now, worker, STALLED_ERROR)
            if job.cancelling:
                job.move(_CANCEL)
                self._end_cancelled(q, job, now)
            elif job.stalls > job.max_stalls:
                job.move(Action.ABANDON)
                job.data = STALLED_ERROR
                self._end(q, job, now, job.ttl)
            else:
                job.move(Action.RECOVER)
                recovered.append(job)
            swept.append(Swept(job.id, job.state, job.attempts, job.stalls, worker))
        if recovered:
            q.put_front(recovered)
            self.effects.woken.add(queue)
        elif swept and q.ruled:
            self._wake_for_slots(q, now)
        late = self._expire(q, max(0, limit) - len(swept), now)
        swept += [Swept(job.id, job.state, job.attempts, job.stalls, "", expired=True) for job in late]
        return swept

    def cancel(
        self, queue: str, ids: Sequence[str], now: int, *, running: bool = False
    ) -> list[CancelStatus]:
        q = self._peek(queue)
        return [self._cancel(q, self._find(q, id, now), now, running=running) for id in ids]

    def _cancel(self, q: QueueState | None, job: JobEntry | None, now: int, *, running: bool) -> CancelStatus:
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
                q.drop_ready(job, now)
            else:
                q.drop_scheduled(job)
            q.drop_deadline(job)
            job.move(_CANCEL)
            job.updated_at = now
            self._end_cancelled(q, job, now)
            return CancelStatus.CANCELLED
        return CancelStatus(state.value)

    def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]], now: int) -> list[UpdateTtlStatus]:
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
        q.tidy_groups(now)
        if not q.jobs and not q.workers and not q.ruled and q.tat <= now * 1000:
            del self._queues[queue]
        return dropped

    # -- revival ----------------------------------------------------------------------------------

    def revive(
        self, queue: str, ids: Sequence[str], now: int, delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        q = self._peek(queue)
        return [self._revive(q, self._find(q, id, now, letters=True), now, delay, payload) for id in ids]

    def _revive(
        self, q: QueueState | None, job: JobEntry | None, now: int, delay: int, payload: bytes | None
    ) -> bool:
        if q is None or job is None or job.state is not _FAILED:
            return False
        q.revive(job)
        self._seq = job.seq = self._seq + 1
        job.due, job.updated_at = now + delay, now
        job.attempts = job.stalls = 0
        job.data = job.progress = None
        if payload is not None:
            job.payload = payload
        job.extras = job.extras._replace(expires=None)
        if delay:
            job.state = _SCHEDULED
            first = q.put_scheduled(job)
        else:
            job.state = _ENQUEUED
            q.put_ready(job)
            first = True
        if first:
            self.effects.woken.add(q.name)
        return True

    def forget(self, queue: str, ids: Sequence[str], now: int) -> list[bool]:
        q = self._peek(queue)
        return [self._forget(q, self._find(q, id, now, letters=True), now) for id in ids]

    def _forget(self, q: QueueState | None, job: JobEntry | None, now: int) -> bool:
        if q is None or job is None or job.state is _PROCESSING:
            return False
        if job.state in WAITING:
            self._cancel(q, job, now, running=False)
        q.drop(job)
        return True

    # -- shared steps -----------------------------------------------------------------------------

    def _queue(self, name: str) -> QueueState:
        q = self._queues.get(name)
        if q is None:
            q = self._queues[name] = QueueState(name)
        return q

    def _peek(self, name: str) -> QueueState | None:
        return self._queues.get(name)

    def _find(self, q: QueueState | None, id: str, now: int, *, letters: bool = False) -> JobEntry | None:
        job = None if q is None else q.jobs.get(id)
        if job is None or (0 < job.expires_at <= now and not (letters and now < job.kept_until)):
            return None
        return job

    def _add_waiter(self, job: JobEntry, address: str) -> None:
        if address not in job.waiters:
            job.waiters = _bounded((*job.waiters, address))


def _bounded(waiters: tuple[str, ...]) -> tuple[str, ...]:
    """Return as many of the latest addresses as may wait for one job."""
    waiters = waiters[-MAX_WAITERS:]
    excess = len("".join(waiters).encode()) - MAX_WAITER_BYTES
    dropped = 0
    while excess > 0:
        excess -= len(waiters[dropped].encode())
        dropped += 1
    return waiters[dropped:]


def _replaces(reuse: Reuse, job: JobEntry, now: int) -> bool:
    """Return whether a new job replaces the record that has its id."""
    state = job.state
    if state not in ENDED:
        return False
    if state is _CANCELLED or job.expires_at <= now or reuse is Reuse.RERUN:
        return True
    return state is _FAILED and reuse is _RERUN_FAILED
