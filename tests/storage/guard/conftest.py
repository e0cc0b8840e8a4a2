"""Servers of these tests' own: they are wiped, killed and set back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.redis import RedisStorage
from tests.services import Server, redis_binary
from tests.storage.guard.support import ledger_schema
from tests.storage.postgres.server import postgres_url


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    made = Server(redis_binary()).start()
    yield made
    made.remove()


@pytest.fixture
def redis(server: Server) -> Server:
    """A Redis without persistence, empty."""
    if server.process is None or server.process.poll() is not None:
        server.start()
    server.command("FLUSHALL")
    return server


@pytest.fixture
async def schema() -> AsyncIterator[str]:
    async with ledger_schema() as name:
        yield name


@pytest.fixture
async def store(redis: Server, schema: str) -> AsyncIterator[GuardedStorage]:
    """An open store on both."""
    made = GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))
    await made.open()
    yield made
    await made.close()
