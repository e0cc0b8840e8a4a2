# ruff: noqa: ARG002 - the methods of a protocol: not every command needs every argument
"""The commands of the capability `jobqueue.storage.capabilities.Revival`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jobqueue.storage.file.commands.base import CommandDefaults, Weight
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader, number, optional, text

__all__ = ["Forget", "Revive"]


@dataclass(slots=True)
class Revive(CommandDefaults):
    """`Revival.revive`."""

    code: ClassVar[int] = 17
    queue: str
    ids: Sequence[str]
    delay: int
    payload: bytes | None = None

    def apply(self, state: State, now: int) -> list[bool]:
        return state.engine.revive(self.queue, self.ids, now, self.delay, self.payload)

    def weigh(self, answer: list[bool], state: State, now: int) -> Weight:
        return Weight.SYNCED if any(answer) else Weight.NOTHING

    def pack(self) -> bytes:
        head = (text(self.queue), number(self.delay), optional(self.payload))
        return b"".join((*head, *map(text, self.ids)))

    @classmethod
    def parse(cls, data: Reader) -> Revive:
        queue, delay, payload = data.text(), data.number(), data.optional_blob()
        return cls(queue, data.texts(), delay, payload)


@dataclass(slots=True)
class Forget(CommandDefaults):
    """`Revival.forget`."""

    code: ClassVar[int] = 18
    queue: str
    ids: Sequence[str]

    def apply(self, state: State, now: int) -> list[bool]:
        return state.engine.forget(self.queue, self.ids, now)

    def weigh(self, answer: list[bool], state: State, now: int) -> Weight:
        return Weight.SYNCED if any(answer) else Weight.NOTHING

    def pack(self) -> bytes:
        return b"".join((text(self.queue), *map(text, self.ids)))

    @classmethod
    def parse(cls, data: Reader) -> Forget:
        queue = data.text()
        return cls(queue, data.texts())
