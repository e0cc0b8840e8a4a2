"""The transaction of a run: what the handler writes and the completion of its job, committed together."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from jobqueue.errors import JobQueueError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.postgres.faults import judge
from jobqueue.storage.postgres.target import Connection
from jobqueue.storage.values import SettleStatus

if TYPE_CHECKING:
    from jobqueue.storage.postgres.open_store import OpenStore

__all__ = ["RunTransaction"]

_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_END_WITHIN = 10.0
"""Seconds that writing the completion, the commit and a rollback may take, each."""


class RunTransaction:
    """An open transaction. The connection is given back when it ends."""

    def __init__(self, session: OpenStore, lent: AsyncExitStack, connection: Connection) -> None:
        self._session = session
        self._lent = lent
        self._transaction = connection.transaction()
        self.connection = connection
        """For statements of the handler."""

    @classmethod
    async def begin(cls, session: OpenStore) -> Self:
        """Begin one, on a connection that is waited for if all are in use."""
        give_up_at, pause = SYSTEM_CLOCK.monotonic() + session.transactions.retry_for, _PAUSE
        while True:
            try:
                async with AsyncExitStack() as lent:
                    connection = await lent.enter_async_context(session.transactions.connection())
                    opened = cls(session, lent.pop_all(), connection)
                await opened._start()
            except JobQueueError:
                raise
            except Exception as error:
                fault = judge(error, session.transactions.where)
                if fault is None:
                    raise
                if not fault.again or SYSTEM_CLOCK.monotonic() + pause > give_up_at:
                    raise fault.error from error
            else:
                return opened
            await SYSTEM_CLOCK.sleep(SYSTEM_CLOCK.uniform(pause / 2, pause))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _start(self) -> None:
        try:
            await self._transaction.start()
        except BaseException:
            await self._lent.aclose()
            raise

    async def settle(self, queue: str, settlement: Settlement) -> SettleStatus:
        """Write a settlement and commit if it is accepted, else roll back.

        Raises `StorageError`, also for what the database refuses at the commit; then nothing is written.
        """
        sent = False
        try:
            status = await self._session.statements.settle_in(self.connection, queue, settlement, _END_WITHIN)
            if status is SettleStatus.ACCEPTED:
                sent = True
                async with asyncio.timeout(_END_WITHIN):
                    await self._transaction.commit()
                await self._give_back()
        except Exception as error:
            await self.rollback()
            fault = judge(error, self._session.transactions.where)
            if fault is None:
                raise
            if sent and fault.unknown and await self._is_done(queue, settlement):
                return SettleStatus.ACCEPTED
            raise fault.error from error
        if status is not SettleStatus.ACCEPTED:
            await self.rollback()
        return status

    async def _is_done(self, queue: str, settlement: Settlement) -> bool:
        """Return whether a commit without an answer was carried out."""
        statements = self._session.statements
        call = statements.get(queue, [settlement.id], None, payload=False, letters=False)
        (record,) = await self._session.call(call)
        return record is not None and record.fence == settlement.fence and record.state is JobState.COMPLETED

    async def rollback(self) -> None:
        """Undo all. Never raises."""
        try:
            async with asyncio.timeout(_END_WITHIN):
                if self.connection.is_in_transaction():
                    await self._transaction.rollback()
            await self._give_back()
        except Exception:  # noqa: BLE001 - the server rolls back what its client leaves
            self.connection.terminate()
            await self._lent.aclose()

    async def _give_back(self) -> None:
        """Give the connection back as it was: the handler may have changed settings."""
        if not self.connection.is_closed():
            await self.connection.reset(timeout=_END_WITHIN)
        await self._lent.aclose()
