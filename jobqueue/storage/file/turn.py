"""The parts of a turn of the store: what it writes, what it answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from jobqueue.errors import JobQueueError, QueueFullError, StorageUnavailableError
from jobqueue.storage.engine.effects import Effects
from jobqueue.storage.file.calls import Call, ReadCall
from jobqueue.storage.file.commands.registry import Command, Insert, Weight, pack_command
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.values import InsertStatus

__all__ = ["Batch", "TurnOutcome", "answer_call", "give", "refused"]


class TurnOutcome(NamedTuple):
    """Answers and notifications of one turn."""

    answers: list[Any]
    """One for each call: its return value, or the exception to raise."""
    effects: list[Effects]
    """The notifications for this process."""
    notify: bool
    """True if other processes have something to read."""
    resync: bool
    """True if messages may have been missed."""


class Batch:
    """The commands that a turn is going to write, packed."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.size = 0
        self.weight = Weight.NOTHING

    def add(self, packed: bytes, weight: Weight) -> None:
        self.commands.append(packed)
        self.size += len(packed)
        self.weight = max(self.weight, weight)


def give(command: Command[None], state: State, now: int, batch: Batch) -> None:
    """Apply a command of the store itself, and add it to the batch."""
    command.apply(state, now)
    batch.add(pack_command(command), Weight.WRITTEN)


def answer_call(call: Call, state: State, now: int) -> Any:
    """Answer a call that writes nothing."""
    if not isinstance(call, ReadCall):
        return call.command.apply(state, now)
    try:
        return call.answer(state.engine, now)
    except JobQueueError as error:
        return error


def refused(call: Command[Any], state: State, now: int) -> Any:
    """Answer a call without room to write: existing jobs are found all the same."""
    if not isinstance(call, Insert):
        return StorageUnavailableError("the disk is full, the reserve included: free some space")
    found = replace(call, max_length=0).apply(state, now)
    if any(inserted.status is InsertStatus.FULL for inserted in found):
        return QueueFullError("the disk is full: no new jobs until there is space; running ones can end")
    return found
