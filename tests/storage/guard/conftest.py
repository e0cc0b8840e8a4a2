"""Servers of these tests' own: they are wiped, killed and set back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.redis import RedisStorage
from tests.services import Server, redis_binary
from tests.storage.guard.support import EMPTY, ledger_schema
from tests.storage.postgres.server import PostgresServer, postgres_url
from tests.storage.postgres.support import connection

END_OTHERS = """
select pg_terminate_backend(pid, 10000) from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


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


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    made = PostgresServer(settings={"synchronous_commit": "on", "full_page_writes": "on"}).create()
    made.start()
    yield made
    made.remove()


@pytest.fixture
async def postgres(database: PostgresServer) -> AsyncIterator[PostgresServer]:
    """A PostgreSQL of these tests' own, with an empty ledger."""
    if database.process is None:
        database.start()
    await PostgresLedger(database.url).apply_schema()
    async with connection(database.url) as admin:
        # A server that was stopped may still carry out what an earlier test has asked.
        await admin.execute(END_OTHERS)
        await admin.execute(EMPTY.format(s="jobqueue_ledger"))
    yield database
    if database.process is None:
        database.start()
