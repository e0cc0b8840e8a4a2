"""Schemas for tests: made once in a process, emptied for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from tests.storage.postgres.server import postgres_url

TABLES = (
    "job", "ready", "due", "lease", "outcome", "detail", "attempt", "waiter", "worker", "lock", "gone",
    "document", "answer", "line", "plain_turn", "pace", "queue",
)  # fmt: skip

_free: list[str] = []
"""Schemas that nobody uses now."""


@asynccontextmanager
async def connection(url: str | None = None) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Connect as an operator would."""
    connected = await asyncpg.connect(url or postgres_url())
    try:
        yield connected
    finally:
        await connected.close()


@asynccontextmanager
async def empty_schema() -> AsyncIterator[str]:
    """Lend an empty schema."""
    if _free:
        schema = _free.pop()
    else:
        schema = f"test {unique_id()}'\"x"
        await PostgresStorage(postgres_url(), schema).apply_schema()
    yield schema
    async with connection() as admin:
        await admin.execute(";".join(f"delete from {quoted(schema)}.{table}" for table in TABLES))
    _free.append(schema)


@asynccontextmanager
async def postgres_storage(
    clock: Clock = SYSTEM_CLOCK, kind: type[PostgresStorage] = PostgresStorage, **options: Any
) -> AsyncIterator[PostgresStorage]:
    """Make a store on an empty schema."""
    async with empty_schema() as schema:
        yield kind(postgres_url(), schema, clock=clock, **options)
