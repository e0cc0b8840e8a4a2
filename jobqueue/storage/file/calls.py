"""Calls of the contract on their way to a turn of the store: reads, and commands packed for the journal."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.file.commands.registry import Command, pack_command

__all__ = ["MAX_CALL", "Call", "ReadCall", "Write", "write"]

MAX_CALL = 1 << 30
"""Largest size of a call in bytes: lengths in the files are numbers of 32 bits, some of them signed."""
T = TypeVar("T")


class ReadCall(NamedTuple, Generic[T]):
    """A call that changes nothing."""

    answer: Callable[[Engine, int], T]
    """Called with the engine and the time."""

    @property
    def packed(self) -> bytes:
        """Nothing: it is not written."""
        return b""


@dataclass(slots=True, eq=False)
class Write(Generic[T]):
    """A call that may change something, packed by its caller: one that cannot be packed joins no turn."""

    command: Command[T]
    packed: bytes
    withdrawn: bool = False
    """Set by a caller that no longer waits: a call that has not begun by then is not carried out."""


def write(command: Command[T]) -> Write[T]:
    """Pack a call. Raises `InvalidArgumentError` if it has a value that cannot be packed."""
    try:
        packed = pack_command(command)
    except (struct.error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _unfit(command, f"has a value that cannot be stored: {error}") from error
    if len(packed) > MAX_CALL:
        raise _unfit(command, f"must be at most {MAX_CALL} bytes in all, not {len(packed)}")
    return Write(command, packed)


def _unfit(command: Command[Any], problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(type(command).__name__.lower(), problem)


Call = Write[Any] | ReadCall[Any]
