"""`PostgresLedger`: what a guarded store was asked to do, in PostgreSQL.

Every statement is plain SQL on the tables of ``schema/``, so a user of the database needs the right to
SELECT, INSERT, UPDATE and DELETE and no other. The file is long because the statements stand in it, in full.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.checks import check_count, check_seconds
from jobqueue.model.new_job import NewJob
from jobqueue.model.states import JobState
from jobqueue.storage.guard.values import Change, GuardEvent, Known, Row, Written
from jobqueue.storage.pieces import chunks
from jobqueue.storage.postgres import migrations
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.pool import Pool
from jobqueue.storage.postgres.target import Connection, Timeouts, check_schema, parse_dsn

__all__ = ["Beat", "PostgresLedger"]

T = TypeVar("T")

PACKAGE: Final = "jobqueue.storage.guard"
_STATES = dict(enumerate(JobState, start=1))
_LIVE_BELOW = 5
_NOW = "(extract(epoch from clock_timestamp()) * 1000)::bigint"
_MOST_KEPT = 100
"""Largest number of changes in one job's history: the first and the last ones."""

_WRITE = """
insert into {s}.job (token, queue, id, state, priority, due, max_attempts, max_stalls, ttl,
                     dead_letter_ttl, payload, headers, task, group_name, created, updated)
select u.token, u.queue, u.id, case when d.due > n.now then 1 else 2 end, u.priority, d.due, u.max_attempts,
       u.max_stalls, u.ttl, u.dead_letter_ttl, u.payload, u.headers, u.task, u.group_name, n.now - u.ago,
       n.now
from (select {now} as now) n,
     unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::int[], $8::int[],
            $9::bigint[], $10::bigint[], $11::bytea[], $12::bytea[], $13::text[], $14::text[],
            $15::bigint[])
         u (token, queue, id, priority, run_at, delay, max_attempts, max_stalls, ttl, dead_letter_ttl,
            payload, headers, task, group_name, ago),
     lateral (select coalesce(u.run_at, n.now - u.ago + u.delay) as due) d
on conflict (token) do nothing
"""

_RECORD = """
update {s}.job j set
    state = coalesce(c.state, j.state),
    attempts = coalesce(c.attempts, j.attempts),
    worker = coalesce(c.worker, j.worker),
    error = coalesce(c.error, j.error),
    outcome = case when c.revives then null else coalesce(c.outcome, j.outcome) end,
    due = coalesce(c.due, j.due),
    expires = case when c.revives then null when c.ttl is null then j.expires else n.now + c.ttl end,
    payload = case when c.state in (5, 7) then '' else coalesce(c.payload, j.payload) end,
    updated = n.now,
    history = case when jsonb_array_length(j.history) < {most} then j.history || c.history else j.history end
from (select {now} as now) n,
     unnest($1::uuid[], $2::smallint[], $3::int[], $4::text[], $5::text[], $6::bytea[], $7::bigint[],
            $8::bytea[], $9::bigint[], $10::boolean[], $11::jsonb[])
     c (token, state, attempts, worker, error, outcome, due, payload, ttl, revives, history)
where j.token = c.token and (j.state < 5 or c.revives or c.state is null)
"""

_COLUMNS = "token, queue, id, state, attempts, due, created, requeued"

_KNOWN = """
select * from (
    select distinct on (j.id) j.id, j.token, j.state, j.outcome, j.attempts, j.created, j.updated,
                              coalesce(j.expires, 0) as expires
    from {s}.job j
    where j.queue = $1 and j.id = any($2::text[]) and not j.token = any($3::uuid[])
    order by j.id, j.token desc) last
where state < 5 or (state in (5, 6) and expires > {now})
"""

_PAGE = """
select {columns} from {s}.job
where state < 5 and token > $1 and created <= {now} - $2 and ($4::text is null or queue = $4)
order by token limit $3
"""

_JOBS = """
select token, id, payload, priority, due, max_attempts, max_stalls, ttl, headers, task, group_name,
       dead_letter_ttl, attempts
from {s}.job where token = any($1::uuid[])
"""

_REQUEUE = """
update {s}.job set
    requeued = requeued + 1, updated = n.now, state = case when due > n.now then 1 else 2 end,
    history = history || jsonb_build_array(jsonb_build_array(n.now, 'requeued', '', attempts, ''))
from (select {now} as now) n
where token = any($1::uuid[]) and state < 5
returning token
"""

_LATER = """
select j.token from {s}.job j
where j.token = any($1::uuid[]) and j.requeued = 0 and exists (
    select 1 from {s}.job o where o.queue = j.queue and o.id = j.id and o.token <> j.token
                              and o.updated >= j.created and (o.state < 5 or o.state in (5, 6)))
"""

_HISTORY = """
select created, history from {s}.job where queue = $1 and id = $2 order by token desc limit $3
"""

_STATS = """
select state, count(*) as jobs from {s}.job where $1::text is null or queue = $1 group by state
"""

_CLEAN = """
delete from {s}.job where token in (
    select token from {s}.job
    where state >= 5 and updated < {now} - $1 and coalesce(expires, 0) < {now} order by updated limit $2)
"""


class Beat(NamedTuple):
    """What the ledger knows of the store."""

    now: int
    """The ledger's clock, milliseconds since 1970."""
    epoch: bytes | None
    version: int
    lost_at: int
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

    async def write(self, jobs: Sequence[Written], now: float) -> None:
        """Write jobs before the store has them; one that is there already stays as it is."""
        for some in chunks(jobs, [len(one.job.payload) + len(one.job.headers) for one in jobs]):
            await self._execute(_WRITE, *_columns([_written(one, now) for one in some], 15))

    async def record(self, changes: Sequence[Change]) -> None:
        """Write what has become of jobs. Those that were never made go, unless they were requeued."""
        dropped = [change.token for change in changes if change.drops]
        if dropped:
            await self._execute(
                "delete from {s}.job where token = any($1::uuid[]) and requeued = 0 and state < 5", dropped
            )
        left = [change for change in changes if not change.drops]
        for some in chunks(left, [change.size for change in left]):
            await self._execute(_RECORD, *_columns([_changed(change) for change in some], 11))

    async def requeue(self, tokens: Sequence[str]) -> set[str]:
        """Note that jobs are brought back to the store; return those that are still live."""
        rows = await self._fetch(_REQUEUE, list(tokens))
        return {row["token"].hex for row in rows}

    async def clean(self, age: int, limit: int) -> int:
        """Delete up to ``limit`` jobs that ended ``age`` milliseconds ago; return how many."""
        status: str = await self._execute(_CLEAN, age, limit)
        return int(status.rpartition(" ")[2])

    # -- reading --------------------------------------------------------------------------------------

    async def known(self, queue: str, ids: Sequence[str], but: Sequence[str] = ()) -> list[Known]:
        """Return the last job of each id, if it is live or ended with an outcome that has not expired.

        Jobs with the tokens ``but`` do not count: they are just being asked for.
        """
        rows = await self._fetch(_KNOWN, queue, list(ids), list(but))
        return [
            Known(row["id"], row["token"].hex, _STATES[row["state"]], row["outcome"], row["attempts"],
                  row["created"], row["updated"], row["expires"])
            for row in rows
        ]  # fmt: skip

    async def ended(self, tokens: Sequence[str]) -> dict[str, tuple[JobState, bytes | None]]:
        """Return those of the jobs that have completed or failed, by token, with their outcomes."""
        sql = "select token, state, outcome from {s}.job where token = any($1::uuid[]) and state in (5, 6, 7)"
        rows = await self._fetch(sql, list(tokens))
        return {row["token"].hex: (_STATES[row["state"]], row["outcome"]) for row in rows}

    async def page(self, after: str, age: int, limit: int, queue: str | None) -> list[Row]:
        """Return live jobs that were asked for at least ``age`` milliseconds ago, by token."""
        rows = await self._fetch(_PAGE, after, age, limit, queue)
        return [
            Row(row["token"].hex, row["queue"], row["id"], _STATES[row["state"]], row["attempts"], row["due"],
                row["created"], row["requeued"])
            for row in rows
        ]  # fmt: skip

    async def jobs(self, tokens: Sequence[str]) -> dict[str, NewJob]:
        """Return jobs as they can be inserted again: due when they were, with the attempts they have left."""
        rows = await self._fetch(_JOBS, list(tokens))
        return {row["token"].hex: _job(row) for row in rows}

    async def superseded(self, tokens: Sequence[str]) -> set[str]:
        """Return those of the jobs that another one of their id has outlived: the store had that one."""
        rows = await self._fetch(_LATER, list(tokens))
        return {row["token"].hex for row in rows}

    async def history(self, queue: str, id: str, limit: int) -> list[GuardEvent]:
        """Return what happened to the last jobs of an id, oldest first."""
        rows = await self._fetch(_HISTORY, queue, id, limit)
        events: list[GuardEvent] = []
        for row in reversed(rows):
            events.append(GuardEvent(_instant(row["created"]), "enqueued", "", 0, ""))
            for at, event, worker, attempt, error in json.loads(row["history"]):
                events.append(GuardEvent(_instant(at), event, worker, attempt, error))
        return events

    async def counts(self, queue: str | None) -> dict[int, int]:
        """Count jobs by the numbers of their states."""
        rows = await self._fetch(_STATS, queue)
        return {row["state"]: row["jobs"] for row in rows}

    async def is_durable(self) -> bool:
        """Return whether what the server has answered survives a crash of it."""
        sql = "select current_setting('synchronous_commit') as commit, current_setting('fsync') as fsync"
        (row,) = await self._fetch(sql)
        return bool(row["commit"] != "off" and row["fsync"] == "on")

    # -- the store's epoch ------------------------------------------------------------------------------

    async def now(self) -> int:
        """Return the ledger's clock."""
        rows = await self._fetch("select {now} as now")
        return int(rows[0]["now"])

    async def beat(self) -> Beat:
        """Return what is known of the store."""
        (row,) = await self._fetch("select {now} as now, epoch, version, lost_at, stuck from {s}.store")
        return Beat(row["now"], row["epoch"], row["version"], row["lost_at"], row["stuck"])

    async def doubt_until(self, least: int) -> int:
        """Return until when the store may lack what the ledger remembers; 0: it has lost nothing.

        That is ``least`` milliseconds after its last loss, and while an outcome of before has not expired.
        """
        sql = """
            select case when k.lost_at = 0 then 0 else greatest(k.lost_at + $1, (
                select max(j.expires) from {s}.job j where j.state in (5, 6) and j.updated <= k.lost_at)) end
                as until
            from {s}.store k
        """
        (row,) = await self._fetch(sql, least)
        return int(row["until"])

    async def note_epoch(self, epoch: bytes, version: int, *, lost: bool) -> None:
        """Note the epoch and version of the store; ``lost``: it was found wiped or set back."""
        sql = """
            update {s}.store
            set epoch = $1, version = $2, lost_at = case when $3 then {now} else lost_at end
        """
        await self._execute(sql, epoch, version, lost)

    async def note_stuck(self, stuck: int) -> None:
        """Note how many jobs were stuck when the store was last compared."""
        await self._execute("update {s}.store set stuck = $1", stuck)

    # -- statements -------------------------------------------------------------------------------------

    async def _run(self, call: Callable[[Connection, bool], Awaitable[T]]) -> T:
        if self._pool is None:
            raise StorageUnavailableError("the ledger is not open")
        return await self._pool.run(call)

    async def _execute(self, sql: str, *args: Any) -> str:
        async def execute(connection: Connection, _repeated: bool) -> str:  # noqa: FBT001
            return await connection.execute(self._sql(sql), *args)

        return await self._run(execute)

    async def _fetch(self, sql: str, *args: Any) -> list[Any]:
        async def fetch(connection: Connection, _repeated: bool) -> list[Any]:  # noqa: FBT001
            return await connection.fetch(self._sql(sql), *args)

        return await self._run(fetch)

    def _sql(self, sql: str) -> str:
        return sql.format(s=quoted(self._schema), now=_NOW, columns=_COLUMNS, most=_MOST_KEPT)


def _instant(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[at] for row in rows] for at in range(count)]


def _written(one: Written, now: float) -> tuple[Any, ...]:
    job = one.job
    return (
        one.token, one.queue, job.id, job.priority, job.run_at, job.delay, job.max_attempts, job.max_stalls,
        job.ttl, job.dead_letter_ttl, job.payload, job.headers, job.task, job.group,
        max(0, int((now - one.at) * 1000)),
    )  # fmt: skip


def _changed(change: Change) -> tuple[Any, ...]:
    history = json.dumps([list(entry) for entry in change.history], separators=(",", ":"))
    return (
        change.token, change.state, change.attempts, change.worker, change.error, change.data, change.due,
        change.payload, change.ttl, change.revives, history,
    )  # fmt: skip


def _job(row: Any) -> NewJob:
    failed = max(0, row["attempts"])
    return NewJob(
        row["id"],
        row["payload"],
        priority=row["priority"],
        run_at=row["due"],
        max_attempts=max(1, row["max_attempts"] - failed),
        max_stalls=row["max_stalls"],
        ttl=row["ttl"],
        headers=row["headers"],
        task=row["task"],
        group=row["group_name"],
        dead_letter_ttl=row["dead_letter_ttl"],
    )
