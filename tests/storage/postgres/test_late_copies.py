"""What was on its way when its connection was given up is not carried out after its repetition."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.target import Connection
from jobqueue.storage.values import CancelStatus, InsertStatus, NewJob
from tests.storage.postgres.server import shared_postgres
from tests.storage.postgres.support import connection, postgres_storage
from tests.support import within

LIVES = "select count(*) from pg_stat_activity where pid = $1"


@asynccontextmanager
async def one_connection() -> AsyncIterator[tuple[PostgresStorage, Connection, int]]:
    """A store with one connection, that connection, and the process on the server's side."""
    async with postgres_storage(pool_size=1) as store:
        await store.open()
        try:
            async with store._open_session().pool.connection() as only:
                pid = only.get_server_pid()
            yield store, only, pid
        finally:
            await store.close()


async def held_up(
    call: Awaitable[Any], only: Connection, pid: int, meanwhile: Callable[[], Awaitable[None]]
) -> Any:
    """Make a call whose first copy the server's process reads late; return what its repetition answers."""
    os.kill(pid, signal.SIGSTOP)
    try:
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.1)  # until it is sent
        only.terminate()
        answer = await within(task)
        await meanwhile()
    finally:
        os.kill(pid, signal.SIGCONT)
    async with connection() as other:
        async with asyncio.timeout(10):
            while await other.fetchval(LIVES, pid):
                await asyncio.sleep(0.01)
    return answer


@pytest.fixture(autouse=True)
def local() -> None:
    shared_postgres()  # its processes are those of this machine


async def test_a_cancellation_does_not_meet_a_job_that_came_after_its_answer() -> None:
    async with one_connection() as (store, only, pid):

        async def enqueue() -> None:
            await store.insert("q", [NewJob(id="a", payload=b"1")])

        await store.cancel("q", ["b"])  # the server knows the statement: then one message is all of a call
        assert await held_up(store.cancel("q", ["a"]), only, pid, enqueue) == [CancelStatus.NOT_FOUND]
        assert (await store.counts("q")).queued == 1


async def test_a_worker_gets_no_jobs_after_it_was_told_that_there_are_none() -> None:
    async with one_connection() as (store, only, pid):

        async def enqueue() -> None:
            await store.insert("q", [NewJob(id="a", payload=b"1")])

        await store.exchange("q", "w", [], 5, 30_000)
        claimed = await held_up(store.exchange("q", "w", [], 5, 30_000), only, pid, enqueue)
        assert claimed.jobs == []
        assert (await store.counts("q")).queued == 1


async def test_a_job_that_was_refused_is_not_inserted_later() -> None:
    async with one_connection() as (store, only, pid):
        await store.insert("q", [NewJob(id="a", payload=b"1")])

        async def make_room() -> None:
            await store.cancel("q", ["a"])

        late = store.insert("q", [NewJob(id="b", payload=b"1")], max_length=1)
        (refused,) = await held_up(late, only, pid, make_room)
        assert refused.status is InsertStatus.FULL
        assert (await store.counts("q")).queued == 0


class Refusing:
    """A connection whose user may end no processes."""

    async def fetch(self, *_: object) -> None:
        raise asyncpg.InsufficientPrivilegeError("permission denied for function pg_terminate_backend")


async def test_who_may_end_no_processes_works_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async with one_connection() as (store, only, _pid):
        only.terminate()
        pool = store._open_session().pool
        assert (await within(store.counts("q"))).queued == 0
        pool._left_behind.append(pool._open[next(iter(pool._open))])
        await pool._end_left_behind(Refusing())  # type: ignore[arg-type]
        assert pool._left_behind == []
        assert "cannot be ended" in caplog.text
