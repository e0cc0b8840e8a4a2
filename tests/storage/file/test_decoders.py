"""Bytes of any kind are read as what they are, or refused: never a crash, never an endless loop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.commands.registry import pack_command
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk import journal
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.frames import (
    HEADER_SIZE,
    JOURNAL,
    Frame,
    find_frames,
    pack_frame,
    pack_header,
    parse_frame,
    parse_header,
)
from jobqueue.storage.file.disk.lock import PublishedPage
from jobqueue.storage.file.upkeep import snapshot
from jobqueue.storage.file.upkeep.progress import Meter
from jobqueue.storage.file.upkeep.replica import Replica, pack_batch, parse_batch
from jobqueue.storage.values import Change, NewJob, Renewal, Reuse, Rules

MORE = int(os.environ.get("JOBQUEUE_TEST_MORE", "1"))
many = settings(max_examples=300 * MORE, deadline=None)

FULL = NewJob("f", b"x", headers=b"h", task="t", group="g", dead_letter_ttl=7)
ALL: list[commands.Command[Any]] = [
    commands.Insert("q", [NewJob("a", b"x", 1, 5, None, 3, 2, 9, Reuse.RERUN, True)], "me", 7),
    commands.Insert("q", [NewJob("b", b"", run_at=3)], None, None),
    commands.GetAndWait("q", ["a", "b"], "me"),
    commands.Exchange("q", "w", [Settlement("a", 1, Action.RETRY, b"e", 5, 6)], 3, 1000),
    commands.Extend("q", "w", [Renewal("a", 1, b"p"), Renewal("b", 2)], 1000),
    commands.Sweep("q", 5),
    commands.Cancel("q", ["a"], running=True),
    commands.SetTtl("q", [("a", 5)]),
    commands.Insert("q", [FULL, FULL._replace(id="g", run_at=5, payload=b"")], None, None),
    commands.Exchange(
        "q",
        "w",
        [Settlement("f", 9, Action.FAIL, b"e", 5, 0, b"short", (FULL._replace(id="h"), FULL))],
        3,
        1000,
    ),
    commands.Extend("q", "w", [Renewal("a", 1, b"p", b"s"), Renewal("b", 2, None, b"s")], 1000),
    commands.Revive("q", ["f"], 5),
    commands.Forget("q", ["h"]),
    commands.SetRules("q", Rules(paused=True), None),
    commands.SetRules("q", None, Rules(paused=True)),
    commands.SetRules("other", Rules(paused=True), Rules()),
    commands.WriteDocuments("s", [Change("a", None, b"x"), Change("b", 0, b""), Change("a", 3, None)]),
    commands.Purge("q", 5),
    commands.Acquire("l", "me", 5),
    commands.Renew("l", "me", 5),
    commands.Release("l", "me"),
    commands.Restart(7, -5, rebooted=True),
    commands.ClockSet(-5, 5),
    commands.OldStep(-5, 5),
    commands.Begin(),
    commands.Seal(),
]


def state() -> State:
    """A state in which every command does something."""
    filled = State()
    for number, command in enumerate(ALL[:8]):
        command.apply(filled, number)
    filled.engine.take_effects()
    return filled


@cache
def batch() -> bytes:
    return pack_batch(state(), 5, [pack_command(command) for command in ALL])


@cache
def blocks() -> list[bytes]:
    return list(snapshot._payloads(state()))


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes that were right, with some changed, taken away or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "end"]))
        some = draw(st.binary(min_size=1, max_size=9))
        if kind == "set":
            data[at : at + len(some)] = some
        elif kind == "cut":
            del data[at : at + len(some)]
        elif kind == "insert":
            data[at:at] = some
        else:
            del data[at:]
    return bytes(data)


def bytes_like(whole: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=200), broken(whole))


def test_all_kinds_of_commands_are_here() -> None:
    assert {type(command) for command in ALL} == set(commands._ALL)
    assert [type(command) for command in parse_batch(batch())[2]] == [type(command) for command in ALL]


@many
@given(data=bytes_like(pack_header(JOURNAL, 3, 5)))
def test_headers(data: bytes) -> None:
    header = parse_header(data, JOURNAL)
    assert header is None or header.kind == JOURNAL


@many
@given(data=bytes_like(pack_frame(b"payload", HEADER_SIZE, 0, 7) * 2))
def test_frames(data: bytes) -> None:
    found = parse_frame(data, 0, HEADER_SIZE, 7)
    assert found is None or isinstance(found, int | Frame)
    for frame in find_frames(data, 0, HEADER_SIZE, 7):
        assert frame.payload == b"payload"


@many
@given(data=bytes_like(PublishedPage("boot", 1, 2, 3, 3, 4, suspect=False).pack()))
def test_pages(data: bytes) -> None:
    page = PublishedPage.parse(data)
    assert page is None or page.generation == 2 or len(data) > 80


@many
@given(data=st.one_of(st.binary(max_size=200), st.deferred(lambda: broken(batch()))))
def test_batches(data: bytes) -> None:
    try:
        _, _, found = parse_batch(data)
    except ValueError:
        return
    assert found


@many
@given(data=st.deferred(lambda: broken(batch())))
def test_a_sound_frame_of_odd_commands_is_applied_or_refused(data: bytes) -> None:
    """As another version, or a bug, may have written it."""
    replica = Replica.__new__(Replica)
    replica.state, replica._directory, replica.journal = state(), None, Journal()  # type: ignore[assignment]
    with suppress(StorageError):
        replica.apply(Frame(0, len(data), 0, data))


class Journal:
    path = "journal"


@many
@given(data=st.deferred(lambda: st.sampled_from(blocks()).flatmap(broken)))
def test_snapshots(data: bytes) -> None:
    fresh = State()
    with suppress(ValueError):
        counters, locks = snapshot.parse_head(data, fresh)
        fresh.engine.load(list(_jobs(data)), locks, counters)


def _jobs(data: bytes) -> Iterator[Any]:
    with suppress(ValueError):
        yield from snapshot.parse_jobs(data)


@pytest.mark.parametrize("payload", [b"", bytes(28), pack_batch(State(), 0, [])])
def test_a_frame_without_commands_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="without"):
        parse_batch(payload)


def test_what_another_version_wrote_is_told() -> None:
    unknown = pack_batch(State(), 0, [bytes((200,)) + bytes(4)])
    with pytest.raises(ValueError, match="a command of a kind 200 that this version does not know"):
        parse_batch(unknown)


def test_a_checksum_covers_the_head_of_a_frame() -> None:
    whole = pack_frame(b"payload", HEADER_SIZE, 5, 7)
    for at in range(len(whole)):
        data = whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]
        assert not isinstance(parse_frame(data, 0, HEADER_SIZE, 7), Frame)


@many
@given(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=12), read=st.integers(1, 200))
def test_frames_of_any_size_are_read_with_any_buffer(sizes: list[int], read: int) -> None:
    payloads = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    data = bytearray(pack_header(JOURNAL, 1, 7))
    ends = []
    for payload in payloads:
        data += pack_frame(payload, len(data), 0, 7)
        ends.append(len(data))
    memory = Memory(bytes(data))
    reader = journal.Journal(memory, Path("journal"), 1, 0, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_READ", read)
        patch.setattr(snapshot, "_BLOCK", max(1, read // 4))
        assert [frame.payload for frame in reader.frames(HEADER_SIZE)] == payloads
        for count, end in enumerate(ends, 1):
            assert [frame.payload for frame in reader.frames(HEADER_SIZE, end)] == payloads[:count]
        meter = Meter.__new__(Meter)
        meter._progress = None
        assert list(snapshot._blocks(memory, 0, Path("snapshot"), 7, meter)) == payloads


class Memory(Files):
    """A file that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def size(self, fd: int) -> int:
        return len(self.data)

    def read(self, fd: int, size: int, at: int) -> bytes:
        return self.data[at : at + size]
