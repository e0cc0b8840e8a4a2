# ruff: noqa: ARG002 - the methods of a protocol: not every command needs every argument
"""The commands about jobs: the writing calls of `jobqueue.storage.contract.Storage`, by the same names.

It is long because a command is one piece: what it does, when it is written, and how it is packed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import ENDED, Action
from jobqueue.storage.engine.job_entry import Extras
from jobqueue.storage.file.commands.base import CommandDefaults, Weight
from jobqueue.storage.file.commands.fields import pack_extras, parse_extras
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader, blob, number, numbers, optional, text
from jobqueue.storage.values import (
    CancelStatus,
    Conflict,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    NewJob,
    Record,
    Renewal,
    Reuse,
    SettleStatus,
    Swept,
    UpdateTtlStatus,
)

__all__ = ["Cancel", "Exchange", "Extend", "GetAndWait", "Insert", "Purge", "SetTtl", "Sweep"]

_REUSES: tuple[Reuse, ...] = (Reuse.RETURN, Reuse.RERUN_FAILED, Reuse.RERUN)
_REUSE_CODES = {reuse: code for code, reuse in enumerate(_REUSES)}
_ACTIONS: tuple[Action, ...] = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)
_ACTION_CODES = {action: code for code, action in enumerate(_ACTIONS)}
_WAIT, _RUN_AT, _EXTRAS, _CONFLICT = 4, 8, 16, 32
"""Flags of a new job, beside two bits for its `Reuse`, and two from `_CONFLICT` on. With extras, their bytes
follow the payload."""
_CONFLICTS: tuple[Conflict, ...] = (Conflict.JOIN, Conflict.REPLACE, Conflict.DEBOUNCE)
_CONFLICT_CODES = {conflict: _CONFLICT * code for code, conflict in enumerate(_CONFLICTS)}
_JOIN = Conflict.JOIN
_WRITES = frozenset({InsertStatus.CREATED, InsertStatus.REPLACED})
_SUMMARY, _THEN = 8, 16
"""Flags of a settlement, beside three bits for its action: what follows its data."""
_PROGRESS, _SAVED = 1, 2
"""Flags of a renewal: what follows them."""
_NEW = struct.Struct("<IIiqiiqB")
_SETTLE = struct.Struct("<IIqBqq")


def _pack_jobs(jobs: Sequence[NewJob]) -> bytes:
    parts: list[bytes] = []
    for new in jobs:
        (
            id, payload, priority, delay, run_at, attempts, stalls, ttl, reuse, wait,
            headers, task, group, dead_letter_ttl, conflict, weight, expires,
        ) = new  # fmt: skip
        name = id.encode()
        flags = _REUSE_CODES[reuse] | (_WAIT if wait else 0)
        if conflict is not _JOIN:
            flags |= _CONFLICT_CODES[conflict]
        when = delay
        if run_at is not None:
            flags |= _RUN_AT
            when = run_at
        extras = None
        if headers or task or group or dead_letter_ttl is not None or expires is not None:
            flags |= _EXTRAS
            named = Extras(
                headers, task, group, dead_letter_ttl, weight=weight if group else 1, expires=expires
            )
            extras = blob(pack_extras(named))
        head = _NEW.pack(len(name), len(payload), priority, when, attempts, stalls, ttl, flags)
        parts += (head, name, payload)
        if extras:
            parts.append(extras)
    return b"".join(parts)


def _parse_job(data: Reader) -> NewJob:
    fields = _NEW.unpack(data.raw(_NEW.size))
    id_size, payload_size, priority, when, attempts, stalls, ttl, flags = fields
    delay, run_at = (0, when) if flags & _RUN_AT else (when, None)
    id, payload = data.raw(id_size).decode(), data.raw(payload_size)
    reuse, wait = _REUSES[int(flags) & 3], bool(flags & _WAIT)
    new = NewJob(id, payload, priority, delay, run_at, attempts, stalls, ttl, reuse, wait)
    if flags >= _CONFLICT:
        new = new._replace(conflict=_CONFLICTS[flags // _CONFLICT])
    if not flags & _EXTRAS:
        return new
    extras = parse_extras(data.blob())
    return new._replace(
        headers=extras.headers,
        task=extras.task,
        group=extras.group,
        dead_letter_ttl=extras.dead_letter_ttl,
        weight=extras.weight,
        expires=extras.expires,
    )


@dataclass(slots=True)
class Insert(CommandDefaults):
    """`Storage.insert`."""

    code: ClassVar[int] = 1
    grows: ClassVar[bool] = True
    queue: str
    jobs: Sequence[NewJob]
    reply_to: str | None
    max_length: int | None

    def apply(self, state: State, now: int) -> list[Inserted]:
        return state.engine.insert(
            self.queue, self.jobs, now, reply_to=self.reply_to, max_length=self.max_length
        )

    def weigh(self, answer: list[Inserted], state: State, now: int) -> Weight:
        if any(inserted.status in _WRITES for inserted in answer):
            return Weight.SYNCED
        joined = self.reply_to is not None and any(
            new.wait and inserted.status is InsertStatus.FOUND and inserted.state not in ENDED
            for new, inserted in zip(self.jobs, answer, strict=True)
        )
        return Weight.WRITTEN if joined else Weight.NOTHING

    def pack(self) -> bytes:
        length = -1 if self.max_length is None else self.max_length
        head = (text(self.queue), optional(self.reply_to), numbers(length, len(self.jobs)))
        return b"".join((*head, _pack_jobs(self.jobs)))

    @classmethod
    def parse(cls, data: Reader) -> Insert:
        queue, reply_to, length, count = data.text(), data.optional_text(), data.number(), data.number()
        jobs = [_parse_job(data) for _ in range(count)]
        return cls(queue, jobs, reply_to, None if length < 0 else length)


@dataclass(slots=True)
class GetAndWait(CommandDefaults):
    """`Storage.get` with an address: reads, and registers it as a waiter."""

    code: ClassVar[int] = 2
    queue: str
    ids: Sequence[str]
    reply_to: str
    payload: bool = False
    """Asks for more in the answer and, as ``letters``, changes nothing: not in the journal."""
    letters: bool = False

    def wanted(self, state: State, now: int) -> bool:
        known = state.engine.needs_no_waiter
        return not all(known(self.queue, id, self.reply_to, now) for id in self.ids)

    def apply(self, state: State, now: int) -> list[Record | None]:
        return state.engine.get(
            self.queue, self.ids, now, reply_to=self.reply_to, payload=self.payload, letters=self.letters
        )

    def weigh(self, answer: list[Record | None], state: State, now: int) -> Weight:
        live = any(record is not None and record.state not in ENDED for record in answer)
        return Weight.WRITTEN if live else Weight.NOTHING

    def pack(self) -> bytes:
        return b"".join((text(self.queue), text(self.reply_to), *map(text, self.ids)))

    @classmethod
    def parse(cls, data: Reader) -> GetAndWait:
        queue, reply_to = data.text(), data.text()
        return cls(queue, data.texts(), reply_to)


@dataclass(slots=True)
class Exchange(CommandDefaults):
    """`Storage.exchange`. An idle one writes nothing, except now and then that its worker was seen."""

    code: ClassVar[int] = 3
    queue: str
    worker: str
    settlements: Sequence[Settlement]
    limit: int
    lease: int

    def wanted(self, state: State, now: int) -> bool:
        return (
            bool(self.settlements)
            or (self.limit > 0 and state.engine.has_work(self.queue, now))
            or not state.is_noted(self.queue, self.worker, now)
        )

    def apply(self, state: State, now: int) -> Exchanged:
        state.engine.promoted = False
        return state.engine.exchange(self.queue, self.worker, self.settlements, self.limit, self.lease, now)

    def weigh(self, answer: Exchanged, state: State, now: int) -> Weight:
        lost = SettleStatus.LOST
        if answer.expired or any(status is not lost for status in answer.settled):
            weight = Weight.SYNCED
        elif answer.jobs or state.engine.promoted or not state.is_noted(self.queue, self.worker, now):
            weight = Weight.WRITTEN
        else:
            return Weight.NOTHING
        state.note(self.queue, self.worker, now)
        return weight

    def pack(self) -> bytes:
        parts = [text(self.queue), text(self.worker), numbers(self.limit, self.lease)]
        for id, fence, action, data, ttl, delay, summary, then in self.settlements:
            name = id.encode()
            flags = _ACTION_CODES[action]
            more = b""
            if summary:
                flags |= _SUMMARY
                more = blob(summary)
            if then:
                flags |= _THEN
                more += number(len(then)) + _pack_jobs(then)
            parts += (_SETTLE.pack(len(name), len(data), fence, flags, ttl, delay), name, data)
            if more:
                parts.append(more)
        return b"".join(parts)

    @classmethod
    def parse(cls, data: Reader) -> Exchange:
        queue, worker, limit, lease = data.text(), data.text(), data.number(), data.number()
        settlements: list[Settlement] = []
        while not data.done:
            id_size, size, fence, flags, ttl, delay = _SETTLE.unpack(data.raw(_SETTLE.size))
            id, value = data.raw(id_size).decode(), data.raw(size)
            summary = data.blob() if flags & _SUMMARY else b""
            then = tuple(_parse_job(data) for _ in range(data.number())) if flags & _THEN else ()
            action = _ACTIONS[int(flags) & 7]
            settlements.append(Settlement(id, fence, action, value, ttl, delay, summary, then))
        return cls(queue, worker, settlements, limit, lease)


@dataclass(slots=True)
class Extend(CommandDefaults):
    """`Storage.extend`."""

    code: ClassVar[int] = 4
    queue: str
    worker: str
    leases: Sequence[Renewal]
    lease: int

    def apply(self, state: State, now: int) -> list[LeaseStatus]:
        return state.engine.extend(self.queue, self.worker, self.leases, self.lease, now)

    def weigh(self, answer: list[LeaseStatus], state: State, now: int) -> Weight:
        if not self.leases and not self.lease:  # it leaves
            state.noted.pop((self.queue, self.worker), None)
            return Weight.WRITTEN
        if all(status is LeaseStatus.LOST for status in answer) and state.is_noted(
            self.queue, self.worker, now
        ):
            return Weight.NOTHING
        state.note(self.queue, self.worker, now)
        saved = any(
            renewal.saved is not None and status is not LeaseStatus.LOST
            for renewal, status in zip(self.leases, answer, strict=True)
        )
        return Weight.SYNCED if saved else Weight.WRITTEN

    def pack(self) -> bytes:
        parts = [text(self.queue), text(self.worker), number(self.lease)]
        for id, fence, progress, saved in self.leases:
            flags = (0 if progress is None else _PROGRESS) | (0 if saved is None else _SAVED)
            parts += (text(id), number(fence), bytes((flags,)))
            parts += (blob(value) for value in (progress, saved) if value is not None)
        return b"".join(parts)

    @classmethod
    def parse(cls, data: Reader) -> Extend:
        queue, worker, lease = data.text(), data.text(), data.number()
        leases: list[Renewal] = []
        while not data.done:
            id, fence, flags = data.text(), data.number(), data.byte()
            progress = data.blob() if flags & _PROGRESS else None
            leases.append(Renewal(id, fence, progress, data.blob() if flags & _SAVED else None))
        return cls(queue, worker, leases, lease)


@dataclass(slots=True)
class Sweep(CommandDefaults):
    """`Storage.sweep`."""

    code: ClassVar[int] = 5
    queue: str
    limit: int

    def wanted(self, state: State, now: int) -> bool:
        return state.engine.has_stalled(self.queue, now) or state.engine.has_late(self.queue, now)

    def apply(self, state: State, now: int) -> list[Swept]:
        return state.engine.sweep(self.queue, self.limit, now)

    def weigh(self, answer: list[Swept], state: State, now: int) -> Weight:
        return Weight.SYNCED if answer else Weight.NOTHING

    def pack(self) -> bytes:
        return text(self.queue) + number(self.limit)

    @classmethod
    def parse(cls, data: Reader) -> Sweep:
        return cls(data.text(), data.number())


@dataclass(slots=True)
class Cancel(CommandDefaults):
    """`Storage.cancel`."""

    code: ClassVar[int] = 6
    queue: str
    ids: Sequence[str]
    running: bool

    def apply(self, state: State, now: int) -> list[CancelStatus]:
        return state.engine.cancel(self.queue, self.ids, now, running=self.running)

    def weigh(self, answer: list[CancelStatus], state: State, now: int) -> Weight:
        changed = {CancelStatus.CANCELLED, CancelStatus.CANCELLING}
        return Weight.SYNCED if not changed.isdisjoint(answer) else Weight.NOTHING

    def pack(self) -> bytes:
        return b"".join((text(self.queue), number(self.running), *map(text, self.ids)))

    @classmethod
    def parse(cls, data: Reader) -> Cancel:
        queue, running = data.text(), bool(data.number())
        return cls(queue, data.texts(), running)


@dataclass(slots=True)
class SetTtl(CommandDefaults):
    """`Storage.keep`."""

    code: ClassVar[int] = 7
    queue: str
    ttls: Sequence[tuple[str, int]]

    def apply(self, state: State, now: int) -> list[UpdateTtlStatus]:
        return state.engine.set_ttl(self.queue, self.ttls, now)

    def weigh(self, answer: list[UpdateTtlStatus], state: State, now: int) -> Weight:
        return Weight.SYNCED if UpdateTtlStatus.UPDATED in answer else Weight.NOTHING

    def pack(self) -> bytes:
        return text(self.queue) + b"".join(text(id) + number(ttl) for id, ttl in self.ttls)

    @classmethod
    def parse(cls, data: Reader) -> SetTtl:
        queue = data.text()
        ttls: list[tuple[str, int]] = []
        while not data.done:
            ttls.append((data.text(), data.number()))
        return cls(queue, ttls)


@dataclass(slots=True)
class Purge(CommandDefaults):
    """`Storage.purge`."""

    code: ClassVar[int] = 8
    queue: str
    limit: int

    def wanted(self, state: State, now: int) -> bool:
        return state.engine.has_expired(self.queue, now)

    def apply(self, state: State, now: int) -> int:
        return state.engine.purge(self.queue, self.limit, now)

    def weigh(self, answer: int, state: State, now: int) -> Weight:
        return Weight.WRITTEN if answer else Weight.NOTHING

    def pack(self) -> bytes:
        return text(self.queue) + number(self.limit)

    @classmethod
    def parse(cls, data: Reader) -> Purge:
        return cls(data.text(), data.number())
