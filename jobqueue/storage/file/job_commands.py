# ruff: noqa: ARG002 - the methods of a protocol: not every command needs every argument
"""The commands about jobs: the writing calls of `jobqueue.storage.base.Storage`, by the same names."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jobqueue.job import ENDED, Action, Settlement
from jobqueue.storage.base import (
    CancelStatus,
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
from jobqueue.storage.file.codec import Reader, number, numbers, optional, text
from jobqueue.storage.file.command import Common, Weight
from jobqueue.storage.file.state import State

__all__ = ["Cancel", "Exchange", "Extend", "Insert", "Keep", "Purge", "Sweep", "Watch"]

_REUSES: tuple[Reuse, ...] = (Reuse.RETURN, Reuse.RERUN_FAILED, Reuse.RERUN)
_REUSE_CODES = {reuse: code for code, reuse in enumerate(_REUSES)}
_ACTIONS: tuple[Action, ...] = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)
_ACTION_CODES = {action: code for code, action in enumerate(_ACTIONS)}
_WAIT, _RUN_AT = 4, 8
_NEW = struct.Struct("<IIiqiiqB")
_SETTLE = struct.Struct("<IIqBqq")


@dataclass(slots=True)
class Insert(Common):
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
        created = InsertStatus.CREATED
        if any(inserted.status is created for inserted in answer):
            return Weight.SYNCED
        joined = self.reply_to is not None and any(
            new.wait and inserted.status is InsertStatus.FOUND and inserted.state not in ENDED
            for new, inserted in zip(self.jobs, answer, strict=True)
        )
        return Weight.WRITTEN if joined else Weight.NOTHING

    def pack(self) -> bytes:
        length = -1 if self.max_length is None else self.max_length
        parts = [text(self.queue), optional(self.reply_to), numbers(length, len(self.jobs))]
        for id, payload, priority, delay, run_at, attempts, stalls, ttl, reuse, wait in self.jobs:
            name = id.encode()
            flags = _REUSE_CODES[reuse] | (_WAIT if wait else 0)
            when = delay
            if run_at is not None:
                flags |= _RUN_AT
                when = run_at
            parts += (
                _NEW.pack(len(name), len(payload), priority, when, attempts, stalls, ttl, flags),
                name,
                payload,
            )
        return b"".join(parts)

    @classmethod
    def parse(cls, data: Reader) -> Insert:
        queue, reply_to, length, count = data.text(), data.optional_text(), data.number(), data.number()
        jobs: list[NewJob] = []
        for _ in range(count):
            fields = _NEW.unpack(data.raw(_NEW.size))
            id_size, payload_size, priority, when, attempts, stalls, ttl, flags = fields
            delay, run_at = (0, when) if flags & _RUN_AT else (when, None)
            id, payload = data.raw(id_size).decode(), data.raw(payload_size)
            reuse, wait = _REUSES[int(flags) & 3], bool(flags & _WAIT)
            jobs.append(NewJob(id, payload, priority, delay, run_at, attempts, stalls, ttl, reuse, wait))
        return cls(queue, jobs, reply_to, None if length < 0 else length)


@dataclass(slots=True)
class Watch(Common):
    """`Storage.get` with an address: reads, and registers it as a waiter."""

    code: ClassVar[int] = 2
    queue: str
    ids: Sequence[str]
    reply_to: str
    payload: bool = False

    def wanted(self, state: State, now: int) -> bool:
        known = state.engine.has_waiter
        return not all(known(self.queue, id, self.reply_to, now) for id in self.ids)

    def apply(self, state: State, now: int) -> list[Record | None]:
        return state.engine.get(self.queue, self.ids, now, reply_to=self.reply_to, payload=self.payload)

    def weigh(self, answer: list[Record | None], state: State, now: int) -> Weight:
        live = any(record is not None and record.state not in ENDED for record in answer)
        return Weight.WRITTEN if live else Weight.NOTHING

    def pack(self) -> bytes:
        return b"".join((text(self.queue), text(self.reply_to), *map(text, self.ids)))

    @classmethod
    def parse(cls, data: Reader) -> Watch:
        queue, reply_to = data.text(), data.text()
        ids: list[str] = []
        while not data.done:
            ids.append(data.text())
        return cls(queue, ids, reply_to)


@dataclass(slots=True)
class Exchange(Common):
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
        return state.engine.exchange(self.queue, self.worker, self.settlements, self.limit, self.lease, now)

    def weigh(self, answer: Exchanged, state: State, now: int) -> Weight:
        lost = SettleStatus.LOST
        if any(status is not lost for status in answer.settled):
            weight = Weight.SYNCED
        elif answer.jobs or not state.is_noted(self.queue, self.worker, now):
            weight = Weight.WRITTEN
        else:
            return Weight.NOTHING
        state.note(self.queue, self.worker, now)
        return weight

    def pack(self) -> bytes:
        parts = [text(self.queue), text(self.worker), numbers(self.limit, self.lease)]
        for id, fence, action, data, ttl, delay in self.settlements:
            name = id.encode()
            head = _SETTLE.pack(len(name), len(data), fence, _ACTION_CODES[action], ttl, delay)
            parts += (head, name, data)
        return b"".join(parts)

    @classmethod
    def parse(cls, data: Reader) -> Exchange:
        queue, worker, limit, lease = data.text(), data.text(), data.number(), data.number()
        settlements: list[Settlement] = []
        while not data.done:
            id_size, size, fence, action, ttl, delay = _SETTLE.unpack(data.raw(_SETTLE.size))
            id, value = data.raw(id_size).decode(), data.raw(size)
            settlements.append(Settlement(id, fence, _ACTIONS[action], value, ttl, delay))
        return cls(queue, worker, settlements, limit, lease)


@dataclass(slots=True)
class Extend(Common):
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
        return Weight.WRITTEN

    def pack(self) -> bytes:
        parts = [text(self.queue), text(self.worker), number(self.lease)]
        for id, fence, progress in self.leases:
            parts += (text(id), number(fence), optional(progress))
        return b"".join(parts)

    @classmethod
    def parse(cls, data: Reader) -> Extend:
        queue, worker, lease = data.text(), data.text(), data.number()
        leases: list[Renewal] = []
        while not data.done:
            leases.append(Renewal(data.text(), data.number(), data.optional_blob()))
        return cls(queue, worker, leases, lease)


@dataclass(slots=True)
class Sweep(Common):
    """`Storage.sweep`."""

    code: ClassVar[int] = 5
    queue: str
    limit: int

    def wanted(self, state: State, now: int) -> bool:
        return state.engine.has_stalled(self.queue, now)

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
class Cancel(Common):
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
        ids: list[str] = []
        while not data.done:
            ids.append(data.text())
        return cls(queue, ids, running)


@dataclass(slots=True)
class Keep(Common):
    """`Storage.keep`."""

    code: ClassVar[int] = 7
    queue: str
    ttls: Sequence[tuple[str, int]]

    def apply(self, state: State, now: int) -> list[UpdateTtlStatus]:
        return state.engine.keep(self.queue, self.ttls, now)

    def weigh(self, answer: list[UpdateTtlStatus], state: State, now: int) -> Weight:
        return Weight.SYNCED if UpdateTtlStatus.UPDATED in answer else Weight.NOTHING

    def pack(self) -> bytes:
        return text(self.queue) + b"".join(text(id) + number(ttl) for id, ttl in self.ttls)

    @classmethod
    def parse(cls, data: Reader) -> Keep:
        queue = data.text()
        ttls: list[tuple[str, int]] = []
        while not data.done:
            ttls.append((data.text(), data.number()))
        return cls(queue, ttls)


@dataclass(slots=True)
class Purge(Common):
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
