# ruff: noqa: ARG002, ARG003 - the methods of a protocol: not every command needs every argument
"""The commands about named locks, and those of the store itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from jobqueue.storage.engine.engine import Counters
from jobqueue.storage.file.commands.base import CommandDefaults, Weight
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader, number, numbers, text

__all__ = ["Acquire", "Begin", "ClockSet", "OldStep", "Release", "Renew", "Restart", "Seal"]


_LAST_FLOOR = 1 << 52
"""Largest number to begin with, of the year 2112: a clock that is far wrong for a moment must not take fences
beyond the 53 bits that other systems can count."""


@dataclass(slots=True)
class Acquire(CommandDefaults):
    """`Storage.acquire`. Synced: a term, like a fence, must not come twice."""

    code: ClassVar[int] = 9
    lock: str
    owner: str
    ttl: int

    def wanted(self, state: State, now: int) -> bool:
        held = state.engine.lock_holder(self.lock, now)
        return held is None or held.owner == self.owner

    def apply(self, state: State, now: int) -> int | None:
        return state.engine.lock_acquire(self.lock, self.owner, self.ttl, now)

    def weigh(self, answer: int | None, state: State, now: int) -> Weight:
        return Weight.NOTHING if answer is None else Weight.SYNCED

    def pack(self) -> bytes:
        return text(self.lock) + text(self.owner) + number(self.ttl)

    @classmethod
    def parse(cls, data: Reader) -> Acquire:
        return cls(data.text(), data.text(), data.number())


@dataclass(slots=True)
class Renew(CommandDefaults):
    """`Storage.renew`."""

    code: ClassVar[int] = 10
    lock: str
    owner: str
    ttl: int

    def apply(self, state: State, now: int) -> bool:
        return state.engine.lock_renew(self.lock, self.owner, self.ttl, now)

    def weigh(self, answer: bool, state: State, now: int) -> Weight:  # noqa: FBT001 - an answer
        return Weight.WRITTEN if answer else Weight.NOTHING

    def pack(self) -> bytes:
        return text(self.lock) + text(self.owner) + number(self.ttl)

    @classmethod
    def parse(cls, data: Reader) -> Renew:
        return cls(data.text(), data.text(), data.number())


@dataclass(slots=True)
class Release(CommandDefaults):
    """`Storage.release`."""

    code: ClassVar[int] = 11
    lock: str
    owner: str

    def apply(self, state: State, now: int) -> bool:
        return state.engine.lock_release(self.lock, self.owner, now)

    def weigh(self, answer: bool, state: State, now: int) -> Weight:  # noqa: FBT001 - an answer
        return Weight.WRITTEN if answer else Weight.NOTHING

    def pack(self) -> bytes:
        return text(self.lock) + text(self.owner)

    @classmethod
    def parse(cls, data: Reader) -> Release:
        return cls(data.text(), data.text())


# -- the store's own ------------------------------------------------------------------------------


@dataclass(slots=True)
class Restart(CommandDefaults):
    """The first command after an opening that may have lost the end of the journal.

    ``fence_gap`` skips the fences of lost claims. ``rebooted``: all holders of leases are dead.
    """

    code: ClassVar[int] = 12
    fence_gap: int
    clock_offset: int
    rebooted: bool

    def apply(self, state: State, now: int) -> None:
        if self.rebooted:
            state.engine.restart(self.fence_gap)
            state.noted.clear()
        else:
            state.engine.skip_fences(self.fence_gap)
        state.clock_offset = self.clock_offset

    def weigh(self, answer: None, state: State, now: int) -> Weight:
        return Weight.SYNCED

    def pack(self) -> bytes:
        return numbers(self.fence_gap, self.clock_offset, self.rebooted)

    @classmethod
    def parse(cls, data: Reader) -> Restart:
        return cls(data.number(), data.number(), bool(data.number()))


@dataclass(slots=True)
class Begin(CommandDefaults):
    """The first command of a process: from here on, numbers are larger than any given before.

    Also than those that this copy of the store does not know of, since a backup was put in its place. They
    were counted from the clock as it was when an earlier process began, and slower than the clock runs.
    """

    code: ClassVar[int] = 15

    def apply(self, state: State, now: int) -> None:
        first = min(now * 1000, _LAST_FLOOR)
        state.engine.advance(Counters(first, first))

    def weigh(self, answer: None, state: State, now: int) -> Weight:
        return Weight.WRITTEN

    def pack(self) -> bytes:
        return b""

    @classmethod
    def parse(cls, data: Reader) -> Begin:
        return cls()


@dataclass(slots=True)
class OldStep(CommandDefaults):
    """A `ClockSet` as 0.1.0 wrote it: the pauses before retries did not move."""

    code: ClassVar[int] = 13
    delta: int
    clock_offset: int

    def apply(self, state: State, now: int) -> None:
        self._apply(state, retries=False)

    def _apply(self, state: State, *, retries: bool) -> None:
        state.engine.shift(self.delta, retries=retries)
        state.noted.clear()
        state.clock_offset = self.clock_offset

    def weigh(self, answer: None, state: State, now: int) -> Weight:
        return Weight.WRITTEN

    def pack(self) -> bytes:
        return numbers(self.delta, self.clock_offset)

    @classmethod
    def parse(cls, data: Reader) -> Self:
        return cls(data.number(), data.number())


@dataclass(slots=True)
class ClockSet(OldStep):
    """The wall clock was set: leases, locks, TTLs and the pauses before retries keep their length."""

    code: ClassVar[int] = 16

    def apply(self, state: State, now: int) -> None:
        self._apply(state, retries=True)


@dataclass(slots=True)
class Seal(CommandDefaults):
    """The last command of a journal: the next generation continues."""

    code: ClassVar[int] = 14

    def apply(self, state: State, now: int) -> None:
        return None

    def weigh(self, answer: None, state: State, now: int) -> Weight:
        return Weight.SYNCED

    def pack(self) -> bytes:
        return b""

    @classmethod
    def parse(cls, data: Reader) -> Seal:
        return cls()
