"""Enqueueing in a transaction of code that is not asyncio: connections of psycopg, and of Django."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
import pytest
import pytest_asyncio

from jobqueue import InvalidArgumentError, Queue, UnsupportedError
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.postgres import PostgresStorage
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import postgres_storage

T = TypeVar("T")


class Undo(Exception):
    """Rolls a transaction back."""


async def away(call: Callable[[], T]) -> T:
    async with asyncio.timeout(30.0):
        return await asyncio.to_thread(call)


@pytest_asyncio.fixture
async def queue() -> AsyncIterator[Queue[Any, Any]]:
    async with postgres_storage() as store:
        queue: Queue[Any, Any] = Queue(store, "q")
        yield queue
        await away(queue.sync.close)


@contextmanager
def connected(**options: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url(), **options) as connection:
        yield connection


async def test_the_job_exists_if_and_only_if_the_transaction_commits(queue: Queue[Any, Any]) -> None:
    @queue.task
    def add(a: int, b: int) -> int:
        return a + b

    def use() -> None:
        sync = queue.sync
        with connected(autocommit=True) as connection:
            with connection.transaction():
                kept = sync.enqueue("kept", 1, connection=connection)
                assert sync.enqueue("kept", 2, connection=connection).status == "duplicate"
                task = add.using(id="task", connection=connection).sync.enqueue(1, 2)
                assert (kept.status, task.status) == ("queued", "queued")
                assert (sync.get_status("kept"), sync.get_status("task")) == (None, None)
            with suppress(Undo), connection.transaction():
                sync.enqueue("undone", 1, connection=connection)
                sync.enqueue_many([("undone:2", 1), add.request(1, 2)], connection=connection)
                raise Undo
        assert {job.id for job in sync.jobs.list().jobs} == {"kept", "task"}
        status = sync.jobs.get("task")
        assert status is not None
        assert status.task == "add"

    await away(use)


async def test_a_connection_without_autocommit_begins_by_itself(queue: Queue[Any, Any]) -> None:
    def use() -> None:
        with connected() as connection:
            queue.sync.enqueue("a", 1, connection=connection)
            assert queue.sync.get_status("a") is None
            connection.rollback()
            queue.sync.enqueue("b", 1, connection=connection)
            connection.commit()
        assert (queue.sync.get_status("a"), queue.sync.get_status("b") is None) == (None, False)

    await away(use)


async def test_a_statement_runs_in_the_thread_that_waits(queue: Queue[Any, Any]) -> None:
    seen: list[threading.Thread] = []

    class Watched(psycopg.Connection[Any]):
        def transaction(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(threading.current_thread())
            return super().transaction(*args, **kwargs)

    def use() -> threading.Thread:
        with Watched.connect(postgres_url()) as connection:
            queue.sync.enqueue("a", 1, connection=connection)
        return threading.current_thread()

    here = await away(use)
    assert seen == [here]


async def test_an_error_leaves_the_transaction_usable(queue: Queue[Any, Any]) -> None:
    def use() -> None:
        with connected() as connection:
            with pytest.raises(InvalidArgumentError):
                queue.sync.enqueue("", 1, connection=connection)
            connection.execute("create temporary table noted (id int)")
            assert queue.sync.enqueue("a", 1, connection=connection).status == "queued"
            connection.commit()
        assert queue.sync.get_status("a") is not None

    await away(use)


async def test_without_a_transaction_it_is_refused(queue: Queue[Any, Any]) -> None:
    @queue.task
    def nothing() -> None:
        """Do it."""

    def use() -> None:
        with connected(autocommit=True) as connection:
            with pytest.raises(InvalidArgumentError, match=r"with connection\.transaction"):
                queue.sync.enqueue("a", 1, connection=connection)
            for call in (
                lambda: nothing.sync.using(connection=connection).enqueue_and_wait(),
                lambda: nothing.using(connection=connection).request(),
            ):
                with pytest.raises(InvalidArgumentError, match="connection"):
                    call()
        with pytest.raises(InvalidArgumentError, match="open transaction"):
            queue.sync.enqueue("a", 1, connection=connection)  # closed
        with pytest.raises(InvalidArgumentError, match="psycopg 3"):
            queue.sync.enqueue("a", 1, connection=object())
        elsewhere: Queue[Any, Any] = Queue(MemoryStorage(), "q")
        with pytest.raises(UnsupportedError, match="connection="):
            elsewhere.sync.enqueue("a", 1, connection=connection)
        elsewhere.sync.close()

    await away(use)


async def test_tasks_take_the_connection_of_asyncio_too(queue: Queue[Any, Any]) -> None:
    @queue.task
    def add(a: int, b: int) -> int:
        return a + b

    async with queue.producer(), await psycopg.AsyncConnection.connect(postgres_url()) as connection:
        await add.using(id="undone", connection=connection).enqueue(1, 2)
        await connection.rollback()
        await add.using(id="kept", connection=connection).enqueue(1, 2)
        await connection.commit()
        with pytest.raises(InvalidArgumentError, match="commit first"):
            await add.using(connection=connection).enqueue_and_wait(1, 2)
        assert await queue.get_status("undone") is None
        assert await queue.get_status("kept") is not None
        with (
            connected() as blocking
        ):  # of a program that has both: it blocks a thread of its own, not the loop
            await queue.enqueue("also", 1, connection=blocking)
            assert await queue.get_status("also") is None
            blocking.commit()
        assert await queue.get_status("also") is not None


DJANGO = """
import sys
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

url, schema = sys.argv[1:]
given = conninfo_to_dict(url)
settings.configure(USE_TZ=True, DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": given.get("dbname"), "USER": given.get("user"),
    "HOST": given.get("host"), "PORT": given.get("port"), "PASSWORD": given.get("password")}})
django.setup()
from django.db import connection, transaction
from jobqueue import PostgresStorage, Queue

queue = Queue(PostgresStorage(url, schema), "q")
with transaction.atomic():
    queue.sync.enqueue("kept", {"a": 1}, connection=connection.connection or connection.ensure_connection()
        or connection.connection)
    connection.cursor().execute("select 1")
try:
    with transaction.atomic():
        with transaction.atomic():
            queue.sync.enqueue("undone", 1, connection=connection.connection)
        raise KeyError
except KeyError:
    pass
print(sorted(job.id for job in queue.sync.jobs.list().jobs))
"""


async def test_the_connection_of_django(queue: Queue[Any, Any]) -> None:
    import sys

    store = queue.storage
    assert isinstance(store, PostgresStorage)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DJANGO, postgres_url(), store._settings.schema,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60.0):
        out, err = await process.communicate()
    assert (out.decode().strip(), err.decode()) == ("['kept']", "")
