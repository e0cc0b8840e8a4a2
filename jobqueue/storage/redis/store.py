"""`RedisStorage`: the contract on Redis and Valkey.

It is long because it has one method for every call of the contract; each is a few lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from jobqueue.errors import InvalidArgumentError, NotConfirmedError, Reached, StorageError
from jobqueue.model.checks import check_seconds
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.storage import arguments
from jobqueue.storage.contract import Sink
from jobqueue.storage.findings import Finding
from jobqueue.storage.found import read_found, without_repeats
from jobqueue.storage.opening import LoopBoundStorage
from jobqueue.storage.pieces import MOST, chunks, in_pieces, job_sizes, settling_pieces
from jobqueue.storage.redis import codec
from jobqueue.storage.redis.cursors import DOCUMENTS, decode_cursor, encode_cursor
from jobqueue.storage.redis.doctor import Breach, check_queue, diagnose
from jobqueue.storage.redis.keys import check_prefix, queues_key
from jobqueue.storage.redis.names import readable_names
from jobqueue.storage.redis.net.confirm import Confirm, check_confirm
from jobqueue.storage.redis.net.login import Timeouts
from jobqueue.storage.redis.net.notices import warn_once
from jobqueue.storage.redis.net.target import Target
from jobqueue.storage.redis.net.url import parse_url
from jobqueue.storage.redis.open_store import OpenStore, Settings
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

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster
    from redis.credentials import CredentialProvider

__all__ = ["RedisStorage"]

_TIMEOUT = 5.0


class RedisStorage(LoopBoundStorage[OpenStore]):
    """Keeps jobs in Redis 6.2 or later, or in Valkey.

    ``url`` is ``redis://[user:password@]host[:port][/db]``, ``rediss://`` with TLS (certificate and host
    name are verified; the ``ssl_...`` options of redis-py name files and more), the same with ``valkey://``
    and ``valkeys://``, or ``unix://[user:password@]/socket[?db=0]``. A ``credential_provider`` of redis-py
    is asked for the user and password of each new connection. Instead of a URL, ``client`` is a
    ``redis.asyncio.Redis``, also one of ``Sentinel.master_for``, or a ``RedisCluster``: its configuration
    is used for connections of the store; the client itself is neither used nor closed.

    All keys begin with ``prefix`` or ``{prefix:``; stores with different prefixes do not see each other.
    A call that meets a fault is repeated for ``retry_for`` seconds, then raises
    `StorageUnavailableError`. A connection is given up after ``connect_timeout`` seconds, a reply after
    ``reply_timeout`` seconds of silence (default of both: what the URL or the client says, else 5).
    ``allow_eviction=True`` accepts a server that may drop jobs when its memory is full. With ``confirm`` an
    insertion is answered only when replicas or the disk have it, and raises `NotConfirmedError` if they do
    not in time; see `Confirm`. With ``clock=`` (for tests) that clock decides what is due, else the server's.

    Raises `InvalidArgumentError` for a bad URL, client, prefix or option.
    """

    _kind = "Redis"
    batched = True
    overlaps_calls = True
    shared = True

    def __init__(
        self,
        url: str | None = None,
        prefix: str = "jq",
        *,
        client: Redis | RedisCluster | None = None,
        credential_provider: CredentialProvider | None = None,
        clock: Clock = SYSTEM_CLOCK,
        allow_eviction: bool = False,
        confirm: Confirm | None = None,
        retry_for: float = 10.0,
        connect_timeout: float | None = None,
        reply_timeout: float | None = None,
    ) -> None:
        target = _target(url, client, credential_provider)
        timeouts = Timeouts(
            _seconds("connect_timeout", connect_timeout, target.connect_timeout),
            _seconds("reply_timeout", reply_timeout, target.reply_timeout),
        )
        self._settings = Settings(
            target,
            check_prefix(prefix),
            clock,
            timeouts,
            retry_for=check_seconds("retry_for", retry_for, zero=True),
            allow_eviction=allow_eviction,
            confirm=check_confirm(confirm),
        )
        self.clock = clock
        super().__init__()

    def __repr__(self) -> str:
        return f"RedisStorage({str(self._settings.target)!r}, prefix={self._settings.prefix!r})"

    def _now(self) -> bytes:
        # Empty: the server's clock decides.
        return b"" if self.clock is SYSTEM_CLOCK else b"%d" % int(self.clock.time() * 1000)

    def _make_session(self) -> OpenStore:
        target = self._settings.target
        if target.weakness:
            warn_once(f"{target}: {target.weakness}")
        return OpenStore(self._settings, self._now)

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

        async def send(piece: Sequence[NewJob]) -> list[Inserted]:
            nonlocal short
            piece = without_repeats(piece, replaces_once=True)
            done = await session.steps.insert(queue, piece, reply_to, max_length, confirm)
            session.names.used(queue, done.mark)
            if not done.mark:
                await session.names.added(queue)
            if confirm is not None and done.lacks(confirm):
                short = done.reached
            # Before the next piece, which may replace one of them. What is gone is inserted here as well: to
            # call this method again would raise before the others are stored.
            return await read_found(
                piece[: len(done.answers)], done.answers, partial(self.get, queue), insert
            )

        async def insert(some: Sequence[NewJob]) -> list[Inserted]:
            return await in_pieces(some, job_sizes(some), send)

        answers = await (send(jobs) if len(jobs) == 1 else insert(jobs))
        # Only now: the error says of all the jobs that they are stored.
        if confirm is not None and short is not None:
            raise NotConfirmedError(confirm, short)
        return answers

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
        steps = self._open_session().steps
        return await in_pieces(
            ids,
            [len(id) for id in ids],
            lambda some: steps.get(queue, some, reply_to, payload=payload, letters=letters),
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
            settled, answer.jobs, answer.next_due, more=answer.more or len(answer.jobs) == share < limit,
            paused=answer.paused, expired=answer.expired,
        )  # fmt: skip

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        arguments.check_extend(queue, worker, leases, lease)
        session = self._open_session()
        statuses: list[LeaseStatus] = []
        for piece in list(chunks(leases, [len(r.progress or b"") + len(r.saved or b"") for r in leases])) or [
            ()
        ]:
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
        while len(swept) < limit:
            late = await session.steps.expire(queue, min(MOST, limit - len(swept)))
            if not late:
                break
            swept += late
        return swept

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        arguments.check_cancel(queue, ids, running)
        steps = self._open_session().steps
        return await in_pieces(
            ids, [len(id) for id in ids], lambda some: steps.cancel(queue, some, running=running)
        )

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        arguments.check_keep(queue, ttls)
        steps = self._open_session().steps
        return await in_pieces(ttls, [len(id) for id, _ in ttls], lambda some: steps.set_ttl(queue, some))

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Make failed jobs run again; see `jobqueue.storage.capabilities`."""
        arguments.check_revive(queue, ids, delay, payload)
        steps = self._open_session().steps
        return await in_pieces(
            ids, [len(id) for id in ids], lambda some: steps.revive(queue, some, delay, payload)
        )

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete ended and waiting jobs; see `jobqueue.storage.capabilities`."""
        arguments.check_forget(queue, ids)
        steps = self._open_session().steps
        return await in_pieces(ids, [len(id) for id in ids], lambda some: steps.forget(queue, some))

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
        after = b"" if cursor is None else decode_cursor(codec.LETTERS[state], cursor, f"{state} jobs", low=7)
        if limit <= 0:
            return Page([], None)
        records, behind = await session.steps.scan(queue, state, min(limit, MOST), after)
        return Page(records, encode_cursor(codec.LETTERS[state], behind) if behind else None)

    async def counts(self, queue: str) -> Counts:
        arguments.check_queue(queue)
        return (await self._open_session().steps.counts(queue))[0]

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues in which a sweep would find something; see `jobqueue.storage.capabilities`.

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
        """Return how many jobs have ended; see `jobqueue.storage.capabilities`."""
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

    # -- rules ------------------------------------------------------------------------------------

    async def set_rules(self, queue: str, rules: Rules | None, *, expected: Rules | None = None) -> bool:
        """Replace the rules of a queue; see `jobqueue.storage.capabilities`."""
        arguments.check_set_rules(queue, rules, expected)
        return await self._open_session().steps.set_rules(queue, rules, expected)

    async def get_rules(self, queue: str, *, counted: bool = True) -> AdmissionInfo:
        """Return the rules of a queue; see `jobqueue.storage.capabilities`."""
        arguments.check_queue(queue)
        del counted  # it costs nothing here
        return await self._open_session().steps.get_rules(queue)

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where groups stand; see `jobqueue.storage.capabilities.Limiting`."""
        arguments.check_usage(queue, groups)
        steps = self._open_session().steps
        return await in_pieces(groups, [len(name) for name in groups], lambda some: steps.usage(queue, some))

    # -- documents --------------------------------------------------------------------------------

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read documents; see `jobqueue.storage.capabilities`."""
        arguments.check_read_documents(space, names)
        steps = self._open_session().steps
        return await in_pieces(
            names, [len(name) for name in names], lambda some: steps.read_documents(space, some)
        )

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        """Write and delete documents in one step; see `jobqueue.storage.capabilities`."""
        arguments.check_write_documents(space, changes)
        steps = self._open_session().steps
        return await steps.write_documents(space, changes) if changes else []

    async def list_documents(self, space: str, limit: int, cursor: str | None = None) -> DocumentPage:
        """List documents by name; see `jobqueue.storage.capabilities`."""
        arguments.check_list_documents(space, limit, cursor)
        steps = self._open_session().steps
        after = b"" if cursor is None else decode_cursor(DOCUMENTS, cursor, "documents", low=1)
        if limit <= 0:
            return DocumentPage([], None)
        documents, more = await steps.list_documents(space, min(limit, MOST), after)
        last = codec.id_bytes(documents[-1].name) if more and documents else None
        return DocumentPage(documents, None if last is None else encode_cursor(DOCUMENTS, last))

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
        return Exchanged(
            answer.settled, answer.jobs, answer.next_due, answer.more, answer.paused, answer.expired
        )

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        session = self._open_session()
        await session.pubsub.subscribe(session.steps.channel(queue, address), session.listener(queue, sink))

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        session = self._open_session()
        session.pubsub.unsubscribe(session.steps.channel(queue, address), session.listener(queue, sink))

    # -- locks ------------------------------------------------------------------------------------

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        arguments.check_acquire(lock, owner, ttl)
        return await self._open_session().steps.lock_acquire(lock, owner, ttl)

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        arguments.check_acquire(lock, owner, ttl)
        return await self._open_session().steps.lock_renew(lock, owner, ttl)

    async def lock_release(self, lock: str, owner: str) -> bool:
        arguments.check_owner(lock, owner)
        return await self._open_session().steps.lock_release(lock, owner)

    async def lock_holder(self, lock: str) -> LockInfo | None:
        arguments.check_lock(lock)
        return await self._open_session().steps.lock_holder(lock)

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        arguments.check_wait_for_lock(lock, timeout)
        return await self._open_session().locks.wait(lock, timeout)


def _target(
    url: str | None, client: Redis | RedisCluster | None, provider: CredentialProvider | None
) -> Target:
    """Return the target to connect to, from the URL or from the user's client."""
    if provider is not None and not callable(getattr(provider, "get_credentials", None)):
        kind = type(provider).__name__
        raise InvalidArgumentError(
            "credential_provider", f"must be a CredentialProvider of redis-py, not {kind}"
        )
    if client is None:
        if url is None:
            raise InvalidArgumentError("url", "is missing: give a url or a client")
        return parse_url(url, provider)
    if url is not None:
        raise InvalidArgumentError("client", "is given, and a url too: give one of them")
    if provider is not None:
        raise InvalidArgumentError("credential_provider", "belongs to a url: give it to the client instead")
    from jobqueue.storage.redis.net.redis_py import target_of  # noqa: PLC0415 - loaded when it is used

    return target_of(client)


def _seconds(argument: str, value: float | None, configured: float | None) -> float:
    if value is None:
        return _TIMEOUT if configured is None else configured
    return check_seconds(argument, value)
