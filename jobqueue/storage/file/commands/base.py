# ruff: noqa: ARG002 - the methods of a protocol: not every command needs every argument
"""The commands of the journal: the state-changing calls of the engine, and their form on the disk.

Every process that has the store open applies the same commands in the same order to an engine of its
own, and so reaches the same state. A command has

* ``wanted``: tells whether it may change anything now; if not, it is answered without the lock;
* ``apply``: makes the call on the engine, when given and when replayed;
* ``weigh``: tells from the answer what has to be written: nothing, a frame, or a frame that has to be
  safe on the disk before the answer goes out.

A command never changes its meaning, since journals are replayed by later releases: a call that is to come to
another state with the same arguments gets another code, and the old one is still read (`OldStep`).

Claims and renewals are not synced. A power cut that takes them takes their workers too, and leaves the
jobs ready or their leases dead; the fences that were given are skipped (`Restart`), so none comes twice.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar, Protocol, TypeVar

from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader

__all__ = ["Command", "CommandDefaults", "Weight"]


class Weight(IntEnum):
    """The writing that has to precede an answer."""

    NOTHING = 0
    """Nothing changed."""
    WRITTEN = 1
    """Written, but a power cut may take it."""
    SYNCED = 2
    """Safe on the disk before the answer."""


T_co = TypeVar("T_co", covariant=True)


class Command(Protocol[T_co]):
    """A state-changing call in the form that the journal stores."""

    code: ClassVar[int]
    grows: ClassVar[bool]
    """True if it makes new jobs: those are refused when the disk is full."""

    def wanted(self, state: State, now: int) -> bool: ...
    def apply(self, state: State, now: int) -> T_co: ...
    def weigh(self, answer: Any, state: State, now: int) -> Weight: ...
    def pack(self) -> bytes: ...
    @classmethod
    def parse(cls, data: Reader) -> Command[T_co]: ...


class CommandDefaults:
    """Defaults that most commands share."""

    __slots__ = ()
    grows: ClassVar[bool] = False

    def wanted(self, state: State, now: int) -> bool:
        return True
