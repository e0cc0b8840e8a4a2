"""The calls of a guarded store about jobs: the ledger has them first, and answers for those that are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jobqueue.errors import InvalidArgumentError, QueueFullError
from jobqueue.model.new_job import NewJob
from jobqueue.model.states import JobState
from jobqueue.storage import arguments
from jobqueue.storage.capabilities import Revival, require
from jobqueue.storage.guard.hands_on import HandsOn
from jobqueue.storage.guard.records import (
    answers,
    as_known,
    as_record,
    change_of,
    ledgered,
    remembered,
    tagged,
    token_of,
)
from jobqueue.storage.guard.session import GuardSession
from jobqueue.storage.guard.values import CODES, Change, History, Known
from jobqueue.storage.values import CancelStatus, Inserted, InsertStatus, Record, UpdateTtlStatus

__all__ = ["Producing"]

_REPLACED = InsertStatus.REPLACED
_CREATED = InsertStatus.CREATED


class Producing(HandsOn):
    """What makes, reads and ends jobs that wait."""

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
        await session.outbox.wait_for_room()
        written = ledgered(session, queue, jobs)
        writing = session.begin_to_write(written)
        looking = asyncio.create_task(session.epoch.try_to_look(), name="jobqueue-guard-look")
        try:
            await looking
            left = tagged(written)  # while the ledger is at work
            await session.written(written, writing)
        finally:
            writing.cancel()
            looking.cancel()
        tokens = [one.token for one in written]
        ended: dict[str, Known] = {}
        if await session.in_doubt():
            ended = await self._ended_before(session, queue, jobs, tokens)
        if ended:
            left = [job for job in left if job.id not in ended]
        try:
            found = (
                await session.inner.insert(queue, left, reply_to=reply_to, max_length=max_length)
                if left
                else []
            )
        except (InvalidArgumentError, QueueFullError):
            session.drop(tokens)
            raise
        if ended:
            made = iter(found)
            found = [remembered(ended[job.id]) if job.id in ended else next(made) for job in jobs]
        drops = [
            Change(token, drops=True)
            for token, answer in zip(tokens, found, strict=True)
            if answer.status is not _CREATED and answer.status is not _REPLACED
        ]
        for drop in drops:
            session.tell(drop)
        for job, token, answer in zip(jobs, tokens, found, strict=True):
            if job.wait:
                session.numbers.note(queue, job.id, answer.seq, token)
        if ended:  # at once: they must not be taken for what is remembered
            await session.write_soon(drops)
        replaced = [job.id for job, one in zip(jobs, found, strict=True) if one.status is _REPLACED]
        if replaced:
            await self._tell_replaced(session, queue, replaced)
        return found

    @staticmethod
    async def _ended_before(
        session: GuardSession, queue: str, jobs: Sequence[NewJob], tokens: Sequence[str]
    ) -> dict[str, Known]:
        """Return the outcomes, by id, that answer these jobs and that the store has lost.

        The live jobs with these ids that it has lost it gets back: they are joined.
        """
        known = await session.known(queue, [job.id for job in jobs], tokens)
        if not known:
            return {}
        records = await session.inner.get(queue, list(known))
        missing = [one for one, record in zip(known.values(), records, strict=True) if record is None]
        live = [one.token for one in missing if not one.expires]
        if live:
            await session.bring_back(queue, live)
        reuse = {job.id: job.reuse for job in jobs}
        return {one.id: one for one in missing if one.expires and answers(one.state, reuse[one.id])}

    @staticmethod
    async def _tell_replaced(session: GuardSession, queue: str, ids: Sequence[str]) -> None:
        """Tell the ledger whose place jobs took: a debounced one may be due later, and keeps its attempts."""
        for record in await session.inner.get(queue, ids):
            token = token_of(record)
            if record is not None and token is not None:
                history = [History(session.now(), "replacing", "", record.attempts)]
                session.tell(
                    Change(token, attempts=record.attempts, due=record.run_at, replaces=True, history=history)
                )

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
            return [None if record is None else as_known(session, queue, record) for record in records]

        found = await read(ids)
        missing = list({id for id, record in zip(ids, found, strict=True) if record is None})
        if missing:
            await session.epoch.try_to_look()
            if await session.in_doubt():
                known = await session.known(queue, missing)
                again = await self._come_back(session, queue, known)
                lost = {id: as_record(session, queue, one) for id, one in known.items()}
                for id, record in zip(again, await read(again), strict=True) if again else ():
                    lost[id] = record or lost[id]
                found = [record or lost.get(id) for id, record in zip(ids, found, strict=True)]
        return found

    @staticmethod
    async def _come_back(session: GuardSession, queue: str, known: dict[str, Known]) -> list[str]:
        """Give the store the live ones of these jobs back; return their ids."""
        live = [one for one in known.values() if not one.expires]
        if not live or not await session.bring_back(queue, [one.token for one in live]):
            return []
        return [one.id for one in live]

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        """Cancel as `Storage.cancel` does, and tell the ledger."""
        arguments.check_cancel(queue, ids, running)
        session = self._open_session()
        await session.epoch.try_to_look()
        if await session.in_doubt():  # what is not cancelled in the ledger comes back
            await self._come_back(session, queue, await session.known(queue, ids))
        before = await session.inner.get(queue, ids)
        answers = await session.inner.cancel(queue, ids, running=running)
        gone = [one for one, said in zip(before, answers, strict=True) if said is CancelStatus.CANCELLED]
        await self._tell_now(session, gone, "cancelled")
        return answers

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        """Set expiries as `Storage.set_ttl` does, and tell the ledger."""
        arguments.check_keep(queue, ttls)
        session = self._open_session()
        before = await session.inner.get(queue, [id for id, _ in ttls], letters=True)
        answers = await session.inner.set_ttl(queue, ttls)
        for record, (_, ttl), answer in zip(before, ttls, answers, strict=True):
            token = token_of(record)
            if token is not None and answer is UpdateTtlStatus.UPDATED:
                session.tell(Change(token, ttl=ttl))
        return answers

    @staticmethod
    def _tell(session: GuardSession, record: Record, event: str, state: JobState, worker: str = "") -> None:
        change = change_of(session, record, event, state, worker)
        if change is not None:
            session.tell(change)

    @staticmethod
    async def _tell_now(session: GuardSession, records: Sequence[Record | None], event: str) -> None:
        """Tell the ledger of jobs that are no more, and wait for it: they must not come back."""
        changes = [
            change_of(session, record, event, JobState.CANCELLED) for record in records if record is not None
        ]
        told = [change for change in changes if change is not None]
        for change in told:
            session.tell(change)
        if told:
            await session.write_soon([Change(change.token) for change in told])

    # -- dead letters ---------------------------------------------------------------------------------

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Make failed jobs run again, after the ledger has them as live; see `Revival`."""
        arguments.check_revive(queue, ids, delay, payload)
        session = self._open_session()
        failed = [
            record
            for record in await session.inner.get(queue, ids, letters=True)
            if record is not None and record.state is JobState.FAILED
        ]
        changes: list[Change] = []
        state = CODES[JobState.SCHEDULED if delay else JobState.QUEUED]
        for record in failed:
            token = token_of(record)
            if token is not None:
                now = session.now()
                changes.append(
                    Change(
                        token, state, 0, due=now + delay, payload=payload, revives=record.seq,
                        history=[History(now, "revived")],
                    )
                )  # fmt: skip
        if changes:
            await session.write_ahead(changes)
        answers = await self._revival(session).revive(queue, ids, delay, payload)
        for id, answer in zip(ids, answers, strict=True):
            if answer:
                session.numbers.forget(queue, id)
        return answers

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete records, and tell the ledger; see `Revival`."""
        session = self._open_session()
        arguments.check_forget(queue, ids)
        before = await session.inner.get(queue, ids, letters=True)
        answers = await self._revival(session).forget(queue, ids)
        await self._tell_now(
            session, [one for one, did in zip(before, answers, strict=True) if did], "removed"
        )
        return answers

    @staticmethod
    def _revival(session: GuardSession) -> Revival:
        return require(session.inner, Revival, "a guard")
