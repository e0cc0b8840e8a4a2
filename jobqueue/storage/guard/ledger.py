"""`PostgresLedger`: what a guarded store was asked to do, in PostgreSQL.

Every statement is plain SQL on the tables of ``schema/``, so a user of the database needs the right to
SELECT, INSERT, UPDATE and DELETE and no other. They are in `jobqueue.storage.guard.statements`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.checks import check_count, check_seconds
from jobqueue.model.new_job import NewJob
from jobqueue.model.states import JobState
from jobqueue.storage.guard import statements as sql
from jobqueue.storage.guard.rows import changed, columns, event_of, instant, job_of, written
from jobqueue.storage.guard.values import Change, GuardEvent, Known, Row, Written
from jobqueue.storage.pieces import MOST, chunks
from jobqueue.storage.postgres import migrations
from jobqueue.storage.postgres.pool import Pool
from jobqueue.storage.postgres.target import Connection, Timeouts, check_schema, parse_dsn

__all__ = ["Beat", "PostgresLedger"]

T = TypeVar("T")

PACKAGE: Final = "jobqueue.storage.guard"
_STATES = dict(enumerate(JobState, start=1))


class Beat(NamedTuple):
    """What the ledger knows of the store."""

    now: int
    """The ledger's clock, milliseconds since 1970."""
    epoch: bytes | None
    version: int
    lost_at: int
    restored: int
    """The ``lost_at`` up to which everything was brought back."""
    stuck: int


class PostgresLedger:
    """Keeps the ledger of a guarded store in a schema of its own in PostgreSQL 14 or later.

    ``dsn`` is as that of `PostgresStorage`. The tables are made by ``jobqueue schema apply`` or
    `GuardedStorage.apply_schema`. A call is repeated for ``retry_for`` seconds before it counts as a failure:
    that long an enqueue may wait for a database that has gone away, until the breaker opens.

    Raises `InvalidArgumentError` for a bad DSN, schema or option.
    """

    def __init__(
        self,
        dsn: str,
        schema: str = "jobqueue_ledger",
        pool_size: int = 4,
        *,
        retry_for: float = 2.0,
        connect_timeout: float = 2.0,
        statement_timeout: float = 10.0,
        lock_timeout: float = 5.0,
    ) -> None:
        self._target, named = parse_dsn(dsn)
        self._schema = check_schema(schema if named is None else named)
        self._timeouts = Timeouts(
            check_seconds("connect_timeout", connect_timeout),
            check_seconds("statement_timeout", statement_timeout),
            check_seconds("lock_timeout", lock_timeout),
        )
        self._size = check_count("pool_size", pool_size)
        self._retry_for = check_seconds("retry_for", retry_for, zero=True)
        self._pool: Pool | None = None
        self._statements: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"PostgresLedger({str(self._target)!r}, schema={self._schema!r})"

    def clone(self) -> PostgresLedger:
        """Return an unopened ledger on the same tables."""
        return PostgresLedger(
            self._target.dsn,
            self._schema,
            self._size,
            retry_for=self._retry_for,
            connect_timeout=self._timeouts.connect,
            statement_timeout=self._timeouts.statement,
            lock_timeout=self._timeouts.lock,
        )

    # -- lifecycle ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Be ready to connect; the first call does."""
        self._pool = Pool(self._target, self._timeouts, self._size, self._retry_for)

    async def close(self) -> None:
        """End all connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def check(self) -> int:
        """Return the version of the schema. Raises `StorageError` unless it is that of this release."""

        async def check(connection: Connection, _repeated: bool) -> None:  # noqa: FBT001
            await migrations.check(connection, self._schema, PACKAGE)

        await self._run(check)
        return migrations.latest(PACKAGE)

    async def apply_schema(self) -> tuple[int, int]:
        """Make the tables, or bring them to this release; return the versions before and after."""

        async def apply(connection: Connection, _repeated: bool) -> tuple[int, int]:  # noqa: FBT001
            return await migrations.apply(connection, self._schema, PACKAGE)

        pool = Pool(self._target, self._timeouts, 1, self._retry_for)
        try:
            return await pool.run(apply)
        finally:
            await pool.close()

    def schema_script(self) -> str:
        """Return the SQL that makes the tables."""
        return migrations.script(self._schema, package=PACKAGE)

    # -- writing --------------------------------------------------------------------------------------

    async def write(self, jobs: Sequence[Written], now: float, *, again: bool = False) -> None:
        """Write jobs before the store has them.

        ``again``: they may be there already, and stay as they are then.
        """
        text = sql.WRITE_AGAIN if again else sql.WRITE
        for some in chunks(jobs, [one.size for one in jobs]):
            await self._execute(text, *written(some, now), repeated=sql.WRITE_AGAIN)

    async def record(self, changes: Sequence[Change]) -> None:
        """Write what has become of jobs. Those that were never made go, unless they were requeued."""
        dropped = [change.token for change in changes if change.drops]
        if dropped:
            await self._execute(sql.DROP, dropped)
        left = [change for change in changes if not change.drops]
        for some in chunks(left, [change.size for change in left]):
            await self._execute(sql.RECORD, *columns([changed(change) for change in some], 13))
        replacing = [change.token for change in left if change.replaces]
        if replacing:
            await self._execute(sql.OUTLIVE, replacing)

    async def requeue(self, tokens: Sequence[str]) -> dict[str, int]:
        """Note that jobs are brought back to the store; return those that have to be, with their bytes.

        These are live, and of those with one id only one, if all are given that the store has lost.
        """
        rows = await self._fetch(sql.REQUEUE, list(tokens))
        return {row["token"].hex: row["size"] for row in rows}

    async def clean(self, age: int, limit: int) -> int:
        """Delete up to ``limit`` jobs that ended ``age`` milliseconds ago; return how many."""
        status: str = await self._execute(sql.CLEAN, age, limit)
        return int(status.rpartition(" ")[2])

    # -- reading --------------------------------------------------------------------------------------

    async def known(self, queue: str, ids: Sequence[str], but: Sequence[str] = ()) -> list[Known]:
        """Return the last job of each id, if it is live or ended with an outcome that has not expired.

        Jobs with the tokens ``but`` do not count: they are just being asked for.
        """
        rows = [
            row
            for start in range(0, len(ids), MOST)
            for row in await self._fetch(sql.KNOWN, queue, list(ids[start : start + MOST]), list(but))
        ]
        outcomes = await self._outcomes(rows)
        return [
            Known(row["id"], row["token"].hex, _STATES[row["state"]], outcomes.get(row["token"].hex),
                  row["attempts"], row["created"], row["updated"], row["expires"], row["fence"])
            for row in rows
        ]  # fmt: skip

    async def ended(self, tokens: Sequence[str]) -> dict[str, tuple[JobState, bytes | None]]:
        """Return those of the jobs that have ended, by token, with their outcomes."""
        rows = await self._fetch(sql.ENDED, list(tokens))
        outcomes = await self._outcomes(rows)
        return {row["token"].hex: (_STATES[row["state"]], outcomes.get(row["token"].hex)) for row in rows}

    async def _outcomes(self, rows: Sequence[Any]) -> dict[str, bytes | None]:
        """Read the outcomes of rows, by token, in pieces of a bounded size."""
        rows = [row for row in rows if row["size"]]
        return {
            found["token"].hex: found["outcome"]
            for some in chunks(rows, [row["size"] for row in rows])
            for found in await self._fetch(sql.OUTCOMES, [row["token"] for row in some])
        }

    async def page(self, after: str, age: int, limit: int, queue: str | None) -> list[Row]:
        """Return live jobs that were asked for at least ``age`` milliseconds ago, by token."""
        rows = await self._fetch(sql.PAGE, after, age, limit, queue)
        return [
            Row(row["token"].hex, row["queue"], row["id"], _STATES[row["state"]], row["attempts"], row["due"],
                row["created"])
            for row in rows
        ]  # fmt: skip

    async def jobs(self, tokens: Sequence[str]) -> dict[str, NewJob]:
        """Return jobs as they can be inserted again: due when they were, with the attempts they have left."""
        rows = await self._fetch(sql.JOBS, list(tokens))
        return {row["token"].hex: job_of(row) for row in rows}

    async def superseded(self, tokens: Sequence[str]) -> set[str]:
        """Return those of the jobs that a later one of their id has outlived: the store had that one."""
        rows = await self._fetch(sql.SUPERSEDED, list(tokens))
        return {row["token"].hex for row in rows}

    async def origins(self, tokens: Sequence[str]) -> dict[str, int]:
        """Return when jobs were asked for, by the clock of the ledger; those unknown are left out."""
        rows = await self._fetch(sql.ORIGINS, list(tokens))
        return {row["token"].hex: row["created"] for row in rows}

    async def history(self, queue: str, id: str, limit: int) -> list[GuardEvent]:
        """Return what happened to the last jobs of an id, oldest first."""
        rows = await self._fetch(sql.HISTORY, queue, id, limit)
        events: list[GuardEvent] = []
        for row in reversed(rows):
            events.append(GuardEvent(instant(row["created"]), "enqueued", "", 0, ""))
            events += [event_of(entry) for entry in json.loads(row["history"])]
        return events

    async def counts(self, queue: str | None) -> dict[int, int]:
        """Count jobs by the numbers of their states."""
        rows = await self._fetch(sql.COUNTS, queue)
        return {row["state"]: row["jobs"] for row in rows}

    async def is_durable(self) -> bool:
        """Return whether what the server has answered survives a crash of it."""
        text = "select current_setting('synchronous_commit') as commit, current_setting('fsync') as fsync"
        (row,) = await self._fetch(text)
        return bool(row["commit"] != "off" and row["fsync"] == "on")

    # -- the store's epoch ------------------------------------------------------------------------------

    async def beat(self) -> Beat:
        """Return what is known of the store."""
        (row,) = await self._fetch(sql.BEAT)
        return Beat(*(row[name] for name in Beat._fields))

    async def doubt(self) -> tuple[int, int]:
        """Return the ledger's clock, and until when the store may lack an outcome that has not expired."""
        (row,) = await self._fetch("select {now} as now, doubt_until from {s}.store")
        return row["now"], row["doubt_until"]

    async def note_doubt(self) -> None:
        """Note that the store may lack outcomes until the last one of now expires: it has lost data."""
        await self._execute(sql.NOTE_DOUBT)

    async def note_epoch(self, epoch: bytes, version: int, *, lost: bool, doubt: int = 0) -> None:
        """Note the epoch and version of the store.

        ``lost``: it was found wiped or set back, and may lack outcomes for ``doubt`` milliseconds at least.
        """
        await self._execute(sql.NOTE_EPOCH, epoch, version, lost, doubt)

    async def note_restored(self, lost_at: int) -> None:
        """Note that all was brought back that the store had lost until then."""
        await self._execute("update {s}.store set restored = $1 where restored < $1", lost_at)

    async def note_stuck(self, stuck: int) -> None:
        """Note how many jobs were stuck when the store was last compared."""
        await self._execute("update {s}.store set stuck = $1 where stuck <> $1", stuck)

    # -- the servers of other libraries ---------------------------------------------------------------

    async def server(self, queue: str) -> tuple[bytes, int] | None:
        """Return the epoch that was last noted of the server of a queue, and how often it was asked."""
        rows = await self._fetch("select epoch, asked from {s}.server where queue = $1", queue)
        return (rows[0]["epoch"], rows[0]["asked"]) if rows else None

    async def note_server(self, queue: str, epoch: bytes, asked: int, *, lost: bool) -> tuple[int, int]:
        """Note what a server says; return how often it has lost data, and how much of that was mended."""
        (row,) = await self._fetch(sql.NOTE_SERVER, queue, epoch, asked, lost)
        return row["losses"], row["mended"]

    async def note_mended(self, queue: str, losses: int) -> None:
        """Note that all was brought back that a server had lost until then."""
        text = "update {s}.server set mended = $2 where queue = $1 and mended < $2"
        await self._execute(text, queue, losses)

    # -- statements -------------------------------------------------------------------------------------

    async def _run(self, call: Callable[[Connection, bool], Awaitable[T]]) -> T:
        if self._pool is None:
            raise StorageUnavailableError("the ledger is not open")
        return await self._pool.run(call)

    async def _execute(self, text: str, *args: Any, repeated: str | None = None) -> str:
        made, again = self._made(text), self._made(repeated or text)

        async def execute(connection: Connection, repeated: bool) -> str:  # noqa: FBT001
            return await connection.execute(again if repeated else made, *args)

        return await self._run(execute)

    async def _fetch(self, text: str, *args: Any) -> list[Any]:
        made = self._made(text)

        async def fetch(connection: Connection, _repeated: bool) -> list[Any]:  # noqa: FBT001
            return await connection.fetch(made, *args)

        return await self._run(fetch)

    def _made(self, text: str) -> str:
        made = self._statements.get(text)
        if made is None:
            made = self._statements[text] = sql.statement(text, self._schema)
        return made
