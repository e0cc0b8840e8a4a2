"""The calls of a guarded store about runs, and its upkeep: the ledger hears of them in the background."""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement, decode_error
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.text import printable
from jobqueue.storage import arguments
from jobqueue.storage.capabilities import ClaimsOnArrival, Sweepable
from jobqueue.storage.guard.gate import LedgerAwayError
from jobqueue.storage.guard.producing import Producing
from jobqueue.storage.guard.records import ledgered, tagged
from jobqueue.storage.guard.session import Claim, GuardSession
from jobqueue.storage.guard.tags import untag
from jobqueue.storage.guard.values import CODES, Change, History
from jobqueue.storage.values import Claimed, Exchanged, LeaseStatus, Renewal, SettleStatus, Swept

__all__ = ["Working"]

MOST_ERROR = 5_000
"""Largest number of characters of an error that the ledger keeps."""
LOOK_WITHIN = 0.2
"""Seconds that a look at the store's epoch is good for when jobs are claimed."""
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
_ENDS = {JobState.COMPLETED: Action.COMPLETE, JobState.FAILED: Action.FAIL, JobState.CANCELLED: Action.CANCEL}
_SWEPT = {JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


class Working(Producing):
    """What claims, settles and recovers jobs."""

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
        """Look whether the store has lost data, before a claim."""
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

    @staticmethod
    async def _ledger_followers(
        session: GuardSession, queue: str, settlements: Sequence[Settlement]
    ) -> tuple[list[Settlement], dict[int, list[str]]]:
        """Write jobs that follow; without the ledger they are kept, as an outcome cannot be refused."""
        made: list[Settlement] = []
        following: dict[int, list[str]] = {}
        for at, settlement in enumerate(settlements):
            if settlement.then:
                written = ledgered(session, queue, settlement.then)
                await session.write(written, refuses=False)
                following[at] = [one.token for one in written]
                settlement = settlement._replace(then=tuple(tagged(written)))  # noqa: PLW2901
            made.append(settlement)
        return made, following

    @staticmethod
    def _settled(session: GuardSession, queue: str, settlement: Settlement, status: SettleStatus) -> None:
        claim = session.settled(queue, settlement)
        if claim is None or status is SettleStatus.LOST:
            return
        action = Action.CANCEL if status is SettleStatus.CANCELLED else settlement.action
        error = ""
        if action in {Action.FAIL, Action.RETRY}:
            info, _ = decode_error(settlement.summary or settlement.data)
            error = printable(f"{info.type}: {info.message}")[:MOST_ERROR]
        change = Change(
            claim.token,
            CODES[_STATES[action]],
            claim.attempts,
            claim.worker,
            error or None,
            seq=claim.seq,
            fence=settlement.fence,
        )
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
        if not answer.jobs and not answer.expired:
            return answer
        jobs: list[Claimed] = []
        tokens: list[str | None] = []
        for job in answer.jobs:
            token, headers = untag(job.headers)
            tokens.append(token)
            jobs.append(job if token is None else job._replace(headers=headers))
        try:
            if answer.expired:
                await self._expired(session, queue, answer.expired)
            if jobs and (doubt or session.doubts):  # found out while the claim was on its way, perhaps
                jobs, tokens = await self._leave_out_ended(session, queue, worker, lease, jobs, tokens)
        except BaseException:  # cut off: they are given back, as nobody else ever will
            releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
            await session.to_its_end(session.inner.exchange(queue, worker, releases, 0, lease))
            raise
        for job, token in zip(jobs, tokens, strict=True):
            if token is not None:
                session.claimed(queue, job, Claim(token, worker, job.attempts, job.seq))
        # One that was claimed and left out: others may be ready, and the worker must ask again.
        return answer._replace(jobs=jobs, more=answer.more or len(jobs) < len(answer.jobs))

    async def _expired(self, session: GuardSession, queue: str, ids: Sequence[str]) -> None:
        """Tell the ledger of jobs that a claim has failed."""
        try:
            records = await session.inner.get(queue, ids, letters=True)
        except StorageError:
            return  # the next comparison finds them
        for record in records:
            if record is not None and record.state is JobState.FAILED:
                self._tell(session, record, "expired", record.state)

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
                    event = "expired" if job.expired else _SWEPT.get(job.state, "recovered")
                    self._tell(session, record, event, job.state, job.worker)
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
        session.epoch.start()
        try:
            await session.reconciler.run()
        finally:
            session.epoch.renews = False
