"""`RedisStorage`: the contract on Redis and Valkey."""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Sequence
from itertools import chain
from typing import Self, cast

from jobqueue.errors import InvalidArgumentError, StorageError
from jobqueue.forks import tell_in_child
from jobqueue.job import JobState, Settlement
from jobqueue.options import check_seconds
from jobqueue.runtime import SYSTEM_CLOCK, Clock
from jobqueue.storage import arguments
from jobqueue.storage.base import (
    CancelStatus,
    Counts,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    SettleStatus,
    Sink,
    Swept,
    UpdateTtlStatus,
    WorkerInfo,
)
from jobqueue.storage.redis import codec
from jobqueue.storage.redis.checks import Finding
from jobqueue.storage.redis.confirm import Confirm, NotConfirmedError, Reached, check_confirm
from jobqueue.storage.redis.connector import Timeouts
from jobqueue.storage.redis.doctor import Breach, check_queue, diagnose
from jobqueue.storage.redis.keys import check_prefix, queues_key
from jobqueue.storage.redis.names import readable_names
from jobqueue.storage.redis.pieces import MOST, chunks, in_pieces, settling_pieces
from jobqueue.storage.redis.session import Session, Settings
from jobqueue.storage.redis.url import parse_url

__all__ = ["RedisStorage"]

_MOST_CURSOR = 500
"""Characters of a cursor, at the most."""


class RedisStorage:
    """Keeps jobs in Redis 6.2 or later, or in Valkey.

    ``url`` is ``redis://[user:password@]host[:port][/db]``, ``rediss://`` with TLS (certificate and host
    name are verified; ``?ssl_ca_certs=``, ``ssl_certfile=`` and ``ssl_keyfile=`` name files), the same
    with ``valkey://`` and ``valkeys://``, or ``unix://[user:password@]/socket[?db=0]``. All keys begin with
    ``prefix`` or ``{prefix:``; stores with different prefixes do not see each other.

    A call that meets a fault is repeated for ``retry_for`` seconds, then raises
    `StorageUnavailableError`. A connection is given up after ``connect_timeout`` seconds, a reply after
    ``reply_timeout`` seconds of silence. ``allow_eviction=True`` accepts a server that may drop jobs when
    its memory is full. With ``confirm`` an insertion is answered only when replicas or the disk have it,
    and raises `NotConfirmedError` if they do not in time; see `Confirm`. With ``clock=`` (for tests) that
    clock decides what is due, else the server's.

    Raises `InvalidArgumentError` for a bad URL, prefix or option.
    """

    batched = True
    shared = True

    def __init__(
        self,
        url: str,
        prefix: str = "jq",
        *,
        clock: Clock = SYSTEM_CLOCK,
        allow_eviction: bool = False,
        confirm: Confirm | None = None,
        retry_for: float = 10.0,
        connect_timeout: float = 5.0,
        reply_timeout: float = 5.0,
    ) -> None:
        timeouts = Timeouts(
            check_seconds("connect_timeout", connect_timeout), check_seconds("reply_timeout", reply_timeout)
        )
        self._settings = Settings(
            parse_url(url),
            check_prefix(prefix),
            clock,
            timeouts,
            retry_for=check_seconds("retry_for", retry_for, zero=True),
            allow_eviction=allow_eviction,
            confirm=check_confirm(confirm),
        )
        self.clock = clock
        self._session: Session | None = None
        self._opened = 0
        self._in_child = False
        self._opening: asyncio.Lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"RedisStorage({str(self._settings.target)!r}, prefix={self._settings.prefix!r})"

    def _now(self) -> bytes:
        # Empty: the server's clock decides.
        return b"" if self.clock is SYSTEM_CLOCK else b"%d" % int(self.clock.time() * 1000)

    def _open_session(self) -> Session:
        if self._session is None or not self._opened:
            self._check_process()
            raise StorageError("the Redis store is not open: call open() first")
        self._session.check_loop()
        return self._session

    def _check_process(self) -> None:
        if self._in_child:
            raise StorageError(
                "this Redis store was opened before a fork: make a new RedisStorage in the child process"
            )

    def forked(self) -> None:
        """Refuse use in a forked child: the connections belong to the parent."""
        self._in_child = self._opened > 0
        self._opened = 0

    def _leave_dead_loop(self) -> None:
        """Count as closed if the event loop has ended without closing this store."""
        if self._session is not None and self._session.loop.is_closed():
            self._session, self._opened, self._opening = None, 0, asyncio.Lock()

    # -- lifecycle --------------------------------------------------------------------------------

    async def open(self) -> None:
        self._check_process()
        self._leave_dead_loop()
        async with self._opening:
            if self._session is not None:
                self._session.check_loop()
            if not self._opened:
                tell_in_child(self)
                session = Session(self._settings, self._now)
                try:
                    await session.start()
                except BaseException:
                    await session.close()
                    raise
                self._session = session
            self._opened += 1

    async def close(self) -> None:
        if self._in_child:
            return  # it has nothing of its own to close
        self._leave_dead_loop()
        async with self._opening:
            if self._session is not None:
                self._session.check_loop()
            self._opened = max(0, self._opened - 1)
            if self._opened or self._session is None:
                return
            session, self._session = self._session, None
            await session.close()

    def clone(self) -> Self:
        twin = copy.copy(self)
        twin.__dict__.update(_session=None, _opened=0, _in_child=False, _opening=asyncio.Lock())
        return twin

    # -- jobs -------------------------------------------------------------------------------------

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        arguments.check_insert(queue, jobs, reply_to, max_length)
        session = self._open_session()
        confirm = self._settings.confirm
        short: Reached | None = None
        if confirm is None and not all(job.delay for job in jobs):
            session.signal(queue).hint()

        async def send(piece: Sequence[NewJob]) -> list[Inserted | None]:
            nonlocal short
            done = await session.steps.insert(queue, piece, reply_to, max_length, confirm)
            session.names.used(queue, done.mark)
            if not done.mark:
                await session.names.added(queue)
            if confirm is not None and done.lacks(confirm):
                short = done.reached
            return done.answers

        answers = await in_pieces(jobs, [len(job.payload) for job in jobs], send)
        # Only now: the error says of all the jobs that they are stored.
        if confirm is not None and short is not None:
            raise NotConfirmedError(confirm, short)
        return await self._read_found(queue, jobs, answers, reply_to, max_length)

    async def _read_found(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        answers: Sequence[Inserted | None],
        reply_to: str | None,
        max_length: int | None,
    ) -> list[Inserted]:
        """Read the jobs that a repeated insertion had found. One that has gone since is inserted."""
        unread = [job for job, answer in zip(jobs, answers, strict=True) if answer is None]
        if not unread:
            return cast("list[Inserted]", answers)
        records = await self.get(queue, [job.id for job in unread])
        gone = [job for job, record in zip(unread, records, strict=True) if record is None]
        inserted = iter(await self.insert(queue, gone, reply_to=reply_to, max_length=max_length))
        found = iter([next(inserted) if record is None else codec.as_found(record) for record in records])
        return [next(found) if answer is None else answer for answer in answers]

    async def get(
        self, queue: str, ids: Sequence[str], *, reply_to: str | None = None, payload: bool = False
    ) -> list[Record | None]:
        arguments.check_get(queue, ids, reply_to, payload)
        steps = self._open_session().steps
        return await in_pieces(
            ids, [len(id) for id in ids], lambda some: steps.get(queue, some, reply_to, payload=payload)
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
            statuses += (await session.exchange(queue, worker, handed_in, limit=0, lease=lease)).settled
        # Claims go with the last piece and in one call: nothing can fail between them and the answer.
        rest = [settlements[at] for at in last] if before else settlements
        share = session.signal(queue).share(limit)
        answer = await session.exchange(queue, worker, rest, limit=share, lease=lease)
        settled = answer.settled
        if before:
            in_order = sorted(zip(chain(*before, last), [*statuses, *settled], strict=True))
            settled = [status for _, status in in_order]
        return Exchanged(
            settled, answer.jobs, answer.next_due, more=answer.more or len(answer.jobs) == share < limit
        )

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        arguments.check_extend(queue, worker, leases, lease)
        session = self._open_session()
        statuses: list[LeaseStatus] = []
        for piece in list(chunks(leases, [len(r.progress or b"") for r in leases])) or [()]:
            statuses += await session.steps.extend(queue, worker, piece, lease)
        return statuses

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        arguments.check_limit(queue, limit)
        session = self._open_session()
        swept: list[Swept] = []
        # Others may sweep what was found here: then there may be more.
        while expired := await session.expired(queue, limit - len(swept)):
            taken: list[Swept] = []
            while expired:
                looked, some = await session.steps.sweep(queue, expired[-MOST:])
                taken = some + taken
                del expired[-looked:]
            swept += taken
        return swept

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        arguments.check_cancel(queue, ids, running)
        steps = self._open_session().steps
        return await in_pieces(
            ids, [len(id) for id in ids], lambda some: steps.cancel(queue, some, running=running)
        )

    async def keep(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        arguments.check_keep(queue, ttls)
        steps = self._open_session().steps
        return await in_pieces(ttls, [len(id) for id, _ in ttls], lambda some: steps.keep(queue, some))

    async def purge(self, queue: str, limit: int) -> int:
        arguments.check_limit(queue, limit)
        session = self._open_session()
        dropped = 0
        while True:
            most = max(0, min(MOST, limit - dropped))
            purged = await session.steps.purge(queue, most)
            dropped += purged.dropped
            if purged.dropped < most or dropped >= limit:
                break
        for worker in purged.shared:
            session.warn_once(
                f"worker {worker!r} of queue {queue!r} is two processes at once: give each worker a name of "
                "its own, or none"
            )
        if purged.empty:
            await session.names.remove(queue)
        return dropped

    # -- reading ----------------------------------------------------------------------------------

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        arguments.check_scan(queue, state, limit, cursor)
        session = self._open_session()
        after = b"" if cursor is None else _decode_cursor(state, cursor)
        if limit <= 0:
            return Page([], None)
        records, behind = await session.steps.scan(queue, state, min(limit, MOST), after)
        return Page(records, _encode_cursor(state, behind) if behind else None)

    async def counts(self, queue: str) -> Counts:
        arguments.check_queue(queue)
        return (await self._open_session().steps.counts(queue))[0]

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues in which a sweep would find something; see `jobqueue.storage.sweeping`.

        On a cluster that takes as many calls as sweeping: all are returned.
        """
        arguments.check_queues(queues)
        session = self._open_session()
        if session.clustered:
            return list(queues)
        found: list[str] = []
        for i in range(0, len(queues), MOST):
            found += await session.steps.to_sweep(queues[i : i + MOST])
        return found

    async def ended(self, queue: str) -> int:
        """Return how many jobs have ended; see `jobqueue.storage.totals`."""
        arguments.check_queue(queue)
        return (await self._open_session().steps.counts(queue))[1]

    async def queues(self) -> list[str]:
        session = self._open_session()
        key = queues_key(self._settings.prefix)
        names = await session.transport.command(b"SMEMBERS", key, key=key)
        return readable_names(names)

    async def workers(self, queue: str) -> list[WorkerInfo]:
        arguments.check_queue(queue)
        return await self._open_session().steps.workers(queue)

    async def diagnose(self) -> list[Finding]:
        """Judge the server's version, settings and clock, the round trip and this user's rights."""
        return await diagnose(self._open_session(), self._settings)

    async def check(self, queue: str | None = None, *, repair: bool = False) -> list[Breach]:
        """Check that the records and indexes of a queue agree, while it is used; return the breaches.

        Without a name all queues are checked. The store need not be open. There is no repair:
        ``repair=True`` raises `StorageError`.
        """
        if repair:
            raise StorageError(
                "a Redis store cannot be repaired: check it without repair, then cancel the jobs that are "
                "listed, or enqueue them again with other ids"
            )
        await self.open()
        try:
            session, prefix = self._open_session(), self._settings.prefix
            names = await self.queues() if queue is None else [queue]
            return [breach for name in names for breach in await check_queue(session, prefix, name)]
        finally:
            await self.close()

    # -- hints ------------------------------------------------------------------------------------

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        arguments.check_wait_for_work(queue, worker, timeout)
        return await self._open_session().signal(queue).wait(timeout)

    async def claim_on_arrival(
        self, queue: str, worker: str, limit: int, lease: int, timeout: float
    ) -> Exchanged | None:
        arguments.check_exchange(queue, worker, (), limit, lease)
        arguments.check_wait_for_work(queue, worker, timeout)
        session = self._open_session()
        answer = await session.claim_on_arrival(queue, worker, limit, lease, timeout)
        if answer is None:
            return None
        return Exchanged(answer.settled, answer.jobs, answer.next_due, answer.more)

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        session = self._open_session()
        await session.pubsub.subscribe(session.steps.channel(queue, address), session.listener(queue, sink))

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        session = self._open_session()
        session.pubsub.unsubscribe(session.steps.channel(queue, address), session.listener(queue, sink))

    # -- locks ------------------------------------------------------------------------------------

    async def acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        arguments.check_acquire(lock, owner, ttl)
        return await self._open_session().steps.acquire(lock, owner, ttl)

    async def renew(self, lock: str, owner: str, ttl: int) -> bool:
        arguments.check_acquire(lock, owner, ttl)
        return await self._open_session().steps.renew(lock, owner, ttl)

    async def release(self, lock: str, owner: str) -> bool:
        arguments.check_owner(lock, owner)
        return await self._open_session().steps.release(lock, owner)

    async def holder(self, lock: str) -> LockInfo | None:
        arguments.check_lock(lock)
        return await self._open_session().steps.holder(lock)

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        arguments.check_wait_for_lock(lock, timeout)
        return await self._open_session().locks.wait(lock, timeout)


def _cursor_mark(state: JobState) -> bytes:
    return b"jq1" + codec.LETTERS[state]


def _encode_cursor(state: JobState, cursor: bytes) -> str:
    return base64.urlsafe_b64encode(_cursor_mark(state) + cursor).decode()


def _decode_cursor(state: JobState, cursor: str) -> bytes:
    try:
        after = base64.b64decode(cursor[:_MOST_CURSOR].encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        after = b""
    mark = _cursor_mark(state)
    if len(cursor) > _MOST_CURSOR or not after.startswith(mark) or len(after) < len(mark) + 7:
        raise InvalidArgumentError("cursor", f"was not made by this store for {state} jobs")
    return after.removeprefix(mark)
