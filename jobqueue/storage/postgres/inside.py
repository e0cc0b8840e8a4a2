"""Inserting in a transaction of the caller, on a connection of asyncpg, or of psycopg if that is loaded.

The statement runs behind a savepoint: if it fails, the caller's transaction goes on as if it had not been
made. It is not repeated, since a transaction does not survive its connection.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from jobqueue.errors import InvalidArgumentError, JobQueueError, StorageUnavailableError
from jobqueue.runtime.background import run_in_caller
from jobqueue.storage import arguments
from jobqueue.storage.postgres.faults import judge, judge_reply
from jobqueue.storage.values import Inserted, NewJob

if TYPE_CHECKING:
    import psycopg

__all__ = ["Fetch", "Inside", "fetch_in"]

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Runs a statement with arguments behind a savepoint."""
Send = Callable[[Fetch, str, Sequence[NewJob], int | None], Awaitable[list[Inserted]]]

_WHERE = "PostgreSQL, in the caller's transaction"


class Inside:
    """Inserts jobs in the open transaction of a connection."""

    def __init__(self, fetch: Fetch, send: Send) -> None:
        self._fetch = fetch
        self._send = send

    async def insert(
        self, queue: str, jobs: Sequence[NewJob], *, max_length: int | None = None
    ) -> list[Inserted]:
        """Insert jobs; see `jobqueue.storage.capabilities`."""
        arguments.check_insert(queue, jobs, None, max_length)
        return await self._send(self._fetch, queue, jobs, max_length)


def fetch_in(connection: object) -> Fetch:
    """Return what runs statements in the open transaction of a connection."""
    if isinstance(connection, asyncpg.Connection):
        return _through_asyncpg(connection)  # pyright: ignore[reportUnknownArgumentType] - of any record
    loaded = sys.modules.get("psycopg")  # as it is by whoever has such a connection
    if loaded is not None and isinstance(connection, loaded.AsyncConnection):
        return _through_psycopg(cast("psycopg.AsyncConnection[Any]", connection))
    if loaded is not None and isinstance(connection, loaded.Connection):
        return _through_blocking_psycopg(cast("psycopg.Connection[Any]", connection))
    kind = type(connection).__name__
    raise InvalidArgumentError("connection", f"must be a connection of asyncpg or psycopg 3, not {kind}")


def _through_asyncpg(connection: asyncpg.Connection[Any]) -> Fetch:
    if connection.is_closed() or not connection.is_in_transaction():
        raise _no_transaction("async with connection.transaction():")

    async def fetch(sql: str, *args: Any) -> Sequence[Any]:
        try:
            async with connection.transaction():
                return await connection.fetch(sql, *args)
        except Exception as error:
            fault = judge(error, _WHERE)
            if fault is None:
                raise
            raise fault.error from error

    return fetch


def _through_psycopg(connection: psycopg.AsyncConnection[Any]) -> Fetch:
    import psycopg  # noqa: PLC0415 - it is loaded, or there would be no connection
    from psycopg.rows import tuple_row  # noqa: PLC0415

    _check_in_transaction(connection, "async with connection.transaction():")

    async def fetch(sql: str, *args: Any) -> Sequence[Any]:
        try:
            if _is_idle(
                connection
            ):  # it begins with the first statement, and would take the savepoint for all
                await connection.execute("select")
            async with (
                connection.transaction(),
                psycopg.AsyncRawCursor(connection, row_factory=tuple_row) as cursor,
            ):
                await cursor.execute(sql.encode(), args)
                return await cursor.fetchall()
        except psycopg.Error as error:
            raise _psycopg_error(error) from error

    return fetch


def _through_blocking_psycopg(connection: psycopg.Connection[Any]) -> Fetch:
    """As above, in the thread of the caller where there is one: an interrupt finds psycopg's own handling."""
    import psycopg  # noqa: PLC0415 - it is loaded, or there would be no connection
    from psycopg.rows import tuple_row  # noqa: PLC0415

    _check_in_transaction(connection, "with connection.transaction():")

    def run(sql: str, args: Sequence[Any]) -> Sequence[Any]:
        try:
            if _is_idle(connection):
                connection.execute("select")
            with (
                connection.transaction(),
                psycopg.RawCursor(connection, row_factory=tuple_row) as cursor,
            ):
                cursor.execute(sql.encode(), args)
                return cursor.fetchall()
        except psycopg.Error as error:
            raise _psycopg_error(error) from error

    async def fetch(sql: str, *args: Any) -> Sequence[Any]:
        return await run_in_caller(partial(run, sql, args), "jobqueue-psycopg")

    return fetch


def _is_idle(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    import psycopg  # noqa: PLC0415

    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def _check_in_transaction(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], remedy: str
) -> None:
    if connection.closed or (connection.autocommit and _is_idle(connection)):
        raise _no_transaction(remedy)


def _psycopg_error(error: psycopg.Error) -> JobQueueError:
    if error.sqlstate is None:
        return StorageUnavailableError(f"{_WHERE} does not answer: {str(error)[:300]}")
    return judge_reply(error.sqlstate, str(error).partition("\n")[0], _WHERE).error


def _no_transaction(remedy: str) -> InvalidArgumentError:
    return InvalidArgumentError("connection", f"has no open transaction: begin one, {remedy}")
