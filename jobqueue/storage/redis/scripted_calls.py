"""One typed function per Lua script: encode the arguments, call, decode the answer. Nothing else.

It is long because there are that many scripts; each function is a few lines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from jobqueue.errors import Reached, StorageError
from jobqueue.model.outcomes import STALLED_ERROR, Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.redis import codec
from jobqueue.storage.redis.callers import Call, Callers
from jobqueue.storage.redis.keys import (
    QueueKeys,
    channel_base,
    document_keys,
    lock_channel,
    lock_key,
    mailbox,
    queue_keys,
    resumed_channel,
)
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.net.connection import Argument, ReplyError
from jobqueue.storage.redis.net.faults import ConnectionLostError
from jobqueue.storage.redis.net.scripts import Script, script
from jobqueue.storage.redis.net.transport import Transport
from jobqueue.storage.redis.pushes import CancelRequest
from jobqueue.storage.rules import pack_rules, read_rules
from jobqueue.storage.values import (
    WORKER_SEEN_FOR,
    AdmissionInfo,
    CancelStatus,
    Change,
    Claimed,
    Counts,
    Document,
    Inserted,
    InsertStatus,
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

__all__ = ["Purged", "ScriptExchanged", "ScriptInserted", "ScriptedCalls"]

_SETTLED = {"A": SettleStatus.ACCEPTED, "X": SettleStatus.CANCELLED, "L": SettleStatus.LOST}
_LEASES = {"H": LeaseStatus.HELD, "C": LeaseStatus.CANCELLING, "L": LeaseStatus.LOST}
_CANCELS = {
    "X": CancelStatus.CANCELLED,
    "N": CancelStatus.NOT_FOUND,
    "P": CancelStatus.PROCESSING,
    "A": CancelStatus.CANCELLING,
    "C": CancelStatus.COMPLETED,
    "F": CancelStatus.FAILED,
}
_TTLS = {
    "U": UpdateTtlStatus.UPDATED,
    "N": UpdateTtlStatus.NOT_FOUND,
    "L": UpdateTtlStatus.NOT_TERMINAL,
}
_SWEPT = {b"Q": JobState.QUEUED, b"F": JobState.FAILED, b"X": JobState.CANCELLED}


class ScriptInserted(NamedTuple):
    """The answer of one insert script."""

    mark: bytes
    """What the queue knows of its name in the set of queues; see `QueueNames.used`."""
    answers: list[Inserted | None]
    """Answers for the first jobs, one at least; ``None`` for a job that was found and has to be read."""
    reached: Reached | None
    """The confirmation reached, if one was asked for."""

    def lacks(self, confirm: Confirm) -> bool:
        """Return whether a stored job lacks the confirmation asked for."""
        stored = any(a is None or a.status is not InsertStatus.FULL for a in self.answers)
        return stored and self.reached is not None and not self.reached.suffices(confirm)


class ScriptExchanged(NamedTuple):
    """The answer of one exchange script."""

    mark: bytes
    settled: list[SettleStatus]
    next_due: int | None
    more: bool
    paused: bool
    held: bool
    """Jobs are ready, and the limit of the queue keeps them back."""
    jobs: list[Claimed]
    expired: tuple[str, ...]


class Purged(NamedTuple):
    """The answer of one purge script."""

    dropped: int
    empty: bool
    """Whether the queue holds nothing any more."""
    shared: list[str]
    """Names of workers that two processes use at once."""


class ScriptedCalls:
    """The scripts, for one prefix."""

    def __init__(
        self, transport: Transport, prefix: str, now: Callable[[], bytes], secret: bytes = b""
    ) -> None:
        self._transport = transport
        self._prefix = prefix
        self._now = now
        self._secret = secret
        self._channel = channel_base(prefix)
        self._callers = Callers()
        self.sharded = False
        """True if messages go to shard channels."""
        self._keys: dict[str, QueueKeys] = {}
        self._scripts: dict[tuple[str, str], tuple[Script, list[bytes]]] = {}

    def keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue, built once."""
        keys = self._keys.get(queue)
        if keys is None:
            if len(self._keys) >= 1000:  # a cache, not a registry
                self._keys.clear()
                self._scripts.clear()
            keys = self._keys[queue] = queue_keys(self._prefix, queue)
        return keys

    def channel_base(self, queue: str) -> bytes:
        """Return the prefix of a mailbox in the name of its channel."""
        return channel_base(self._prefix, queue) if self.sharded else self._channel

    def channel(self, queue: str, address: str) -> bytes:
        """Return the channel of the messages for an address about jobs of a queue."""
        return self.channel_base(queue) + mailbox(address)

    def _waiter(self, reply_to: str | None) -> bytes:
        """Return the entry of a waiter in a record: its mailbox, and its secret."""
        return b"" if reply_to is None else mailbox(reply_to) + self._secret

    def lock_channel(self, lock: str) -> bytes:
        """Return the channel on which the release of a lock is announced."""
        return lock_channel(self._prefix, lock, sharded=self.sharded)

    def resumed_channel(self, queue: str) -> bytes:
        """Return the channel on which it is announced that more of a queue may be claimed."""
        return resumed_channel(self._prefix, queue, sharded=self.sharded)

    async def _call(self, name: str, queue: str, *args: bytes, confirm: Confirm | None = None) -> Any:
        code, named = self._script(name, queue)
        return await self._transport.call(code, named, (self._now(), *args), confirm)

    def _script(self, name: str, queue: str) -> tuple[Script, list[bytes]]:
        """Return a script and its keys, put together once for each queue."""
        known = self._scripts.get((name, queue))
        if known is None:
            code, keys = script(name), self.keys(queue)
            known = self._scripts[name, queue] = code, [getattr(keys, key) for key in code.keys]
        return known

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        reply_to: str | None,
        max_length: int | None,
        confirm: Confirm | None = None,
    ) -> ScriptInserted:
        with self._callers.call(queue) as call:
            reply = await self._call(
                "insert",
                queue,
                call.caller,
                call.number,
                self._waiter(reply_to),
                b"" if max_length is None else b"%d" % max_length,
                b"" if confirm is None else b"1",
                *codec.insert_args(jobs),
                confirm=confirm,
            )
        reached = None
        if confirm is not None:
            reply, waited = reply
            reached = confirm.read(waited)
        return ScriptInserted(reply[0], codec.inserted(reply), reached)

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> ScriptExchanged:
        with self._callers.call(queue, worker) as call:
            args = self._exchange_args(call, queue, worker, settlements, limit, lease)
            return _exchanged(await self._call("exchange", queue, *args))

    async def claim_later(
        self,
        queue: str,
        worker: str,
        limit: int,
        lease: int,
        send: Callable[[Sequence[Argument]], Awaitable[Any]],
    ) -> ScriptExchanged | None:
        """Claim jobs by a script that ``send`` sends when there are some; ``None``: it did not."""
        with self._callers.call(queue, worker) as call:
            args = self._exchange_args(call, queue, worker, (), limit, lease)
            code, named = self._script("exchange", queue)
            sha = code.sha if self._transport.flags else code.plain_sha
            try:
                reply = await send([b"EVALSHA", sha, len(named), *named, self._now(), *args])
            except (ConnectionLostError, ReplyError):
                # Sent again under its number: what it has claimed, if it was carried out, is the answer.
                reply = await self._call("exchange", queue, *args)
        return None if reply is None else _exchanged(reply)

    def _exchange_args(
        self,
        call: Call,
        queue: str,
        worker: str,
        settlements: Sequence[Settlement],
        limit: int,
        lease: int,
    ) -> tuple[bytes, ...]:
        return (
            *call,
            worker.encode(),
            b"%d" % limit,
            b"%d" % lease,
            self.channel_base(queue),
            queue.encode(),
            *codec.settlement_args(settlements),
        )

    async def get(
        self, queue: str, ids: Sequence[str], reply_to: str | None, *, payload: bool, letters: bool = False
    ) -> list[Record | None]:
        """Read the first of these jobs, one at least."""
        flags = (b"1" if payload else b"0", b"1" if letters else b"0")
        reply = await self._call("get", queue, self._waiter(reply_to), *flags, *map(codec.id_bytes, ids))
        return [
            codec.record(id, data, payload=payload) if data else None
            for id, data in zip(ids, reply, strict=False)
        ]

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        args: list[bytes] = []
        for id, fence, progress, saved in leases:
            given, data = b"0", b""
            if saved is not None:
                given, data = b"2", saved
                if progress is not None:
                    given, data = b"3", len(progress).to_bytes(4) + progress + saved
            elif progress is not None:
                given, data = b"1", progress
            args += (codec.id_bytes(id), codec.fence_bytes(fence) + given, data)
        reply = await self._call("extend", queue, self._callers.name(worker), b"%d" % lease, *args)
        return [_LEASES[status] for status in reply.decode()]

    async def expired(self, queue: str, cursor: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Return a page of the running jobs whose lease has ended: fence and id."""
        behind, *found = await self._call("expired", queue, cursor)
        return behind, [(entry[:7], entry[7:]) for entry in found]

    async def sweep(self, queue: str, ids: Sequence[bytes]) -> tuple[int, list[Swept]]:
        """Sweep the last of these jobs, one at least: how many were looked at, and which were taken."""
        with self._callers.call(queue) as call:
            looked, *taken = await self._call(
                "sweep",
                queue,
                call.caller,
                call.number,
                self.channel_base(queue),
                queue.encode(),
                STALLED_ERROR,
                *ids,
            )
        swept = zip(*(taken[i::5] for i in range(5)), strict=True)
        return int(looked), [
            Swept(
                codec.id_text(id), _SWEPT[state], int(attempts), int(stalls), worker.decode(errors="replace")
            )
            for id, state, attempts, stalls, worker in swept
        ]

    async def expire(self, queue: str, limit: int) -> list[Swept]:
        """Fail the first of the jobs that have not started in time, one at least if there are any."""
        with self._callers.call(queue) as call:
            told = await self._call(
                "expire",
                queue,
                call.caller,
                call.number,
                self.channel_base(queue),
                queue.encode(),
                b"%d" % limit,
            )
        return [Swept(id, JobState.FAILED, 0, 0, "", expired=True) for id in codec.sized_ids(told)]

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool) -> list[CancelStatus]:
        """Cancel the first of these jobs, one at least."""
        with self._callers.call(queue) as call:
            reply = await self._call(
                "cancel",
                queue,
                call.caller,
                call.number,
                b"1" if running else b"0",
                self.channel_base(queue),
                queue.encode(),
                *map(codec.id_bytes, ids),
            )
        return [_CANCELS[status] for status in reply.decode()]

    async def asked(self, queue: str, runs: Sequence[CancelRequest]) -> list[bool]:
        """Return for each run whether it was asked to end."""
        reply = await self._call(
            "asked", queue, *(codec.fence_bytes(run.fence) + codec.id_bytes(run.id) for run in runs)
        )
        return [status == ord("A") for status in reply]

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        """Keep the first of these jobs, one at least."""
        args: list[bytes] = []
        for id, ttl in ttls:
            args += (codec.id_bytes(id), b"%d" % ttl)
        with self._callers.call(queue) as call:
            reply = await self._call("set_ttl", queue, call.caller, call.number, *args)
        return [_TTLS[status] for status in reply.decode()]

    async def revive(self, queue: str, ids: Sequence[str], delay: int, payload: bytes | None) -> list[bool]:
        """Revive the first of these jobs, one at least."""
        with self._callers.call(queue) as call:
            given = (b"%d" % delay, b"" if payload is None else b"=" + payload)
            named = map(codec.id_bytes, ids)
            reply = await self._call("revive", queue, call.caller, call.number, *given, *named)
        return [status == ord("1") for status in reply]

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete the first of these jobs, one at least."""
        with self._callers.call(queue) as call:
            reply = await self._call(
                "forget",
                queue,
                call.caller,
                call.number,
                self.channel_base(queue),
                queue.encode(),
                *map(codec.id_bytes, ids),
            )
        return [status == ord("1") for status in reply]

    async def set_rules(self, queue: str, rules: Rules | None, expected: Rules | None) -> bool:
        wanted = b"" if expected is None else b"=" + pack_rules(expected).encode()
        with self._callers.call(queue) as call:
            reply = await self._call(
                "set_rules",
                queue,
                call.caller,
                call.number,
                self.resumed_channel(queue),
                pack_rules(rules).encode(),
                wanted,
            )
        return bool(reply)

    async def get_rules(self, queue: str) -> AdmissionInfo:
        rules, running, ready, due = await self._call("get_rules", queue)
        return AdmissionInfo(read_rules(queue, rules), running, ready, None if int(due) < 0 else int(due))

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where the first of these groups stand, one at least."""
        reply = await self._call("usage", queue, *(group.encode() for group in groups))
        return [
            Usage(int(running), None if int(opens) < 0 else int(opens))
            for running, opens in zip(reply[::2], reply[1::2], strict=True)
        ]

    async def is_closed(self, queue: str) -> bool:
        """Return whether nothing may be claimed now, because of a rule of a later release, too."""
        _, opens = await self._call("usage", queue, b"\n")
        return int(opens) != 0

    async def _call_documents(self, name: str, space: str, *args: bytes) -> Any:
        code, keys = script(name), document_keys(self._prefix, space)
        named = [getattr(keys, key) for key in code.keys]
        return await self._transport.call(code, named, (self._now(), *args))

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read the first of these documents, one at least."""
        reply = await self._call_documents("documents_read", space, *(name.encode() for name in names))
        return [
            codec.document(name, data) if data else None for name, data in zip(names, reply, strict=False)
        ]

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        args: list[bytes] = []
        for name, expected, data in changes:
            args.append(name.encode())
            args.append(b"" if expected is None else b"%d" % expected)
            args.append(b"" if data is None else b"=" + data)
        with self._callers.call(space) as call:
            reply = await self._call_documents("documents_write", space, call.caller, call.number, *args)
        versions = (int.from_bytes(reply[at : at + 7]) for at in range(0, len(reply), 7))
        return [version or None for version in versions]

    async def list_documents(self, space: str, limit: int, after: bytes) -> tuple[list[Document], bool]:
        """Return a page, and whether there may be another."""
        more, *rest = await self._call_documents("documents_list", space, b"%d" % limit, after)
        pairs = zip(rest[::2], rest[1::2], strict=True)
        return [codec.document(codec.id_text(name), data) for name, data in pairs], bool(more)

    async def purge(self, queue: str, limit: int) -> Purged:
        dropped, empty, *shared = await self._call("purge", queue, b"%d" % limit)
        return Purged(dropped, bool(empty), [name.decode(errors="replace") for name in shared])

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        code = script("to_sweep")
        keys = [getattr(queue_keys(self._prefix, queue), key) for queue in queues for key in code.keys]
        places: list[int] = await self._transport.call(code, keys, (self._now(),))
        return [queues[place - 1] for place in places]

    async def scan(
        self, queue: str, state: JobState, limit: int, cursor: bytes
    ) -> tuple[list[Record], bytes]:
        reply = await self._call("scan", queue, codec.LETTERS[state], b"%d" % limit, cursor)
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        return [codec.record(codec.id_text(id), data) for id, data in pairs], reply[0]

    async def counts(self, queue: str) -> tuple[Counts, int]:
        """Return the number of jobs by state, and of all that have ever ended."""
        *numbers, oldest, ended = await self._call("counts", queue)
        return Counts(*numbers)._replace(oldest=None if int(oldest) < 0 else int(oldest)), int(ended)

    async def workers(self, queue: str) -> list[WorkerInfo]:
        reply = await self._call("workers", queue, b"%d" % WORKER_SEEN_FOR)
        found = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return sorted(
            WorkerInfo(name.decode(errors="replace"), int(seen), running) for name, seen, running in found
        )

    async def unstage(self, queue: str) -> None:
        await self._call("unstage", queue)

    async def fsck(
        self, queue: str, source: str, cursor: bytes
    ) -> tuple[bytes, list[tuple[str | None, str]]]:
        behind, *found = await self._call("fsck", queue, source.encode(), cursor)
        pairs = zip(found[::2], found[1::2], strict=True)
        return behind, [
            (id.decode(errors="replace") or None, problem.decode(errors="replace")) for id, problem in pairs
        ]

    async def rights(self) -> list[tuple[str, str]]:
        """Return the commands of the scripts that fail on sound keys, each with the error."""
        reply = await self._call("rights", "", self.channel("", "nobody"))
        texts = [text.decode(errors="replace") for text in reply]
        return list(zip(texts[::2], texts[1::2], strict=True))

    async def _lock(self, name: str, lock: str, *args: bytes) -> Any:
        return await self._transport.call(script(name), [lock_key(self._prefix, lock)], (self._now(), *args))

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        term = int(await self._lock("lock_acquire", lock, owner.encode(), b"%d" % ttl))
        return None if term < 0 else term

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        return bool(await self._lock("lock_renew", lock, owner.encode(), b"%d" % ttl))

    async def lock_release(self, lock: str, owner: str) -> bool:
        nonce, channel = unique_id().encode(), self.lock_channel(lock)
        return bool(await self._lock("lock_release", lock, owner.encode(), nonce, channel))

    async def lock_holder(self, lock: str) -> LockInfo | None:
        reply = await self._lock("lock_holder", lock)
        if not reply:
            return None
        owner, term, until = reply
        if owner is None or term is None or until is None:
            raise StorageError(f"the lock {lock!r} cannot be read: run jobqueue fsck")
        return LockInfo(owner.decode(errors="replace"), int(term), int(until))


def _exchanged(reply: Any) -> ScriptExchanged:
    mark, statuses, due, more, fences, *_ = reply
    expired: tuple[str, ...] = ()
    if more[:1] == b"x":
        expired, more = tuple(codec.sized_ids(more[2:])), more[1:2]
    settled = [_SETTLED[status] for status in statuses.decode()]
    next_due = None if int(due) < 0 else int(due)
    jobs = codec.claimed(fences, reply, 5)
    return ScriptExchanged(
        mark, settled, next_due, more == b"1", more == b"p", more in b"ph" and more != b"", jobs, expired
    )
