# ruff: noqa: ARG002 - the methods of a protocol: not every command needs every argument
"""The command of the capability `jobqueue.storage.capabilities.Admission`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jobqueue.storage.file.commands.base import CommandDefaults, Weight
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader, optional, text
from jobqueue.storage.rules import pack_rules, parse_rules
from jobqueue.storage.values import Rules

__all__ = ["SetRules"]


@dataclass(slots=True)
class SetRules(CommandDefaults):
    """`Admission.set_rules`."""

    code: ClassVar[int] = 20
    queue: str
    rules: Rules | None
    expected: Rules | None

    def apply(self, state: State, now: int) -> bool:
        return state.engine.set_rules(self.queue, self.rules, now, expected=self.expected)

    def weigh(self, answer: bool, state: State, now: int) -> Weight:  # noqa: FBT001
        return Weight.SYNCED if answer else Weight.NOTHING

    def pack(self) -> bytes:
        expected = None if self.expected is None else pack_rules(self.expected)
        return text(self.queue) + text(pack_rules(self.rules)) + optional(expected)

    @classmethod
    def parse(cls, data: Reader) -> SetRules:
        queue, rules, expected = data.text(), data.text(), data.optional_text()
        return cls(queue, parse_rules(rules), None if expected is None else parse_rules(expected))
