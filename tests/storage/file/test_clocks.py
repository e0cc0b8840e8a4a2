"""Clocks, boots and time namespaces: what each process believes of them."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.file import FileStorage, timekeeper
from jobqueue.storage.file.turn import TurnOutcome
from jobqueue.storage.file.upkeep import fsck, rotation
from jobqueue.storage.values import NewJob, SettleStatus
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Quiet
from tests.storage.file.program import LEASE, TTL
from tests.storage.file.seams import core_of

Make = Callable[..., Any]
ROOT = Path(__file__).parents[3]
HOUR = 3600.0


class Settable(FakeClock):
    """A clock that somebody sets."""

    virtual = False
    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class Elsewhere(FakeClock):
    """The same clock, seen from another time namespace."""

    virtual = False

    def __init__(self, clock: Settable) -> None:
        super().__init__()
        self.clock = clock

    def time(self) -> float:
        return self.clock.time()

    def monotonic(self) -> float:
        return self.clock.monotonic() + 24 * HOUR


class Boot(Quiet):
    def __init__(self, boot: str) -> None:
        self.boot = boot

    def boot_id(self) -> str:
        return self.boot


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    stores: list[FileStorage] = []

    async def make_one(clock: FakeClock, **options: Any) -> FileStorage:
        store = FileStorage(tmp_path / "store", clock=clock, **{"files": Quiet(), **options})
        await store.open()
        stores.append(store)
        return store

    yield make_one
    for store in stores:
        await store.close()


async def claim(store: FileStorage, id: str, lease: int = LEASE) -> Any:
    await store.insert("q", [NewJob(id, b"", ttl=TTL)])
    (run,) = (await store.exchange("q", "w", [], 1, lease)).jobs
    return run


# -- other clocks -----------------------------------------------------------------------------------


@pytest.fixture(params=["known", "unknown"])
def make_elsewhere(request: pytest.FixtureRequest, make: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Open a store from another time namespace, whose offset may or may not be told."""

    async def make_one(clock: Settable) -> FileStorage:
        told = 24 * int(HOUR) * 1000 if request.param == "known" else None
        with monkeypatch.context() as patch:
            patch.setattr(timekeeper, "_namespace_offset", lambda: told)
            return await make(Elsewhere(clock))

    return make_one


async def test_a_process_with_another_monotonic_clock_moves_nothing(
    make: Make, make_elsewhere: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    clock = Settable()
    first, second = await make(clock), await make_elsewhere(clock)
    run = await claim(first, "a")
    for store in (second, first) * 3:
        assert await store.sweep("q", 10) == []
        clock.move(1)
    done = Settlement(run.id, run.fence, Action.COMPLETE, b"", TTL)
    assert (await first.exchange("q", "w", [done], 0, LEASE)).settled == [SettleStatus.ACCEPTED]
    assert caplog.text == ""


async def test_a_clock_that_is_set_is_written_down_once_by_all_together(
    make: Make, make_elsewhere: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    clock = Settable()
    first, second = await make(clock), await make_elsewhere(clock)
    await claim(first, "a")
    await second.counts("q")
    clock.ahead = HOUR
    for store in (second, first) * 3:
        assert await store.sweep("q", 10) == []
    assert caplog.text.count("the clock was set by +3600000 ms") == 1
    clock.move(LEASE / 1000 + 1)
    assert [swept.id for swept in await second.sweep("q", 10)] == ["a"]


async def test_a_process_that_comes_right_after_the_clock_was_set(make: Make) -> None:
    """Before those that were there have looked."""
    clock = Settable()
    first = await make(clock)
    await claim(first, "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_of(first), "turn", lambda _: TurnOutcome([], [], notify=False, resync=False))
        clock.ahead = HOUR
        second = await make(clock)
        assert await second.sweep("q", 10) == []
    assert await first.sweep("q", 10) == []


async def test_a_clock_that_was_set_while_nobody_was_there(make: Make) -> None:
    clock = Settable()
    store = await make(clock)
    await claim(store, "a")
    await store.close()
    clock.ahead = HOUR
    await store.open()
    assert await store.sweep("q", 10) == []


async def test_what_could_not_be_written_is_written_by_the_next_turn(make: Make) -> None:
    """That the clock was set is not forgotten with a turn that fails."""

    class Full(Quiet):
        fails = False

        def write(self, fd: int, data: bytes, at: int) -> None:
            if self.fails:
                raise OSError(5, "Input/output error")
            super().write(fd, data, at)

    clock, files = Settable(), Full()
    store = await make(clock, files=files)
    await claim(store, "a")
    clock.ahead, files.fails = HOUR, True
    with pytest.raises(StorageError):
        await store.insert("q", [NewJob("b", b"")])
    files.fails = False
    assert await store.sweep("q", 10) == []


# -- boots ------------------------------------------------------------------------------------------


async def test_a_process_of_another_boot_is_refused_while_one_is_there(make: Make) -> None:
    clock = FakeClock()
    store = await make(clock, files=Boot("one"))
    run = await claim(store, "a")
    with pytest.raises(StorageError, match=r"another boot \(one, here two\).*another directory"):
        await make(clock, files=Boot("two"))
    assert await store.sweep("q", 10) == []
    await make(clock, files=Boot("one"))
    done = Settlement(run.id, run.fence, Action.COMPLETE, b"", TTL)
    assert (await store.exchange("q", "w", [done], 0, LEASE)).settled == [SettleStatus.ACCEPTED]


async def test_after_the_last_has_gone_another_boot_begins(tmp_path: Path) -> None:
    clock = FakeClock()
    stores = [FileStorage(tmp_path / "store", clock=clock, files=Boot("one")) for _ in range(2)]
    for store in stores:
        await store.open()
    await claim(stores[0], "a")
    later = FileStorage(tmp_path / "store", clock=clock, files=Boot("two"))
    for store in stores:
        with pytest.raises(StorageError, match="another boot"):
            await later.open()
        await store.close()
    await later.open()
    assert [swept.id for swept in await later.sweep("q", 10)] == ["a"]
    await later.close()


# -- backups ----------------------------------------------------------------------------------------


async def test_after_a_backup_is_put_back_no_number_comes_again(tmp_path: Path) -> None:
    clock, path, backup = FakeClock(), tmp_path / "store", tmp_path / "backup"
    store = FileStorage(path, clock=clock, files=Quiet())
    await store.open()
    await store.insert("q", [NewJob("a", b"", ttl=TTL)])
    await store.close()
    shutil.copytree(path, backup)
    clock.move(1)
    await store.open()
    (run,) = (await store.exchange("q", "w", [], 1, LEASE)).jobs
    (given,) = await store.insert("q", [NewJob("b", b"")])
    term = await store.lock_acquire("l", "me", LEASE)
    await store.close()
    shutil.rmtree(path)
    shutil.copytree(backup, path)
    clock.move(1)
    await store.open()
    (again,) = (await store.exchange("q", "v", [], 1, LEASE)).jobs
    assert again.fence > run.fence
    assert (await store.insert("q", [NewJob("c", b"")]))[0].seq > given.seq
    assert await store.lock_acquire("l", "you", LEASE) > term
    stale = Settlement(run.id, run.fence, Action.COMPLETE, b"stale", TTL)
    assert (await store.exchange("q", "w", [stale], 0, LEASE)).settled == [SettleStatus.LOST]
    assert (await store.get("q", ["a"]))[0].state is JobState.PROCESSING
    await store.close()


@pytest.mark.parametrize("rotate_at", [1000, 1 << 20])
async def test_a_backup_that_is_put_back_under_a_running_process(
    rotate_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against what the guide says, and into the same files: it is noticed all the same."""
    monkeypatch.setattr(rotation.Compaction, "start", lambda *_: None)
    clock, path, backup = FakeClock(), tmp_path / "store", tmp_path / "backup"
    store = FileStorage(path, clock=clock, files=Quiet(), rotate_at=rotate_at)
    await store.open()
    await store.insert("q", [NewJob("a", b"", ttl=TTL)])
    shutil.copytree(path, backup)
    clock.move(1)
    (run,) = (await store.exchange("q", "w", [], 1, LEASE)).jobs
    await store.insert("q", [NewJob(f"b{number}", bytes(300)) for number in range(10)])
    with (path / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that this process does not look meanwhile
        for file in path.iterdir():
            if not (backup / file.name).exists():
                file.unlink()
        for file in backup.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
    clock.move(1)
    (again,) = (await store.exchange("q", "v", [], 20, LEASE)).jobs
    assert again.id == run.id
    assert again.fence > run.fence
    await store.close()
    assert fsck.check(Quiet(), path) == []


async def test_a_clock_of_another_millennium_leaves_numbers_that_others_can_count(make: Make) -> None:
    clock = Settable()
    clock.ahead = HOUR * 24 * 365 * 5000
    store = await make(clock)
    run = await claim(store, "a")
    assert 1 << 52 < run.fence < 1 << 53
    clock.ahead = 0.0
    assert (await claim(store, "b")).fence > run.fence


async def test_looking_on_writes_nothing(tmp_path: Path) -> None:
    """Only who changes something has numbers to give."""
    path = tmp_path / "store"
    store = FileStorage(path, files=Quiet())
    await store.open()
    await store.insert("q", [NewJob("a", b"")])
    await store.close()
    before = (path / "journal-0000000001").read_bytes()
    await store.open()
    await store.counts("q")
    await store.get("q", ["a"])
    await store.close()
    assert (path / "journal-0000000001").read_bytes() == before


# -- time namespaces --------------------------------------------------------------------------------


OFFSET = 86_400
UNSHARE = ["unshare", "--time", "--monotonic", str(OFFSET), "--boottime", str(OFFSET), "--fork"]
TELL = """
import json
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.file.timekeeper import OwnClock
print(json.dumps([OwnClock(SYSTEM_CLOCK).read().offset, SYSTEM_CLOCK.monotonic()]))
"""


def told(*command: str) -> Any:
    return json.loads(
        subprocess.run([*command, sys.executable, "-c", TELL], capture_output=True, check=True).stdout
    )


def test_a_time_namespace_is_seen_through() -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a time namespace cannot be made here")
    here, there = told(), told(*UNSHARE)
    assert there[1] - here[1] > OFFSET / 2, "it has another monotonic clock"
    assert abs(there[0] - here[0]) < timekeeper.TOLERANCE


@pytest.mark.parametrize(
    ("own", "children", "text", "offset"),
    [
        ("time:[1]", "time:[1]", "monotonic    86400 500000000\nboottime  7 0\n", 86_400_500),
        ("time:[1]", "time:[1]", "monotonic           0         0\nboottime   0   0\n", 0),
        ("time:[1]", "time:[2]", "monotonic    86400 0\n", None),  # what is told is not its own
        (None, None, None, 0),
    ],
)
def test_what_a_system_tells_of_a_namespace(
    own: str | None, children: str | None, text: str | None, offset: int | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if own is not None and children is not None and text is not None:
        (tmp_path / "time").symlink_to(own)
        (tmp_path / "time_for_children").symlink_to(children)
        (tmp_path / "offsets").write_text(text)
    monkeypatch.setattr(timekeeper, "_NAMESPACES", tmp_path)
    monkeypatch.setattr(timekeeper, "_OFFSETS", tmp_path / "offsets")
    assert timekeeper._namespace_offset() == offset
