"""Calls on their way: bad ones, ones that nobody waits for any more, and very large ones."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobqueue.errors import InvalidArgumentError, StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.file import FileStorage, calls, open_store, pump
from jobqueue.storage.values import InsertStatus, NewJob, Renewal
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Quiet
from tests.storage.file.program import LEASE
from tests.storage.file.seams import core_of

Make = Callable[..., Any]


class Gate(Quiet):
    """A disk that can be made to wait."""

    def __init__(self) -> None:
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.reached = threading.Event()
        self.frames: list[int] = []

    def write(self, fd: int, data: bytes, at: int) -> None:
        if data[:4] == b"\xf5JQ\x0a":
            self.frames.append(len(data))
            self.reached.set()
            assert self.open_gate.wait(20)
        super().write(fd, data, at)


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    stores: list[FileStorage] = []

    async def make_one(**options: Any) -> FileStorage:
        store = FileStorage(tmp_path / "store", clock=FakeClock(), **{"files": Quiet(), **options})
        await store.open()
        stores.append(store)
        return store

    yield make_one
    for store in stores:
        await store.close()


@contextmanager
def held(store: FileStorage) -> Iterator[None]:
    """Hold the lock, as a stopped process does."""
    file = os.open(store.path / "lock", os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def state(store: FileStorage, id: str) -> JobState | None:
    (record,) = await store.get("q", [id])
    return record and record.state


# -- bad ones ---------------------------------------------------------------------------------------


BAD: list[tuple[str, tuple[Any, ...]]] = [
    ("insert", ("q", [NewJob("\ud800", b"")])),
    ("insert", ("q", [NewJob("a", "text")])),  # type: ignore[arg-type]
    ("insert", ("q", [NewJob("a", b"", priority=2**40)])),
    ("insert", ("q", [NewJob("a", b"", ttl=1.5)])),  # type: ignore[arg-type]
    ("insert", ("q", [NewJob("a", b"", reuse="never")])),  # type: ignore[arg-type]
    ("insert", ("q", [None])),
    ("insert", (None, [NewJob("a", b"")])),
    ("exchange", ("q", "w", [], 1, 30.0)),
    ("exchange", ("q", "w", [], "1", LEASE)),
    ("exchange", ("q", "w", [("a", 1)], 1, LEASE)),
    ("exchange", ("q", "w", [Settlement("a", 1, Action.CLAIM)], 1, LEASE)),
    ("extend", ("q", "w", [Renewal("a", 2**70)], LEASE)),
    ("sweep", ("q", 0.5)),
    ("cancel", ("q", [1])),
    ("set_ttl", ("q", [("a", None)])),
    ("purge", (b"q", 1)),
    ("lock_acquire", ("l", "me", 1e9)),
    ("lock_renew", ("l", None, 1)),
    ("lock_release", (3, "me")),
]


@pytest.mark.parametrize(("name", "arguments"), BAD)
async def test_a_call_that_cannot_be_written_fails_alone(
    name: str, arguments: tuple[Any, ...], make: Make
) -> None:
    store = await make()
    good = [store.insert("q", [NewJob(f"good-{number}", b"")]) for number in range(3)]
    bad = getattr(store, name)(*arguments)
    *answers, refused = await asyncio.gather(*good, bad, return_exceptions=True)
    assert isinstance(refused, InvalidArgumentError), refused
    assert [answer[0].status for answer in answers] == [InsertStatus.CREATED] * 3


async def test_a_call_beyond_what_lengths_can_tell(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await make()
    monkeypatch.setattr(calls, "MAX_CALL", 10_000)
    with pytest.raises(InvalidArgumentError, match="at most 10000 bytes"):
        await store.insert("q", [NewJob("a", bytes(10_000))])
    assert await state(store, "a") is None


# -- ones that nobody waits for -----------------------------------------------------------------------


async def test_a_call_that_was_given_up_is_not_carried_out_later(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_store, "STUCK_AFTER", 0.05)
    store = await make()
    await store.insert("q", [NewJob("a", b"")])
    with held(store):
        for call in (
            store.exchange("q", "w", [], 1, LEASE),
            store.insert("q", [NewJob("b", b"")]),
            store.cancel("q", ["a"]),
        ):
            with pytest.raises(StorageUnavailableError, match="has not answered"):
                await call
    monkeypatch.undo()
    assert await state(store, "a") == JobState.QUEUED
    assert await state(store, "b") is None
    assert (await store.counts("q")).processing == 0


async def test_jobs_that_a_given_up_call_has_claimed_are_given_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was carried out already, and only the disk was slow."""
    monkeypatch.setattr(open_store, "STUCK_AFTER", 0.05)
    gate = Gate()
    store = await make(files=gate)
    await store.insert("q", [NewJob("a", b""), NewJob("b", b"")])
    gate.reached.clear()
    gate.open_gate.clear()
    with pytest.raises(StorageUnavailableError, match="has not answered"):
        await store.exchange("q", "w", [], 5, LEASE)
    assert gate.reached.is_set()
    monkeypatch.undo()
    gate.open_gate.set()
    async with asyncio.timeout(20):
        while (await store.counts("q")).queued < 2:
            await asyncio.sleep(0.005)
    (first, second) = (await store.exchange("q", "w", [], 5, LEASE)).jobs
    assert [(job.id, job.attempts) for job in (first, second)] == [("a", 1), ("b", 1)]


@pytest.mark.parametrize("rounds", range(6))
async def test_jobs_that_a_cancelled_call_has_claimed_are_given_back(rounds: int, make: Make) -> None:
    """Whenever it is cancelled: before it is sent, meanwhile, or with its answer there."""
    store = await make()
    await store.insert("q", [NewJob("a", b"")])
    call = asyncio.ensure_future(store.exchange("q", "w", [], 1, LEASE))
    for _ in range(rounds):
        await asyncio.sleep(0)
    if call.done():
        return
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(20):
        while not (await store.exchange("q", "v", [], 1, LEASE)).jobs:
            await asyncio.sleep(0.005)


async def test_closing_gives_back_what_a_cancelled_call_has_claimed(make: Make) -> None:
    gate = Gate()
    store, other = await make(files=gate), await make()
    await store.insert("q", [NewJob("a", b"")])
    gate.reached.clear()
    gate.open_gate.clear()
    call = asyncio.ensure_future(store.exchange("q", "w", [], 1, LEASE))
    await until(gate.reached.is_set)
    call.cancel()
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    gate.open_gate.set()
    await closing
    assert await state(other, "a") == JobState.QUEUED


async def test_that_nothing_could_be_given_back_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    gate = Gate()
    store = await make(files=gate)
    await store.insert("q", [NewJob("a", b"")])
    gate.reached.clear()
    gate.open_gate.clear()
    call = asyncio.ensure_future(store.exchange("q", "w", [], 1, LEASE))
    await until(gate.reached.is_set)
    call.cancel()

    def fails(*_: Any) -> Any:
        raise StorageError("no luck")

    monkeypatch.setattr(core_of(store), "_commit_turn", fails)
    gate.open_gate.set()
    await until(lambda: "could not be given back: no luck" in caplog.text)


# -- large ones ---------------------------------------------------------------------------------------


async def test_a_turn_takes_so_many_bytes_and_calls(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that calls of other processes come in between."""
    gate = Gate()
    store = await make(files=gate)
    for module in (pump, open_store):
        monkeypatch.setattr(module, "MOST_BYTES", 10_000)
        monkeypatch.setattr(module, "MOST_CALLS", 20)
    gate.frames.clear()
    answers = await asyncio.gather(*(store.insert("q", [NewJob(f"b{n}", bytes(3000))]) for n in range(40)))
    assert all(answer[0].status is InsertStatus.CREATED for answer in answers)
    assert len(gate.frames) >= 10
    assert max(gate.frames) < 2 * 10_000 + 5_000
    gate.frames.clear()
    await asyncio.gather(*(store.insert("q", [NewJob(f"s{n}", b"")]) for n in range(100)))
    assert 3 <= len(gate.frames) <= 6
