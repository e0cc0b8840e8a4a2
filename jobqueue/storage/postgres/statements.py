"""The functions of the schema as methods: one statement each, repeated as `Pool.run` says.

It is long because there are that many; each is a few lines.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import asyncpg

from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.model.outcomes import EXPIRED_ERROR, STALLED_ERROR, Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import random_secret
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.postgres import rows
from jobqueue.storage.postgres.held_ids import Answer, insert_around, is_lock_timeout
from jobqueue.storage.postgres.inside import Fetch
from jobqueue.storage.postgres.lines import Lines
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.pool import Pool
from jobqueue.storage.postgres.target import Connection
from jobqueue.storage.rules import pack_rules, read_rules
from jobqueue.storage.values import (
    EXPIRE_LIMIT,
    MAX_DOCUMENT_PAGE,
    PROMOTE_LIMIT,
    WORKER_SEEN_FOR,
    AdmissionInfo,
    CancelStatus,
    Change,
    Conflict,
    Counts,
    Document,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Record,
    Renewal,
    Rules,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
    Usage,
    WorkerInfo,
)

__all__ = ["BUDGET", "Statements"]

log = get_logger("jobqueue.storage.postgres")

R = TypeVar("R")

_CONTRADICTIONS = (asyncpg.UniqueViolationError, asyncpg.NumericValueOutOfRangeError)

BUDGET = 1 << 20
"""Bytes of payloads, results and errors in one answer; one larger item is an answer of its own."""
_LONGEST_REPLY = 65_536
"""Size in bytes of the largest result that is read for a message; its waiters read a larger one."""
_MOST_LINES = 1_000
_MOST_MADE = 1_000
_COMMIT_WITHIN = 15_000
"""Milliseconds after which the server ends a transaction that has settled its run, if nothing comes: it may
hold what all claims of the queue need, and its client may be frozen or away."""
_AHEAD = 3_000_000
"""Microseconds that the numbers are above the clock after another server may have taken over."""


# Any driver may carry this, so it says the types.
_INSIDE = """
select * from {s}.insert_inside(
    $1::text, $2::bigint, $3::bigint, $4::int, $5::bigint, $6::text[], $7::bytea[], $8::int[], $9::bigint[],
    $10::bigint[], $11::int[], $12::int[], $13::bigint[], $14::smallint[], $15::boolean[], $16::bytea[],
    $17::text[], $18::text[], $19::bigint[], $20::bigint[], $21::smallint[]
)
"""
_REPLACING_INSIDE = """
select place, status, seq, state, attempts from {s}.insert_replacing(
    $1::text, $2::bigint, $3::bigint, $4::text, $5::int, $6::text[], $7::bytea[], $8::int[], $9::bigint[],
    $10::bigint[], $11::int[], $12::int[], $13::bigint[], $14::smallint[], $15::boolean[], $16::bytea[],
    $17::text[], $18::text[], $19::bigint[], $20::bigint[], $21::smallint[], $22::smallint[], true
)
"""


class _Names(NamedTuple):
    """The statements, for one schema."""

    insert: str
    get: str
    exchange: str
    extend: str
    sweep: str
    cancel: str
    set_ttl: str
    purge: str
    list: str
    counts: str
    counts_of: str
    ended: str
    queues: str
    workers: str
    work_in: str
    to_sweep: str
    outcomes: str
    acquire: str
    renew: str
    release: str
    holder: str
    channel: str
    keep_pace: str
    settle_inside: str
    exchange_then: str
    revive: str
    forget: str
    read_documents: str
    write_documents: str
    list_documents: str
    insert_inside: str
    insert_replacing: str
    replacing_inside: str
    held_ids: str
    mend: str
    held_inside: str
    queue_number: str
    take_turn: str
    set_rules: str
    get_rules: str
    rules_of: str
    usage: str
    use_groups: str


def _statements(schema: str) -> _Names:
    s = quoted(schema)

    def call(function: str, count: int, first: int = 1) -> str:
        return f"select * from {s}.{function}({', '.join(f'${n}' for n in range(first, first + count))})"  # noqa: S608

    def once(function: str, count: int) -> str:
        """Put a token before a call: a repetition gets the answer of the first."""
        answer = call(function, count, first=2).replace("*", "jsonb_agg(a)")
        return f"select coalesce({s}.recall($1), {s}.remember($1, ({answer} a)))"

    return _Names(
        insert=call("insert_jobs", 23),
        get=call("read_jobs", 7),
        exchange=call("exchange", 23),
        extend=call("extend_leases", 8),
        sweep=once("sweep", 5),
        cancel=once("cancel_jobs", 4),
        set_ttl=once("set_ttl", 4),
        purge=call("purge", 4),
        list=call("list_jobs", 6),
        counts=call("count_jobs", 2),
        counts_of=call("count_jobs_of", 2),
        ended=call("count_ended", 1),
        queues=call("queue_names", 0),
        workers=call("list_workers", 3),
        work_in=call("work_in", 2),
        to_sweep=call("to_sweep", 2),
        outcomes=call("read_outcomes", 3),
        acquire=call("lock_acquire", 4),
        renew=call("lock_renew", 4),
        release=once("lock_release", 3),
        holder=call("lock_holder", 2),
        channel=call("channel", 2),
        keep_pace=call("keep_pace", 1),
        settle_inside=call("settle_then", 28).replace("*", "a.*")
        + f" a, set_config('idle_in_transaction_session_timeout', '{_COMMIT_WITHIN}', true)",
        exchange_then=call("exchange_then", 40),
        revive=once("revive_with", 5),
        forget=once("forget", 3),
        read_documents=call("read_documents", 2),
        write_documents=once("write_documents", 4),
        list_documents=call("list_documents", 4),
        insert_inside=_INSIDE.format(s=s),
        insert_replacing=once("insert_replacing", 22),
        replacing_inside=_REPLACING_INSIDE.format(s=s),
        held_ids=call("held_ids", 2),
        mend=call("mend", 1),
        held_inside=f"select {s}.held_ids($1::text, $2::text[])",
        queue_number=call("queue_number", 1),
        take_turn=call("take_turn", 2),
        set_rules=once("set_rules", 5),
        get_rules=call("get_rules", 2),
        rules_of=f"select q.name, q.rules::text from {s}.queue q where q.name = any($1::text[])",  # noqa: S608
        usage=call("usage", 3),
        use_groups=f"select {s}.use_groups({s}.queue_number($1::text))",
    )


class Listed(NamedTuple):
    """Part of a listing."""

    records: list[Record]
    more: bool


class Statements:
    """The calls of a store on the database."""

    def __init__(self, pool: Pool, schema: str, now: Callable[[], int | None], patience: float) -> None:
        self._pool = pool
        self._now = now
        self._patience = patience
        """Seconds that a call waits for a row that another transaction holds."""
        self._sql = _statements(schema)
        self._lines_of: dict[str, Lines] = {}
        self._made: set[str] = set()
        """Queues that are known to have a number."""
        self._grouped: set[str] = set()
        """Queues that are known to have jobs of groups."""

    async def _fetch(self, sql: str, *args: Any) -> list[Any]:
        async def call(connection: Connection, _repeated: bool) -> list[asyncpg.Record]:  # noqa: FBT001
            await self._prepare(connection)
            return await connection.fetch(sql, *args)

        return await self._pool.run(call)

    async def _value(self, sql: str, *args: Any) -> Any:
        return (await self._fetch(sql, *args))[0][0]

    async def _once(self, sql: str, *args: Any) -> list[Any]:
        """Make a call that must not be carried out twice, and whose answer nothing in the tables tells."""
        text = await self._value(sql, _token(), *args)
        return [] if text is None else cast("list[Any]", json.loads(text))

    async def _healing(self, queue: str, call: Callable[[], Awaitable[R]]) -> R:
        """Make a call again, once, if it fails since rows contradict each other: see ``mend``."""
        try:
            return await call()
        except StorageError as error:
            if not isinstance(error.__cause__, _CONTRADICTIONS):
                raise
        await self._mend(queue)
        return await call()

    async def _mend(self, queue: str) -> None:
        log.error(
            "queue %r: rows that contradict each other are deleted, as an edit by hand leaves them behind",
            queue,
        )
        await self._value(self._sql.mend, queue)

    async def _prepare(self, connection: Connection) -> None:
        """Have the numbers rise if another server may be the one that answers now."""
        if self._pool.was_lost:
            self._pool.was_lost = False
            try:
                await connection.fetch(self._sql.keep_pace, _AHEAD)
            except BaseException:
                self._pool.was_lost = True
                raise

    # -- jobs -------------------------------------------------------------------------------------

    async def insert(
        self, queue: str, jobs: Sequence[NewJob], reply_to: str | None, room: int | None
    ) -> list[Answer]:
        """Insert jobs; ``None`` for one that was found and has to be read, `HELD` for one that must wait."""
        token = _token()
        was_repeated = False

        async def insert(some: Sequence[NewJob]) -> list[Inserted | None] | None:
            columns = rows.job_columns(some)

            async def call(connection: Connection, repeated: bool) -> list[asyncpg.Record] | None:  # noqa: FBT001
                nonlocal was_repeated
                was_repeated = was_repeated or repeated
                await self._prepare(connection)
                try:
                    return await connection.fetch(
                        self._sql.insert, queue, self._now(), token, was_repeated, reply_to, room, BUDGET,
                        *columns,
                    )  # fmt: skip
                except asyncpg.LockNotAvailableError:
                    return None

            if _replaces(some):
                return await replacing(some)
            found = await self._pool.run(call)
            return None if found is None else rows.inserted(found, len(some))

        async def replacing(some: Sequence[NewJob]) -> list[Inserted | None] | None:
            own, columns = _token(), rows.replacing_columns(some)
            args = (own, queue, self._now(), own, reply_to, room, *columns)

            async def call(connection: Connection, _repeated: bool) -> str | None:  # noqa: FBT001
                await self._prepare(connection)
                try:
                    return cast("str", await connection.fetchval(self._sql.insert_replacing, *args))
                except asyncpg.LockNotAvailableError:
                    return None

            text = await self._pool.run(call)
            return None if text is None else rows.replaced(json.loads(text), len(some))

        async def held_among(ids: Sequence[str]) -> list[str]:
            return cast("list[str]", await self._value(self._sql.held_ids, queue, ids))

        return await insert_around(jobs, insert, held_among, self._patience, self._pool.where)

    async def _make(self, made: set[str], queue: str, sql: str) -> None:
        if queue not in made:
            await self._value(sql, queue)
            if len(made) >= _MOST_MADE:  # a cache, not a registry
                made.clear()
            made.add(queue)

    async def insert_inside(
        self, fetch: Fetch, queue: str, jobs: Sequence[NewJob], room: int | None
    ) -> list[Answer]:
        """Insert jobs in a transaction of the caller, which ``fetch`` runs statements in; see `insert`."""
        # Of its own, or nobody else could make this queue before the caller's transaction ends.
        await self._make(self._made, queue, self._sql.queue_number)
        if any(job.group for job in jobs):
            await self._make(self._grouped, queue, self._sql.use_groups)

        async def insert(some: Sequence[NewJob]) -> list[Inserted | None] | None:
            columns = rows.job_columns(some)
            try:
                if _replaces(some):
                    given = (queue, self._now(), _token(), None, room, *rows.replacing_columns(some))
                    return rows.replaced(await fetch(self._sql.replacing_inside, *given), len(some))
                found = await fetch(
                    self._sql.insert_inside, queue, self._now(), _token(), room, BUDGET, *columns
                )
            except StorageUnavailableError as error:
                if not is_lock_timeout(error):
                    raise
                return None
            return rows.inserted(found, len(some))

        async def held_among(ids: Sequence[str]) -> list[str]:
            ((held,),) = await fetch(self._sql.held_inside, queue, ids)
            return list(held)

        return await insert_around(jobs, insert, held_among, self._patience, self._pool.where)

    async def get(
        self, queue: str, ids: Sequence[str], reply_to: str | None, *, payload: bool, letters: bool
    ) -> list[Record | None]:
        """Read the first of these jobs, one at least."""
        found = await self._fetch(self._sql.get, queue, self._now(), ids, reply_to, payload, letters, BUDGET)
        return [rows.record(row) for row in found]

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        fences = {settlement.fence for settlement in settlements}
        if len(fences) < len(settlements) and any(settlement.then for settlement in settlements):
            return await self._exchange_once(queue, worker, settlements, limit, lease)
        return await self._exchange(queue, worker, settlements, limit, lease)

    async def _exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        token, then = _token(), _then(settlements)
        columns = rows.every_settlement_column(settlements) if then else rows.settlement_columns(settlements)
        sql = self._sql.exchange_then if then else self._sql.exchange
        lines = self.lines(queue)
        front = lines.claims_from_front(SYSTEM_CLOCK.monotonic())
        spans, due_from = lines.spans(front=front)
        now = self._now()

        async def call(connection: Connection, repeated: bool) -> list[asyncpg.Record]:  # noqa: FBT001
            await self._prepare(connection)
            return await connection.fetch(
                sql, queue, now, worker, token, repeated, limit, lease, BUDGET, PROMOTE_LIMIT,
                *columns, due_from, *rows.span_columns(spans), EXPIRE_LIMIT, EXPIRED_ERROR, *then,
            )  # fmt: skip

        found = await self._healing(queue, lambda: self._pool.run(call))
        if limit and rows.met_strays(found):
            await self._mend(queue)
        if limit:
            lines.note(rows.reached(found), front=front, now=SYSTEM_CLOCK.monotonic())
        return rows.exchanged(found, len(settlements))

    async def _exchange_once(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        """Settle each run once, by its first settlement; what else is said of it asks what became of it.

        Releases are written after all others, so what is said after one of the same run is answered like it.
        """
        first: dict[tuple[str, int], int] = {}
        given: list[Settlement] = []
        places: list[int] = []
        for one in settlements:
            place = first.setdefault((one.id, one.fence), len(given))
            if place == len(given):
                given.append(one)
            elif given[place].action is not Action.RELEASE:
                place = len(given)
                given.append(one._replace(action=Action.COMPLETE, then=()))
            places.append(place)
        answer = await self._exchange(queue, worker, given, limit, lease)
        return answer._replace(settled=[answer.settled[place] for place in places])

    def lines(self, queue: str) -> Lines:
        """Return how far the claims of a queue have come."""
        if self._now() is not None:
            return Lines()  # a clock of a test may go back
        found = self._lines_of.get(queue)
        if found is None:
            if len(self._lines_of) >= _MOST_LINES:  # a cache, not a registry
                self._lines_of.clear()
            found = self._lines_of[queue] = Lines()
        return found

    async def settle_in(
        self, connection: Connection, queue: str, settlement: Settlement, timeout: float
    ) -> SettleStatus:
        """Write a settlement in the transaction that is open on a connection."""
        columns = rows.every_settlement_column([settlement])
        repeated = False
        args = (queue, self._now(), _token(), repeated, *columns, *_then_columns([settlement]))
        text = str(await connection.fetchval(self._sql.settle_inside, *args, timeout=timeout))
        return rows.letters(text, rows.SETTLED, 1)[0]

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        columns = [
            [r.id for r in leases],
            [r.fence for r in leases],
            [r.progress for r in leases],
            [r.saved for r in leases],
        ]
        text = await self._value(self._sql.extend, queue, self._now(), worker, *columns, lease)
        return rows.letters(text, rows.LEASES, len(leases))

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        errors = (STALLED_ERROR, EXPIRED_ERROR)
        found = await self._healing(
            queue, lambda: self._once(self._sql.sweep, queue, self._now(), limit, *errors)
        )
        return [
            Swept(
                one["id"], rows.STATES[one["state"]], one["attempts"], one["stalls"], one["worker"],
                one["expired"],
            )
            for one in found
        ]  # fmt: skip

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool) -> list[CancelStatus]:
        (states,) = await self._healing(
            queue, lambda: self._once(self._sql.cancel, queue, self._now(), ids, running)
        )
        # One that an edit by hand has damaged is in no state, or is said to wait and is nowhere.
        return [rows.CANCELLED_STATES.get(state, CancelStatus.NOT_FOUND) for state in states or ()]

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        ids, lengths = [id for id, _ in ttls], [ttl for _, ttl in ttls]
        (text,) = await self._once(self._sql.set_ttl, queue, self._now(), ids, lengths)
        return rows.letters(text, rows.TTLS, len(ttls))

    async def revive(self, queue: str, ids: Sequence[str], delay: int, payload: bytes | None) -> list[bool]:
        (answers,) = await self._once(self._sql.revive, queue, self._now(), ids, delay, payload)
        return list(answers)

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        (answers,) = await self._once(self._sql.forget, queue, self._now(), ids)
        return list(answers)

    async def purge(self, queue: str, limit: int) -> int:
        return int(await self._value(self._sql.purge, queue, self._now(), limit, WORKER_SEEN_FOR))

    async def take_turn(self, table: str, size: int) -> str:
        """Empty the slot of a table whose turn is over; see ``take_turn`` of the schema."""
        return str(await self._value(self._sql.take_turn, table, size))

    # -- reading ----------------------------------------------------------------------------------

    async def scan(self, queue: str, state: JobState, limit: int, after: int) -> Listed:
        """List jobs of a state after a seq; fewer than ``limit`` if their bytes are many."""
        # One more than wanted: it tells whether there are more. That too goes missing if bytes are many.
        found = await self._fetch(
            self._sql.list, queue, self._now(), rows.CODES[state], after, limit + 1, BUDGET
        )
        records = [record for row in found if (record := rows.record(row[1:], listed=True)) is not None]
        return Listed(records[:limit], bool(found) and found[-1][0] > min(limit, len(found)))

    async def counts(self, queue: str) -> Counts:
        return Counts(*(await self._fetch(self._sql.counts, queue, self._now()))[0])

    async def counts_of(self, queues: Sequence[str]) -> dict[str, Counts]:
        """Count the jobs of several queues, which should be small: each waits for all."""
        found = await self._fetch(self._sql.counts_of, queues, self._now())
        return dict.fromkeys(queues, Counts()) | {name: Counts(*numbers) for name, *numbers in found}

    async def ended(self, queues: Sequence[str]) -> dict[str, int]:
        """Return how many jobs of each queue have ended, also those whose records are deleted."""
        return dict.fromkeys(queues, 0) | dict(await self._fetch(self._sql.ended, queues))

    async def queues(self) -> list[str]:
        return sorted(row[0] for row in await self._fetch(self._sql.queues))

    async def workers(self, queues: Sequence[str]) -> dict[str, list[WorkerInfo]]:
        """Return the workers of each queue, sorted."""
        workers: dict[str, list[WorkerInfo]] = {queue: [] for queue in queues}
        for queue, *worker in await self._fetch(self._sql.workers, queues, self._now(), WORKER_SEEN_FOR):
            workers[queue].append(WorkerInfo(*worker))
        return {queue: sorted(known) for queue, known in workers.items()}

    async def work_in(self, queue: str) -> int | None:
        """Return the milliseconds until something can be claimed, ``None`` if nothing waits."""
        found: int | None = await self._value(self._sql.work_in, queue, self._now())
        return found

    async def to_sweep(self, queues: Sequence[str]) -> set[str]:
        """Return the queues in which a sweep or a purge would find something."""
        return {row[0] for row in await self._fetch(self._sql.to_sweep, queues, self._now())}

    async def outcomes(self, queue: str, seqs: Sequence[int]) -> dict[int, bytes | None]:
        """Return the results and errors of ended jobs by their seq, those of a moderate size."""
        if not seqs:
            return {}
        found = await self._fetch(self._sql.outcomes, queue, seqs, _LONGEST_REPLY)
        return dict(found)

    # -- rules ------------------------------------------------------------------------------------

    async def set_rules(self, queue: str, rules: Rules | None, expected: Rules | None) -> bool:
        wanted = (expected is None, pack_rules(expected))
        # In a transaction of its own: who makes it in that below would hold up claims, and wait for them.
        await self._make(self._made, queue, self._sql.queue_number)
        return (await self._once(self._sql.set_rules, queue, self._now(), pack_rules(rules), *wanted)) == [
            True
        ]

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        found = await self._fetch(self._sql.usage, queue, self._now(), groups)
        return [Usage(*row) for row in found]

    async def get_rules(self, queue: str) -> AdmissionInfo:
        found = await self._fetch(self._sql.get_rules, queue, self._now())
        if not found:  # a queue that was never used
            return AdmissionInfo(Rules(), 0, 0, None)
        rules, *numbers = found[0]
        return AdmissionInfo(read_rules(queue, rules), *numbers)

    async def rules_of(self, queues: Sequence[str]) -> dict[str, str | None]:
        """Return the rules of queues as they are stored: one that cannot be read concerns no other."""
        return dict.fromkeys(queues) | dict(await self._fetch(self._sql.rules_of, queues))

    # -- documents --------------------------------------------------------------------------------

    async def documents_of(
        self, keys: Sequence[tuple[str, tuple[str, ...]]]
    ) -> dict[tuple[str, tuple[str, ...]], list[Document | None]]:
        """Read documents of several spaces, by space and names."""
        places = [(key, space, name) for key in keys for space, names in [key] for name in names]
        spaces, names = [space for _, space, _ in places], [name for _, _, name in places]
        found = await self._fetch(self._sql.read_documents, spaces, names)
        by_place = {place: (version, data) for place, version, data in found}
        documents: dict[tuple[str, tuple[str, ...]], list[Document | None]] = {key: [] for key in keys}
        for place, (key, _, name) in enumerate(places, start=1):
            documents[key].append(Document(name, *by_place[place]) if place in by_place else None)
        return documents

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        columns = ([c.name for c in changes], [c.expected for c in changes], [c.data for c in changes])
        (versions,) = await self._once(self._sql.write_documents, space, *columns)
        return list(versions)

    async def list_documents(self, space: str, limit: int, after: str) -> tuple[list[Document], bool]:
        """List documents after a name, and whether there are more."""
        found = await self._fetch(self._sql.list_documents, space, after, limit, MAX_DOCUMENT_PAGE)
        return [Document(*row[:3]) for row in found], bool(found) and found[-1][3]

    # -- locks and channels -------------------------------------------------------------------------

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        term: int | None = await self._value(self._sql.acquire, lock, owner, ttl, self._now())
        return term

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        return bool(await self._value(self._sql.renew, lock, owner, ttl, self._now()))

    async def lock_release(self, lock: str, owner: str) -> bool:
        return (await self._once(self._sql.release, lock, owner, self._now())) == [True]

    async def lock_holder(self, lock: str) -> LockInfo | None:
        found = await self._fetch(self._sql.holder, lock, self._now())
        return LockInfo(*found[0]) if found else None

    async def channel(self, kind: str, name: str) -> str:
        """Return the channel of messages of a kind about a name."""
        return str(await self._value(self._sql.channel, kind, name))

    async def notify(self, channel: str) -> None:
        """Send an empty notification."""
        await self._fetch("select pg_notify($1, '')", channel)


def _then(settlements: Sequence[Settlement]) -> tuple[list[Any], ...]:
    """Return the jobs that settlements insert as arrays, nothing if there are none."""
    return _then_columns(settlements) if any(settlement.then for settlement in settlements) else ()


def _then_columns(settlements: Sequence[Settlement]) -> tuple[list[Any], ...]:
    """Return the places of settlements, from 1, by the job that is to be inserted with them, and the jobs."""
    then = [(place, job) for place, one in enumerate(settlements, start=1) for job in one.then]
    return [place for place, _ in then], *rows.every_job_column([job for _, job in then])


def _token() -> int:
    """Return a name for a call that no other call has."""
    return int.from_bytes(random_secret(8), signed=True)


def _replaces(jobs: Sequence[NewJob]) -> bool:
    return any(job.conflict is not Conflict.JOIN for job in jobs)
