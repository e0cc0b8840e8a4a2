"""`GuardedStorage`: a store whose jobs outlive it.

It is long because it has a method for every call of the contract of which the ledger must hear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from jobqueue.errors import InvalidArgumentError, QueueFullError
from jobqueue.model.checks import check_count, check_seconds
from jobqueue.model.new_job import NewJob, Reuse
from jobqueue.model.outcomes import Settlement, decode_error
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.text import printable
from jobqueue.storage import arguments
from jobqueue.storage.capabilities import (
    ClaimsOnArrival,
    Documents,
    Revival,
    Sweepable,
    require,
)
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard.control import Guard
from jobqueue.storage.guard.gate import LedgerAwayError
from jobqueue.storage.guard.hands_on import HandsOn
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.reconcile import Reconciling
from jobqueue.storage.guard.replies import Numbers
from jobqueue.storage.guard.session import Claim, GuardOptions, GuardSession
from jobqueue.storage.guard.tags import new_token, number_of, tagged_job, untag
from jobqueue.storage.guard.values import CODES, Change, History, Known, Written
from jobqueue.storage.values import (
    CancelStatus,
    Claimed,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    Record,
    Renewal,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
)

__all__ = ["GuardedStorage"]

MOST_ERROR = 5_000
"""Largest number of characters of an error that the ledger keeps."""
LEAST_STUCK = 60.0
LOOK_WITHIN = 0.2
"""Seconds that a look at the store's epoch is good for when jobs are claimed."""
_CANCELLED, _FAILED, _QUEUED = (
    CODES[state] for state in (JobState.CANCELLED, JobState.FAILED, JobState.QUEUED)
)
_EVENTS = {
    Action.COMPLETE: "completed",
    Action.FAIL: "failed",
    Action.RETRY: "retried",
    Action.RELEASE: "released",
    Action.CANCEL: "cancelled",
}
_STATES = {
    Action.COMPLETE: JobState.COMPLETED,
    Action.FAIL: JobState.FAILED,
    Action.RETRY: JobState.FAILING,
    Action.RELEASE: JobState.QUEUED,
    Action.CANCEL: JobState.CANCELLED,
}


class GuardedStorage(HandsOn):
    """Guards the jobs of another store, ``inner``, by a ledger in PostgreSQL: they survive its loss.

    Every job is in the ledger before ``inner`` has it; what becomes of it follows in the background. Whoever
    leads the reapers of the store compares the two: every ``interval`` seconds, less often while there is
    nothing to do, ``batch_size`` jobs at a time, and brings back up to ``rate`` lost jobs per second; at once
    and without that limit when the store was wiped or set back. A job that runs although its lease has been
    over for ``stuck_after`` seconds (60 at least) counts as stuck, and is swept.

    While PostgreSQL is away ``on_ledger_failure`` decides: ``"continue"`` enqueues all the same and keeps
    what the ledger lacks in memory, within bounds; ``"refuse"`` raises `StorageUnavailableError`. After
    ``breaker_failures`` failures in a row it is asked once in ``breaker_reset`` seconds. Jobs that have ended
    stay in the ledger for ``history_days``.

    Raises `InvalidArgumentError` for a bad option, `UnsupportedError` for a store without documents.
    """

    _kind = "guarded"

    def __init__(
        self,
        inner: Storage,
        ledger: PostgresLedger,
        *,
        interval: float = 30.0,
        rate: float = 20.0,
        batch_size: int = 100,
        stuck_after: float = 300.0,
        on_ledger_failure: str = "continue",
        breaker_failures: int = 5,
        breaker_reset: float = 60.0,
        history_days: float = 7.0,
    ) -> None:
        if not isinstance(ledger, PostgresLedger):
            raise InvalidArgumentError("ledger", f"must be a PostgresLedger, not {type(ledger).__name__}")
        if on_ledger_failure not in {"continue", "refuse"}:
            raise InvalidArgumentError("on_ledger_failure", 'must be "continue" or "refuse"')
        if check_seconds("stuck_after", stuck_after) < LEAST_STUCK:
            raise InvalidArgumentError("stuck_after", f"must be at least {LEAST_STUCK:g} seconds")
        require(inner, Documents, "a guard")
        require(inner, Revival, "a guard")
        self._options = GuardOptions(
            Reconciling(
                check_seconds("interval", interval),
                check_seconds("rate", rate),
                check_count("batch_size", batch_size),
                stuck_after,
                check_seconds("history_days", history_days),
            ),
            refuses=on_ledger_failure == "refuse",
            breaker_failures=check_count("breaker_failures", breaker_failures),
            breaker_reset=check_seconds("breaker_reset", breaker_reset),
        )
        self._inner = inner
        self._ledger = ledger
        self._watches = True
        self._numbers = Numbers()  # that of all clones: what one has inserted another may be told of
        self.clock = inner.clock
        self.batched = True
        self.shared = inner.shared
        self._offer_arrivals()
        super().__init__()

    def __repr__(self) -> str:
        return f"GuardedStorage({self._inner!r}, {self._ledger!r})"

    @property
    def guard(self) -> Guard:
        """What an operator asks the guard: counts, a comparison now, the history of a job."""
        return Guard(self._open_session, self._ledger)

    def _make_session(self) -> GuardSession:
        return GuardSession(self._inner, self._ledger, self._options, self._numbers, watches=self._watches)

    def clone(self) -> Self:
        twin = super().clone()
        twin._be_twin()  # noqa: SLF001 - of the same class
        return twin

    def _be_twin(self) -> None:
        self._inner, self._ledger = self._inner.clone(), self._ledger.clone()
        self._watches = False  # one watch of a process is enough
        self._offer_arrivals()

    def _offer_arrivals(self) -> None:
        """Claim on arrival if the store does: an ability is there if its call is."""
        if isinstance(self._inner, ClaimsOnArrival):
            self.claim_on_arrival = self._claim_on_arrival

    # -- jobs -----------------------------------------------------------------------------------------

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        """Write the jobs into the ledger, then create them as `Storage.insert` does.

        An id whose job had ended before the store was lost is answered from the ledger.
        """
        arguments.check_insert(queue, jobs, reply_to, max_length)
        session = self._open_session()
        written, tagged = _ledgered(queue, jobs)
        await session.outbox.wait_for_room()
        await asyncio.gather(session.write(written), session.epoch.try_to_look())
        tokens = [one.token for one in written]
        remembered: dict[str, Known] = {}
        if await session.in_doubt():
            remembered = await self._forgotten_outcomes(session, queue, jobs, tokens)
        left = [job for job in tagged if job.id not in remembered]
        try:
            answers = iter(
                await session.inner.insert(queue, left, reply_to=reply_to, max_length=max_length)
                if left
                else ()
            )
        except (InvalidArgumentError, QueueFullError):
            session.drop(tokens)
            raise
        found = [_remembered(remembered[job.id]) if job.id in remembered else next(answers) for job in jobs]
        made = [answer.status in _MADE for answer in found]
        dropped = [token for token, created in zip(tokens, made, strict=True) if not created]
        if remembered:  # at once: they must not be taken for what is remembered
            await session.outbox.drop_now(dropped)
        session.drop(dropped)
        replaced = [
            job.id for job, one in zip(jobs, found, strict=True) if one.status is InsertStatus.REPLACED
        ]
        for record in await session.inner.get(queue, replaced) if replaced else ():
            # A debounced job may be due later than this one asks for, and keeps its attempts.
            token = None if record is None else untag(record.headers)[0]
            if record is not None and token is not None:
                session.tell(Change(token, attempts=record.attempts, due=record.run_at))
        for job, token, answer in zip(jobs, tokens, found, strict=True):
            if job.wait:
                session.numbers.note(queue, job.id, answer.seq, token)
        return found

    async def _forgotten_outcomes(
        self, session: GuardSession, queue: str, jobs: Sequence[NewJob], tokens: Sequence[str]
    ) -> dict[str, Known]:
        """Return the outcomes, by id, that answer these jobs and that the store has lost."""
        known = await session.known(queue, [job.id for job in jobs], tokens)
        wanted = {job.id: job.reuse for job in jobs}
        known = {id: one for id, one in known.items() if one.expires and _answers(one.state, wanted[id])}
        if not known:
            return {}
        records = await session.inner.get(queue, list(known))
        return {id: one for (id, one), record in zip(known.items(), records, strict=True) if record is None}

    async def get(
        self,
        queue: str,
        ids: Sequence[str],
        *,
        reply_to: str | None = None,
        payload: bool = False,
        letters: bool = False,
    ) -> list[Record | None]:
        """Read records; those that the store has lost, from the ledger, which gives live ones back to it."""
        arguments.check_get(queue, ids, reply_to, payload=payload, letters=letters)
        session = self._open_session()

        async def read(ids: Sequence[str]) -> list[Record | None]:
            records = await session.inner.get(queue, ids, reply_to=reply_to, payload=payload, letters=letters)
            return [None if record is None else _plain(session, queue, record) for record in records]

        found = await read(ids)
        missing = list({id for id, record in zip(ids, found, strict=True) if record is None})
        if missing:
            await session.epoch.try_to_look()
            if await session.in_doubt():
                lost = await self._recovered(session, queue, missing, read)
                found = [record or lost.get(id) for id, record in zip(ids, found, strict=True)]
        return found

    @staticmethod
    async def _recovered(
        session: GuardSession,
        queue: str,
        ids: Sequence[str],
        read: Callable[[Sequence[str]], Awaitable[list[Record | None]]],
    ) -> dict[str, Record | None]:
        """Return the jobs that the store has lost: live ones it gets back, of ended ones only we know."""
        known = await session.known(queue, ids)
        live = [one.token for one in known.values() if not one.expires]
        if live:
            try:
                await session.reconciler.bring_back(queue, live, loss=True)
            except LedgerAwayError:
                live = []
        again = [one.id for one in known.values() if one.token in live]
        back = dict(zip(again, await read(again), strict=True)) if again else {}
        return {id: back.get(id) or _record(session, queue, one) for id, one in known.items()}

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        """Cancel as `Storage.cancel` does, and tell the ledger."""
        arguments.check_cancel(queue, ids, running)
        session = self._open_session()
        answers = await session.inner.cancel(queue, ids, running=running)
        gone = [id for id, answer in zip(ids, answers, strict=True) if answer is CancelStatus.CANCELLED]
        if gone:
            for record in await session.inner.get(queue, gone, letters=True):
                if record is not None and record.state is JobState.CANCELLED:
                    _tell(session, record, "cancelled", state=_CANCELLED)
        return answers

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        """Set expiries as `Storage.set_ttl` does, and tell the ledger."""
        arguments.check_keep(queue, ttls)
        session = self._open_session()
        answers = await session.inner.set_ttl(queue, ttls)
        kept = {
            id: ttl
            for (id, ttl), answer in zip(ttls, answers, strict=True)
            if answer is UpdateTtlStatus.UPDATED
        }
        if kept:
            for record in await session.inner.get(queue, list(kept), letters=True):
                token = None if record is None else untag(record.headers)[0]
                if token is not None and record is not None:
                    session.tell(Change(token, ttl=kept[record.id]))
        return answers

    # -- work -----------------------------------------------------------------------------------------

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        """Settle and claim as `Storage.exchange` does, and tell the ledger.

        Jobs that follow a settlement are in the ledger before. A claimed job that the ledger knows as ended,
        because the store was set back, is settled with that outcome and not handed out.
        """
        arguments.check_exchange(queue, worker, settlements, limit, lease)
        session = self._open_session()
        await session.outbox.wait_for_room()
        following: dict[int, list[str]] = {}
        if any(settlement.then for settlement in settlements):
            settlements, following = await self._ledger_followers(session, queue, settlements)
        doubt = await self._doubts(session)
        answer = await session.inner.exchange(queue, worker, settlements, limit, lease)
        for at, (settlement, status) in enumerate(zip(settlements, answer.settled, strict=True)):
            self._settled(session, queue, settlement, status)
            if status is not SettleStatus.ACCEPTED:
                session.drop(following.get(at, ()))
        return await self._claimed(session, queue, worker, lease, answer, doubt=doubt)

    @staticmethod
    async def _doubts(session: GuardSession) -> bool:
        """Look whether the store has lost data: before a claim, which must not be cut off after it."""
        await session.epoch.try_to_look(LOOK_WITHIN)
        return await session.in_doubt()

    async def _claim_on_arrival(
        self, queue: str, worker: str, limit: int, lease: int, timeout: float
    ) -> Exchanged | None:
        """Wait and claim in one call; see `jobqueue.storage.capabilities`."""
        session = self._open_session()
        inner = session.inner
        assert isinstance(inner, ClaimsOnArrival)
        doubt = await self._doubts(session)
        answer = await inner.claim_on_arrival(queue, worker, limit, lease, timeout)
        if answer is None:
            return None
        return await self._claimed(session, queue, worker, lease, answer, doubt=doubt)

    async def _ledger_followers(
        self, session: GuardSession, queue: str, settlements: Sequence[Settlement]
    ) -> tuple[list[Settlement], dict[int, list[str]]]:
        made: list[Settlement] = []
        following: dict[int, list[str]] = {}
        for at, settlement in enumerate(settlements):
            if settlement.then:
                written, tagged = _ledgered(queue, settlement.then)
                await session.write(written)
                following[at] = [one.token for one in written]
                settlement = settlement._replace(then=tuple(tagged))  # noqa: PLW2901
            made.append(settlement)
        return made, following

    @staticmethod
    def _settled(session: GuardSession, queue: str, settlement: Settlement, status: SettleStatus) -> None:
        claim = session.settled(queue, settlement.fence)
        if claim is None or status is SettleStatus.LOST:
            return
        action = Action.CANCEL if status is SettleStatus.CANCELLED else settlement.action
        error = ""
        if action in {Action.FAIL, Action.RETRY}:
            info, _ = decode_error(settlement.summary or settlement.data)
            error = printable(f"{info.type}: {info.message}")[:MOST_ERROR]
        change = Change(claim.token, CODES[_STATES[action]], claim.attempts, claim.worker, error or None)
        if action is Action.RELEASE:
            change.attempts = claim.attempts - 1
        elif action is Action.RETRY:
            change.due = session.now() + settlement.delay
        else:
            change.ttl = settlement.ttl
            change.data = settlement.data if action is not Action.CANCEL else None
        change.history = [History(session.now(), _EVENTS[action], claim.worker, claim.attempts, error)]
        session.tell(change)

    async def _claimed(
        self,
        session: GuardSession,
        queue: str,
        worker: str,
        lease: int,
        answer: Exchanged,
        *,
        doubt: bool,
    ) -> Exchanged:
        if not answer.jobs:
            return answer
        jobs: list[Claimed] = []
        tokens: list[str | None] = []
        for job in answer.jobs:
            token, headers = untag(job.headers)
            tokens.append(token)
            jobs.append(job if token is None else job._replace(headers=headers))
        if doubt:
            try:
                jobs, tokens = await self._leave_out_ended(session, queue, worker, lease, jobs, tokens)
            except BaseException:  # cut off: they are given back, as nobody else ever will
                releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
                await session.inner.exchange(queue, worker, releases, 0, lease)
                raise
        for job, token in zip(jobs, tokens, strict=True):
            if token is not None:
                session.claimed(queue, job.fence, Claim(token, worker, job.attempts))
        # One that was claimed and left out: others may be ready, and the worker must ask again.
        return answer._replace(jobs=jobs, more=answer.more or len(jobs) < len(answer.jobs))

    @staticmethod
    async def _leave_out_ended(
        session: GuardSession,
        queue: str,
        worker: str,
        lease: int,
        jobs: Sequence[Claimed],
        tokens: Sequence[str | None],
    ) -> tuple[list[Claimed], list[str | None]]:
        known = [token for token in tokens if token is not None]
        try:
            ended = await session.gate.ask(session.ledger.ended, known)
        except LedgerAwayError:
            ended = {}
        settlements = [
            Settlement(job.id, job.fence, _ENDS[ended[token][0]], ended[token][1] or b"", job.ttl)
            for job, token in zip(jobs, tokens, strict=True)
            if token in ended
        ]
        if settlements:
            await session.inner.exchange(queue, worker, settlements, 0, lease)
        left = [(job, token) for job, token in zip(jobs, tokens, strict=True) if token not in ended]
        return [job for job, _ in left], [token for _, token in left]

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        """Renew leases; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.extend(queue, worker, leases, lease)

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        """Wait for work; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.wait_for_work(queue, worker, timeout)

    # -- upkeep ---------------------------------------------------------------------------------------

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        """Recover jobs as `Storage.sweep` does, and tell the ledger."""
        session = self._open_session()
        swept = await session.inner.sweep(queue, limit)
        if swept:
            records = await session.inner.get(queue, [job.id for job in swept], letters=True)
            for job, record in zip(swept, records, strict=True):
                if record is not None and record.state is job.state and record.stalls == job.stalls:
                    event = {JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}.get(
                        job.state, "recovered"
                    )
                    _tell(session, record, event, state=CODES[job.state], worker=job.worker)
        return swept

    async def purge(self, queue: str, limit: int) -> int:
        """Delete expired records; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.purge(queue, limit)

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues to sweep: all of them if the store cannot say."""
        inner = self._open_session().inner
        return await inner.to_sweep(queues) if isinstance(inner, Sweepable) else list(queues)

    async def tend(self) -> None:
        """Compare the ledger with the store until cancelled; see `jobqueue.storage.capabilities.Tended`."""
        session = self._open_session()
        session.epoch.renews = True
        try:
            await session.reconciler.run()
        finally:
            session.epoch.renews = False

    # -- dead letters ---------------------------------------------------------------------------------

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Make failed jobs run again, and tell the ledger; see `jobqueue.storage.capabilities`."""
        session = self._open_session()
        answers = await self._revival(session).revive(queue, ids, delay, payload)
        revived = [id for id, answer in zip(ids, answers, strict=True) if answer]
        for id in revived:
            session.numbers.forget(queue, id)
        if revived:
            for record in await session.inner.get(queue, revived, letters=True):
                token = None if record is None else untag(record.headers)[0]
                if token is not None and record is not None:
                    history = [History(session.now(), "revived")]
                    state = CODES[record.state] if record.state is not JobState.FAILED else _QUEUED
                    session.tell(
                        Change(
                            token, state, 0, due=record.run_at, payload=payload, revives=True, history=history
                        )
                    )
        return answers

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete records, and tell the ledger; see `jobqueue.storage.capabilities`."""
        session = self._open_session()
        arguments.check_forget(queue, ids)
        before = await session.inner.get(queue, ids, letters=True)
        answers = await self._revival(session).forget(queue, ids)
        for record, answer in zip(before, answers, strict=True):
            if answer and record is not None:
                _tell(session, record, "removed", state=_CANCELLED)
        return answers

    @staticmethod
    def _revival(session: GuardSession) -> Revival:
        return require(session.inner, Revival, "a guard")


_MADE = {InsertStatus.CREATED, InsertStatus.REPLACED}
_ENDS = {JobState.COMPLETED: Action.COMPLETE, JobState.FAILED: Action.FAIL, JobState.CANCELLED: Action.CANCEL}


def _ledgered(queue: str, jobs: Sequence[NewJob]) -> tuple[list[Written], list[NewJob]]:
    """Give jobs their tokens: as the ledger gets them, and as the store does."""
    now = SYSTEM_CLOCK.time()
    at = SYSTEM_CLOCK.monotonic()
    tokens = [new_token(now) for _ in jobs]
    tagged = [tagged_job(token, job) for token, job in zip(tokens, jobs, strict=True)]
    return [Written(token, queue, job, at) for token, job in zip(tokens, jobs, strict=True)], tagged


def _tell(session: GuardSession, record: Record, event: str, *, state: int, worker: str = "") -> None:
    """Tell the ledger what the store says of a job."""
    token = untag(record.headers)[0]
    if token is None:
        return
    change = Change(
        token, state, record.attempts, history=[History(session.now(), event, worker, record.attempts)]
    )
    if state == _FAILED:
        change.data, change.ttl = record.error, record.ttl
    session.tell(change)


def _answers(state: JobState, reuse: Reuse) -> bool:
    """Return whether an ended job answers an enqueue, instead of being replaced."""
    return reuse is Reuse.RETURN or (reuse is Reuse.RERUN_FAILED and state is JobState.COMPLETED)


def _plain(session: GuardSession, queue: str, record: Record) -> Record:
    """Return a record as callers know it."""
    token, headers = untag(record.headers)
    if token is None:
        return record
    return record._replace(headers=headers, seq=session.numbers.known(queue, record.id, record.seq, token))


def _remembered(known: Known) -> Inserted:
    return Inserted(InsertStatus.FOUND, number_of(known.token), known.state, known.data, known.attempts)


def _record(session: GuardSession, queue: str, known: Known) -> Record:
    """Make the record of a job that only the ledger knows."""
    seq = session.numbers.known(queue, known.id, number_of(known.token), known.token)
    completed = known.state is JobState.COMPLETED
    return Record(
        known.id, seq, known.state, 0, known.created, known.created, known.updated, known.attempts,
        known.attempts, 0, 0, 0, 0, None, None, cancelling=False,
        result=known.data if completed else None, error=None if completed else known.data, progress=None,
        expires_at=known.expires or None, payload=None,
    )  # fmt: skip
