"""`PostgresStorage`: the contract on PostgreSQL.

It is long because it has one method for every call of the contract; each is a few lines.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain
from typing import cast

from jobqueue.errors import InvalidArgumentError, StorageError
from jobqueue.model.checks import check_count, check_id, check_seconds
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.storage import arguments
from jobqueue.storage.contract import Sink
from jobqueue.storage.findings import Finding
from jobqueue.storage.found import read_found, without_repeats
from jobqueue.storage.held_ids import insert_patiently
from jobqueue.storage.opening import LoopBoundStorage
from jobqueue.storage.pieces import chunks, in_pieces, settling_pieces
from jobqueue.storage.postgres import migrations
from jobqueue.storage.postgres.doctor import diagnose, find_breaches, hindrances
from jobqueue.storage.postgres.held_ids import HELD, Answer
from jobqueue.storage.postgres.inside import Fetch, Inside, fetch_in
from jobqueue.storage.postgres.open_store import OpenStore, Settings
from jobqueue.storage.postgres.pool import Pool
from jobqueue.storage.postgres.rows import CODES
from jobqueue.storage.postgres.run_transaction import RunTransaction
from jobqueue.storage.postgres.target import Connection, Timeouts, check_schema, parse_dsn
from jobqueue.storage.values import (
    AdmissionInfo,
    CancelStatus,
    Change,
    Counts,
    Document,
    DocumentPage,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    Rules,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
    Usage,
    WorkerInfo,
)

__all__ = ["PostgresStorage"]

_CURSOR = re.compile(r"pg1-([1-7])-([0-9]{1,18})")
_MOST_LISTED = 1_000


class PostgresStorage(LoopBoundStorage[OpenStore]):
    """Keeps jobs in PostgreSQL 14 or later.

    ``dsn`` is ``postgresql://user:password@host:port/database``, with ``?sslmode=`` and the like;
    what is left out comes from the environment. All tables are in ``schema``, or in that of ``?schema=``; it
    must have been made by ``jobqueue schema apply`` or `apply_schema`. At most ``pool_size`` connections are
    open, and one more that listens for notifications. Behind a pooler such as PgBouncer notifications are not
    heard; work and results are then looked for every second.

    A call that meets a fault is repeated for ``retry_for`` seconds, then raises `StorageUnavailableError`.
    Connecting is given up after ``connect_timeout`` seconds, a statement after ``statement_timeout``, waiting
    for a row that another transaction holds after ``lock_timeout``. With ``clock=`` (for tests) that clock
    decides what is due, else the server's.

    Raises `InvalidArgumentError` for a bad DSN, schema or option.
    """

    _kind = "PostgreSQL"
    batched = True
    shared = True

    def __init__(
        self,
        dsn: str,
        schema: str = "jobqueue",
        pool_size: int = 10,
        *,
        clock: Clock = SYSTEM_CLOCK,
        retry_for: float = 10.0,
        connect_timeout: float = 5.0,
        statement_timeout: float = 10.0,
        lock_timeout: float = 5.0,
    ) -> None:
        target, named = parse_dsn(dsn)
        self._settings = Settings(
            target,
            check_schema(schema if named is None else named),
            clock,
            Timeouts(
                check_seconds("connect_timeout", connect_timeout),
                check_seconds("statement_timeout", statement_timeout),
                check_seconds("lock_timeout", lock_timeout),
            ),
            check_count("pool_size", pool_size),
            check_seconds("retry_for", retry_for, zero=True),
        )
        self.clock = clock
        super().__init__()

    def __repr__(self) -> str:
        return f"PostgresStorage({str(self._settings.target)!r}, schema={self._settings.schema!r})"

    def _make_session(self) -> OpenStore:
        return OpenStore(self._settings)

    # -- the schema, and the checks of an operator ------------------------------------------------

    async def apply_schema(self) -> tuple[int, int]:
        """Make the tables and functions, or bring them to this release; return the versions before and after.

        Safe to call again, and from several processes at once. Needs a user that may create tables; the store
        need not be open. Raises `StorageError`, also if the database has the schema of a newer release.
        """

        async def apply(connection: Connection, _repeated: bool) -> tuple[int, int]:  # noqa: FBT001
            return await migrations.apply(connection, self._settings.schema)

        settings = self._settings
        pool = Pool(settings.target, settings.timeouts, 1, settings.retry_for)
        try:
            return await pool.run(apply)
        finally:
            await pool.close()

    def schema_script(self) -> str:
        """Return the SQL that makes the schema, for those who let nobody but themselves create tables."""
        return migrations.script(self._settings.schema)

    async def check_schema(self) -> int:
        """Return the version of the schema; raise `StorageError` unless it is that of this release."""
        await self.open()
        await self.close()
        return migrations.latest()

    async def diagnose(self) -> list[Finding]:
        """Judge the server, the schema, the rights of this user, notifications and open transactions."""
        return await diagnose(self._open_session(), self._settings.schema)

    async def hindrances(self) -> list[Finding]:
        """Tell of transactions that have been open for long; see `jobqueue.storage.capabilities`."""
        return await hindrances(self._open_session())

    async def check(self, *, repair: bool = False) -> list[Finding]:
        """Check that every job is in one place, while the store is used; return the breaches.

        The store need not be open. There is no repair: ``repair=True`` raises `StorageError`.
        """
        if repair:
            raise StorageError(
                "a PostgreSQL store cannot be repaired: check it without repair, and delete the jobs listed"
            )

        async def look(connection: Connection, _repeated: bool) -> list[Finding]:  # noqa: FBT001
            return await find_breaches(connection, self._settings.schema)

        await self.open()
        try:
            session = self._open_session()
            return await session.call(session.pool.run(look))
        finally:
            await self.close()

    # -- jobs -------------------------------------------------------------------------------------

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        insert = partial(self.insert_free, queue, reply_to=reply_to, max_length=max_length)
        return await insert_patiently(jobs, insert, self.held_for)

    @property
    def held_for(self) -> float:
        """Seconds that an insertion waits for an id; see `jobqueue.storage.capabilities`."""
        return self._settings.timeouts.lock

    async def insert_free(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted | None]:
        """Insert the jobs whose ids nobody holds; see `jobqueue.storage.capabilities`."""
        arguments.check_insert(queue, jobs, reply_to, max_length)
        session = self._open_session()
        if not jobs:
            return []

        again = partial(self.insert, queue, reply_to=reply_to, max_length=max_length)

        async def send(piece: Sequence[NewJob]) -> list[Inserted | None]:
            piece = without_repeats(piece)
            answers = await session.call(session.statements.insert(queue, piece, reply_to, max_length))
            return await self._read_found(queue, piece, answers, again)

        answers = await in_pieces(jobs, [len(job.payload) for job in jobs], send)
        session.hint(queue)
        return answers

    async def _read_found(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        answers: Sequence[Answer],
        again: Callable[[Sequence[NewJob]], Awaitable[Sequence[Inserted]]],
    ) -> list[Inserted | None]:
        """Read the jobs that were found and are not in their answers; ``None`` for those that are held."""
        get = partial(self.get, queue)
        if HELD not in answers:
            return [*await read_found(jobs, cast("Sequence[Inserted | None]", answers), get, again)]
        free = [at for at, answer in enumerate(answers) if answer is not HELD]
        found = [answer for answer in answers if answer is not HELD]
        read = iter(await read_found([jobs[at] for at in free], found, get, again))
        return [None if answer is HELD else next(read) for answer in answers]

    def inside(self, connection: object) -> Inside:
        """Return what inserts jobs in a transaction of the caller; see `jobqueue.storage.capabilities`."""
        return Inside(fetch_in(connection), self._insert_inside)

    async def begin(self) -> RunTransaction:
        """Open a transaction for a run; see `jobqueue.storage.capabilities`."""
        return await RunTransaction.begin(self._open_session())

    async def _insert_inside(
        self, fetch: Fetch, queue: str, jobs: Sequence[NewJob], max_length: int | None
    ) -> list[Inserted]:
        session = self._open_session()
        again = partial(self._insert_inside, fetch, queue, max_length=max_length)

        async def send(piece: Sequence[NewJob]) -> list[Inserted | None]:
            piece = without_repeats(piece)
            answers = await session.statements.insert_inside(fetch, queue, piece, max_length)
            return await self._read_found(queue, piece, answers, again)

        async def insert_free(some: Sequence[NewJob]) -> list[Inserted | None]:
            return await in_pieces(some, [len(job.payload) for job in some], send)

        return await insert_patiently(jobs, insert_free, self.held_for)

    async def get(
        self,
        queue: str,
        ids: Sequence[str],
        *,
        reply_to: str | None = None,
        payload: bool = False,
        letters: bool = False,
    ) -> list[Record | None]:
        arguments.check_get(queue, ids, reply_to, payload=payload, letters=letters)
        session = self._open_session()
        return await in_pieces(
            ids,
            [len(id) for id in ids],
            lambda some: session.call(
                session.statements.get(queue, some, reply_to, payload=payload, letters=letters)
            ),
        )

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        arguments.check_exchange(queue, worker, settlements, limit, lease)
        session = self._open_session()
        *before, last = settling_pieces(settlements) or [[]]
        statuses: list[SettleStatus] = []
        for piece in before:
            handed_in = [settlements[at] for at in piece]
            statuses += (await session.exchange(queue, worker, handed_in, 0, lease)).settled
        # Claims go with the last piece and in one call: nothing can fail between them and the answer.
        rest = [settlements[at] for at in last] if before else settlements
        answer = await session.exchange(queue, worker, rest, limit, lease)
        if not before:
            return answer
        together = sorted(zip(chain(*before, last), [*statuses, *answer.settled], strict=True))
        return answer._replace(settled=[status for _, status in together])

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        arguments.check_extend(queue, worker, leases, lease)
        session = self._open_session()
        statuses: list[LeaseStatus] = []
        for piece in list(chunks(leases, [len(r.progress or b"") + len(r.saved or b"") for r in leases])) or [
            ()
        ]:
            statuses += await session.call(session.statements.extend(queue, worker, piece, lease))
        return statuses

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        arguments.check_limit(queue, limit)
        session = self._open_session()
        return await session.call(session.statements.sweep(queue, limit))

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        arguments.check_cancel(queue, ids, running)
        session = self._open_session()
        return await in_pieces(
            ids,
            [len(id) for id in ids],
            lambda some: session.call(session.statements.cancel(queue, some, running=running)),
        )

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        arguments.check_keep(queue, ttls)
        session = self._open_session()
        return await in_pieces(
            ttls,
            [len(id) for id, _ in ttls],
            lambda some: session.call(session.statements.set_ttl(queue, some)),
        )

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Make failed jobs run again; see `jobqueue.storage.capabilities`."""
        arguments.check_revive(queue, ids, delay, payload)
        session = self._open_session()
        return await in_pieces(
            ids,
            [len(id) for id in ids],
            lambda some: session.call(session.statements.revive(queue, some, delay, payload)),
        )

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete ended and waiting jobs; see `jobqueue.storage.capabilities`."""
        arguments.check_forget(queue, ids)
        session = self._open_session()
        return await in_pieces(
            ids, [len(id) for id in ids], lambda some: session.call(session.statements.forget(queue, some))
        )

    async def purge(self, queue: str, limit: int) -> int:
        arguments.check_limit(queue, limit)
        session = self._open_session()
        return await session.call(session.statements.purge(queue, limit))

    # -- reading ----------------------------------------------------------------------------------

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        arguments.check_scan(queue, state, limit, cursor)
        session = self._open_session()
        after = 0 if cursor is None else _read_cursor(state, cursor)
        if limit <= 0:
            return Page([], None)
        most = min(limit, _MOST_LISTED)
        page = await session.call(session.statements.scan(queue, state, most, after))
        return Page(page.records, f"pg1-{CODES[state]}-{page.records[-1].seq}" if page.more else None)

    async def counts(self, queue: str) -> Counts:
        arguments.check_queue(queue)
        session = self._open_session()
        return await session.call(session.looks.counts(queue))

    async def ended(self, queue: str) -> int:
        """Return how many jobs have ended; see `jobqueue.storage.capabilities`."""
        arguments.check_queue(queue)
        session = self._open_session()
        return await session.call(session.looks.ended(queue))

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues in which a sweep would find something; see `jobqueue.storage.capabilities`."""
        arguments.check_queues(queues)
        session = self._open_session()
        found = await session.call(session.statements.to_sweep(queues))
        return [queue for queue in queues if queue in found]

    async def queues(self) -> list[str]:
        session = self._open_session()
        return await session.call(session.statements.queues())

    async def workers(self, queue: str) -> list[WorkerInfo]:
        arguments.check_queue(queue)
        session = self._open_session()
        return await session.call(session.looks.workers(queue))

    # -- hints ------------------------------------------------------------------------------------

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        arguments.check_wait_for_work(queue, worker, timeout)
        return await self._open_session().work(queue).wait(timeout)

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        await self._open_session().subscribe(queue, address, sink)

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        await self._open_session().unsubscribe(queue, address, sink)

    # -- rules ------------------------------------------------------------------------------------

    async def set_rules(self, queue: str, rules: Rules | None, *, expected: Rules | None = None) -> bool:
        """Replace the rules of a queue; see `jobqueue.storage.capabilities`."""
        arguments.check_set_rules(queue, rules, expected)
        session = self._open_session()
        return await session.call(session.statements.set_rules(queue, rules, expected))

    async def get_rules(self, queue: str, *, counted: bool = True) -> AdmissionInfo:
        """Return the rules of a queue; see `jobqueue.storage.capabilities`."""
        arguments.check_queue(queue)
        session = self._open_session()
        if not counted:
            return AdmissionInfo(await session.call(session.looks.rules(queue)), 0, 0, None)
        return await session.call(session.statements.get_rules(queue))

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where groups stand; see `jobqueue.storage.capabilities.Limiting`."""
        arguments.check_usage(queue, groups)
        session = self._open_session()
        return await session.call(session.statements.usage(queue, groups))

    # -- documents --------------------------------------------------------------------------------

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read small named values; see `jobqueue.storage.capabilities`."""
        arguments.check_read_documents(space, names)
        session = self._open_session()
        return await session.call(session.looks.documents(space, names))

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        """Compare and set small named values; see `jobqueue.storage.capabilities`."""
        arguments.check_write_documents(space, changes)
        session = self._open_session()
        return await session.call(session.statements.write_documents(space, changes)) if changes else []

    async def list_documents(self, space: str, limit: int, cursor: str | None = None) -> DocumentPage:
        """List small named values by name; see `jobqueue.storage.capabilities`."""
        arguments.check_list_documents(space, limit, cursor)
        session = self._open_session()
        after = "" if cursor is None else _read_name(cursor)
        if limit <= 0:
            return DocumentPage([], None)
        most = min(limit, _MOST_LISTED)
        found, more = await session.call(session.statements.list_documents(space, most, after))
        return DocumentPage(found, f">{found[-1].name}" if more else None)

    # -- locks ------------------------------------------------------------------------------------

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        arguments.check_acquire(lock, owner, ttl)
        session = self._open_session()
        return await session.call(session.statements.lock_acquire(lock, owner, ttl))

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        arguments.check_acquire(lock, owner, ttl)
        session = self._open_session()
        return await session.call(session.statements.lock_renew(lock, owner, ttl))

    async def lock_release(self, lock: str, owner: str) -> bool:
        arguments.check_owner(lock, owner)
        session = self._open_session()
        return await session.call(session.statements.lock_release(lock, owner))

    async def lock_holder(self, lock: str) -> LockInfo | None:
        arguments.check_lock(lock)
        session = self._open_session()
        return await session.call(session.statements.lock_holder(lock))

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        arguments.check_wait_for_lock(lock, timeout)
        return await self._open_session().lock(lock).wait(timeout, surely=True)


def _read_name(cursor: str) -> str:
    """Return the name that a cursor of `PostgresStorage.list_documents` stands for."""
    try:
        if cursor.startswith(">"):
            return check_id(cursor[1:], "cursor")
    except InvalidArgumentError:
        pass
    raise InvalidArgumentError("cursor", "was not made by this store")


def _read_cursor(state: JobState, cursor: str) -> int:
    found = _CURSOR.fullmatch(cursor[:100])
    if found is None or len(cursor) > 100 or int(found[1]) != CODES[state]:
        raise InvalidArgumentError("cursor", f"was not made by this store for {state} jobs")
    return int(found[2])
