# ruff: noqa: ARG002 - the methods of a protocol: not every command needs every argument
"""The command of the capability `jobqueue.storage.capabilities.Documents`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jobqueue.storage.file.commands.base import CommandDefaults, Weight
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader, number, optional, text
from jobqueue.storage.values import Change

__all__ = ["WriteDocuments"]

_ANY = -1
"""Stands for an ``expected`` of ``None``."""


@dataclass(slots=True)
class WriteDocuments(CommandDefaults):
    """`Documents.write_documents`."""

    code: ClassVar[int] = 19
    space: str
    changes: Sequence[Change]

    def wanted(self, state: State, now: int) -> bool:
        # One that matches nothing now may match what another change of this call makes.
        return bool(self.changes)

    def apply(self, state: State, now: int) -> list[int | None]:
        return state.engine.write_documents(self.space, self.changes)

    def weigh(self, answer: list[int | None], state: State, now: int) -> Weight:
        return Weight.SYNCED if any(version is not None for version in answer) else Weight.NOTHING

    def pack(self) -> bytes:
        parts = [text(self.space)]
        for name, expected, data in self.changes:
            parts += (text(name), number(_ANY if expected is None else expected), optional(data))
        return b"".join(parts)

    @classmethod
    def parse(cls, data: Reader) -> WriteDocuments:
        space = data.text()
        changes: list[Change] = []
        while not data.done:
            name, expected = data.text(), data.number()
            changes.append(Change(name, None if expected == _ANY else expected, data.optional_blob()))
        return cls(space, changes)
