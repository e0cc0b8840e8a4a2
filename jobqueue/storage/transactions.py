"""Transactions in the database of a store: a caller's, and a run's. See `capabilities.Transactional`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jobqueue.model.outcomes import Settlement
from jobqueue.storage.values import Inserted, NewJob, SettleStatus

__all__ = ["Inserter", "OpenTransaction"]


class Inserter(Protocol):
    """Inserts jobs in a transaction of the caller."""

    async def insert(
        self, queue: str, jobs: Sequence[NewJob], *, max_length: int | None = None
    ) -> list[Inserted]:
        """Insert jobs as `Jobs.insert` does, within the transaction.

        Nobody is told before it commits, and it stays usable when this raises. Raises
        `StorageUnavailableError` if another open transaction keeps an id for longer than a few seconds.
        """
        ...


class OpenTransaction(Protocol):
    """A transaction in the store's database that belongs to a run."""

    @property
    def connection(self) -> Any:
        """The connection, for statements of the handler."""
        ...

    async def settle(self, queue: str, settlement: Settlement) -> SettleStatus:
        """Write a settlement and commit if it is accepted, else roll back; the transaction has ended then.

        If it is unknown whether the commit was carried out, the store looks. An error means that it was not.
        """
        ...

    async def rollback(self) -> None:
        """Undo all. Never raises."""
        ...
