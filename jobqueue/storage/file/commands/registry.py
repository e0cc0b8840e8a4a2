"""All commands of the journal, and how one is written and read."""

from __future__ import annotations

import struct
from typing import Any

from jobqueue.storage.file.commands.admission import SetRules
from jobqueue.storage.file.commands.base import Command, Weight
from jobqueue.storage.file.commands.documents import WriteDocuments
from jobqueue.storage.file.commands.jobs import (
    Cancel,
    Exchange,
    Extend,
    GetAndWait,
    Insert,
    Purge,
    SetTtl,
    Sweep,
)
from jobqueue.storage.file.commands.revival import Forget, Revive
from jobqueue.storage.file.commands.store import (
    Acquire,
    Begin,
    ClockSet,
    OldStep,
    Release,
    Renew,
    Restart,
    Seal,
)
from jobqueue.storage.file.disk.codec import Reader, length_of

__all__ = [
    "Acquire",
    "Begin",
    "Cancel",
    "ClockSet",
    "Command",
    "Exchange",
    "Extend",
    "Forget",
    "GetAndWait",
    "Insert",
    "OldStep",
    "Purge",
    "Release",
    "Renew",
    "Restart",
    "Revive",
    "Seal",
    "SetRules",
    "SetTtl",
    "Sweep",
    "Weight",
    "WriteDocuments",
    "pack_command",
    "parse_command",
]

_ALL: tuple[type[Command[Any]], ...] = (
    Insert, GetAndWait, Exchange, Extend, Sweep, Cancel, SetTtl, Purge, Acquire, Renew, Release,
    Restart, OldStep, Seal, Begin, ClockSet, Revive, Forget, WriteDocuments, SetRules,
)  # fmt: skip
_BY_CODE = {kind.code: kind for kind in _ALL}


def pack_command(command: Command[Any]) -> bytes:
    """Write one command."""
    body = command.pack()
    return b"".join((bytes((command.code,)), length_of(body), body))


def parse_command(data: Reader) -> Command[Any]:
    """Read one command. Raises `ValueError` at what no version of the store has written."""
    code = data.byte()
    kind = _BY_CODE.get(code)
    if kind is None:
        raise ValueError(f"a command of a kind {code} that this version does not know")
    try:
        body = Reader(data.blob())
        command = kind.parse(body)
    except (struct.error, IndexError) as error:
        raise ValueError(f"a malformed {kind.__name__}") from error
    if not body.done:
        raise ValueError(f"a {kind.__name__} with a tail")
    return command
