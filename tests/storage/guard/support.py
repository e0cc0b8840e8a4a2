"""Guarded stores for tests: a ledger made once in a process, emptied for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jobqueue import Storage
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.postgres.migrations import quoted
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection

EMPTY = """
delete from {s}.job; delete from {s}.store; delete from {s}.server; insert into {s}.store default values
"""

_free: list[str] = []


@asynccontextmanager
async def ledger_schema() -> AsyncIterator[str]:
    """Lend the schema of an empty ledger."""
    if _free:
        schema = _free.pop()
    else:
        schema = f"ledger {unique_id()}'\"x"
        await PostgresLedger(postgres_url(), schema).apply_schema()
    yield schema
    async with connection() as admin:
        await admin.execute(EMPTY.format(s=quoted(schema)))
    _free.append(schema)


@asynccontextmanager
async def guarded(inner: Storage, **options: Any) -> AsyncIterator[GuardedStorage]:
    """Guard a store by an empty ledger."""
    async with ledger_schema() as schema:
        yield GuardedStorage(inner, PostgresLedger(postgres_url(), schema), **options)


@asynccontextmanager
async def guarded_memory(clock: Clock = SYSTEM_CLOCK) -> AsyncIterator[GuardedStorage]:
    async with guarded(MemoryStorage(clock=clock)) as store:
        yield store


async def rows(schema: str, columns: str = "id, state") -> list[tuple[Any, ...]]:
    """Read the ledger, oldest first."""
    async with connection() as admin:
        found = await admin.fetch(f"select {columns} from {quoted(schema)}.job order by token")
    return [tuple(row) for row in found]
