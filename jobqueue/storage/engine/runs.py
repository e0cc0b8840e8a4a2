"""The steps of the state machine that begin and end runs: claims, with rules and without, expiry, ends.

`Runs` is the base of `jobqueue.storage.engine.steps.JobSteps`, which has the calls of the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.model.fast import make_tuple
from jobqueue.model.limits import admit
from jobqueue.model.outcomes import EXPIRED_ERROR
from jobqueue.model.states import TRANSITIONS, Action, JobState
from jobqueue.storage.engine.effects import Effects
from jobqueue.storage.engine.group_lines import Turn
from jobqueue.storage.engine.job_entry import PLAIN, Extras, JobEntry
from jobqueue.storage.engine.queue_state import QueueState
from jobqueue.storage.values import EXPIRE_LIMIT, Claimed, Exchanged, Reply, SettleStatus

__all__ = ["Runs"]

# Members looked up once: an enum's attribute access costs as much as the write that it guards.
_QUEUED, _FAILED, _CLAIM = JobState.QUEUED, JobState.FAILED, Action.CLAIM


class Runs:
    """The queues of one store, and the steps that begin and end runs of their jobs."""

    def __init__(self) -> None:
        self._queues: dict[str, QueueState] = {}
        self._seq = 0
        self._fence = 0
        self.effects = Effects()

    # -- claims -----------------------------------------------------------------------------------

    def _claim(self, q: QueueState, worker: str, limit: int, now: int, lease_until: int) -> list[Claimed]:
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
                fields = (
                    id,
                    job.payload,
                    fence,
                    attempts,
                    job.max_attempts,
                    job.ttl,
                    job.created_at,
                    b"",
                    "",
                    "",
                    job.seq,
                    job.due,
                    None,
                    (),
                )  # fmt: skip - the extras of most jobs
                claim = make_tuple(Claimed, fields)
                if job.extras is not PLAIN:
                    claim = _with_extras(claim, job.extras)
                    q.drop_deadline(job)
                claimed.append(claim)
            if not line:
                del q.ready[priority]
        self._fence = fence
        return claimed

    def _exchange_by_rules(
        self,
        q: QueueState,
        worker: str,
        settled: list[SettleStatus],
        limit: int,
        now: int,
        lease_until: int,
        due: int | None,
    ) -> Exchanged:
        due = None if due is None else max(0, due - now)
        q.tidy_groups(now)
        if q.rules.paused:
            return Exchanged(settled, [], due, paused=True)
        claimed = self._claim_by_rules(q, worker, limit, now, lease_until) if limit > 0 else []
        if len(claimed) < limit:
            opening = q.opens_in(now)
            due = opening if due is None or (opening is not None and opening < due) else due
        elif settled:
            self._wake_for_slots(q, now)
        return Exchanged(settled, claimed, due)

    def _claim_by_rules(
        self, q: QueueState, worker: str, limit: int, now: int, lease_until: int
    ) -> list[Claimed]:
        claimed: list[Claimed] = []
        running = len(q.leased)
        room, _ = admit(q.rules.queue, running, q.tat, now, limit)
        groups = q.groups
        while room > len(claimed):
            left = room - len(claimed)
            plain = max(q.ready, default=None)
            if groups is not None:
                turn = groups.next_turn(plain, left, now)
            else:
                turn = None if plain is None else Turn(plain, None, left, contested=False)
            if turn is None:
                break
            if turn.line is not None:
                assert groups is not None
                claimed += self._lease(q, groups.take(turn, now), worker, now, lease_until)
                continue
            count = min(turn.most, len(q.ready[turn.priority]))
            claimed += self._claim(q, worker, count, now, lease_until)
            if groups is not None and turn.contested:
                groups.took_plain(turn.priority)
        if claimed:
            _, q.tat = admit(q.rules.queue, running, q.tat, now, len(claimed))
        return claimed

    def _lease(
        self, q: QueueState, jobs: Sequence[JobEntry], worker: str, now: int, lease_until: int
    ) -> list[Claimed]:
        claimed: list[Claimed] = []
        for job in jobs:
            self._fence += 1
            job.move(_CLAIM)
            job.attempts += 1
            job.fence, job.worker, job.lease_until, job.updated_at = self._fence, worker, lease_until, now
            job.progress = None
            q.leased[job.id] = job
            payload = job.payload
            assert payload is not None
            claim = Claimed(
                job.id, payload, job.fence, job.attempts, job.max_attempts, job.ttl, job.created_at,
                seq=job.seq, due=job.due,
            )  # fmt: skip
            claimed.append(_with_extras(claim, job.extras))
            q.drop_deadline(job)
        return claimed

    def _expire(self, q: QueueState, limit: int, now: int) -> list[JobEntry]:
        """Fail up to ``limit`` jobs that have not started in time."""
        expired = [] if q.deadlines is None else q.deadlines.take(now, limit)
        for job in expired:
            if job.state is _QUEUED:
                q.drop_ready(job, now)
            else:
                q.drop_scheduled(job)
            job.move(Action.EXPIRE)
            job.updated_at = now
            job.data = EXPIRED_ERROR
            self._end(q, job, now, job.ttl)
        return expired

    def _expire_and_claim(
        self, q: QueueState, worker: str, settled: list[SettleStatus], limit: int, now: int, lease_until: int
    ) -> Exchanged:
        expired = tuple(job.id for job in self._expire(q, EXPIRE_LIMIT, now))
        more, due = q.over(now), q.next_due()
        limit = 0 if more else limit
        if q.ruled:
            answer = self._exchange_by_rules(q, worker, settled, limit, now, lease_until, due)
            return answer._replace(more=more, expired=expired)
        claimed = self._claim(q, worker, limit, now, lease_until)
        return Exchanged(settled, claimed, None if due is None else max(0, due - now), more, expired=expired)

    def _wake_for_slots(self, q: QueueState, now: int) -> None:
        """Tell others that runs have ended, if ready jobs may start in their place."""
        limited = q.rules.queue.running is not None or q.rules.group.running is not None
        if limited and q.opens_in(now) == 0:
            self.effects.woken.add(q.name)

    # -- ends -------------------------------------------------------------------------------------

    def _end_cancelled(self, q: QueueState, job: JobEntry, now: int) -> None:
        job.payload = job.data = None
        self._end(q, job, now, job.ttl)

    def _end(self, q: QueueState, job: JobEntry, now: int, ttl: int) -> None:
        expires_at = now + ttl
        plain = job.extras is PLAIN and job.state is not _FAILED
        q.put_ended(job, expires_at, expires_at if plain else job.end_extras(now, expires_at))
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


def _with_extras(claim: Claimed, extras: Extras) -> Claimed:
    headers, task, group = extras.headers, extras.task, extras.group
    return claim._replace(headers=headers, task=task, group=group, saved=extras.saved, history=extras.history)
