"""All commands of the journal, and how one is written and read."""

from __future__ import annotations

import struct
from typing import Any

from jobqueue.storage.file.codec import Reader, length_of
from jobqueue.storage.file.command import Command, Weight
from jobqueue.storage.file.job_commands import Cancel, Exchange, Extend, Insert, Keep, Purge, Sweep, Watch
from jobqueue.storage.file.store_commands import Acquire, Begin, OldStep, Release, Renew, Restart, Seal, Step

__all__ = [
    "Acquire",
    "Begin",
    "Cancel",
    "Command",
    "Exchange",
    "Extend",
    "Insert",
    "Keep",
    "OldStep",
    "Purge",
    "Release",
    "Renew",
    "Restart",
    "Seal",
    "Step",
    "Sweep",
    "Watch",
    "Weight",
    "pack_command",
    "parse_command",
]

_ALL: tuple[type[Command[Any]], ...] = (
    Insert, Watch, Exchange, Extend, Sweep, Cancel, Keep, Purge, Acquire, Renew, Release,
    Restart, OldStep, Seal, Begin, Step,
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
