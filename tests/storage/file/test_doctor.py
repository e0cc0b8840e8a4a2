"""What the doctor says of a directory: all well, or what is wrong and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobqueue.errors import StorageError
from jobqueue.storage.capabilities import Diagnosable
from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.disk import filesystem
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.watch import LOOK_INTERVAL
from jobqueue.storage.file.upkeep import doctor
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Quiet

NAMES = ["filesystem", "directory", "files", "size", "space", "inodes", "fsync", "sync", "locks", "watch"]
Look = Callable[..., Any]


class Ill(Quiet):
    """Answers as a test wants it, once it is told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.answers: dict[str, Callable[..., Any]] = {}

    def _or(self, name: str, *args: Any) -> Any:
        healthy = getattr(Quiet, name)
        return self.answers.get(name, healthy.__get__(self))(*args)

    def stat(self, directory: int, name: str) -> os.stat_result:
        return self._or("stat", directory, name)

    def status(self, fd: int) -> os.stat_result:
        return self._or("status", fd)

    def space(self, directory: int) -> os.statvfs_result:
        return self._or("space", directory)

    def sync(self, fd: int) -> None:
        self._or("sync", fd)

    def reserve(self, fd: int, at: int, size: int) -> None:
        self._or("reserve", fd, at, size)

    def try_lock(self, fd: int) -> bool:
        return self._or("try_lock", fd)

    def rename(self, *names: Any) -> None:
        self._or("rename", *names)


@pytest.fixture
def files() -> Ill:
    return Ill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say on which filesystem everything is."""

    def on(kind: str) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(f"1 0 0:1 / / rw - {kind} somewhere rw\n")
        monkeypatch.setattr(filesystem, "_MOUNTS", mounts)

    on("ext4")
    return on


@pytest_asyncio.fixture
async def look(files: Ill, path: Path, mount: Callable[[str], None]) -> AsyncIterator[Look]:
    """Return what the doctor says of one thing. Whatever it finds, it leaves nothing behind."""
    store = FileStorage(path, files=files, clock=files.clock, force=True)
    await store.open()

    async def one(name: str, *, fsync: bool = True) -> Any:
        before = sorted(path.iterdir())
        found = {f.name: f for f in doctor.diagnose(files, path, files.clock, fsync=fsync)}
        assert list(found) == NAMES
        assert sorted(path.iterdir()) == before
        others = {f.name: f.text for f in found.values() if f.name != name and f.severity != "ok"}
        assert not others, "only what is asked for is ill"
        return found[name]

    yield one
    files.answers.clear()
    await store.close()


async def test_a_good_store(path: Path, mount: Callable[[str], None]) -> None:
    store = FileStorage(path)
    assert isinstance(store, Diagnosable)
    with pytest.raises(StorageError, match="not open"):
        await store.diagnose()
    await store.open()
    findings = await store.diagnose()
    await store.close()
    assert [f.name for f in findings] == NAMES
    # How much room and how fast a disk the tests have is not theirs to say.
    judged = [f for f in findings if f.name not in {"space", "inodes", "sync"}]
    assert {f.severity for f in judged} == {"ok"}, findings
    assert "ext4" in findings[0].text
    assert "0700" in findings[1].text


@pytest.mark.parametrize(
    ("kind", "severity", "says"),
    [
        ("xfs", "ok", "local"),
        ("nfs4", "warning", "Use a local disk"),
        ("fuse.sshfs", "warning", "Use a local disk"),
        ("tmpfs", "warning", "restart of the host loses all jobs"),
        ("overlay", "warning", "Mount a volume"),
    ],
)
async def test_filesystem(
    look: Look, mount: Callable[[str], None], kind: str, severity: str, says: str
) -> None:
    mount(kind)
    found = await look("filesystem")
    assert found.severity == severity
    assert found.text.startswith(kind)
    assert says in found.text


async def test_a_system_that_does_not_tell_its_filesystems(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_MOUNTS", tmp_path / "nothing")
    assert (await look("filesystem")).severity == "ok"


@pytest.mark.parametrize(
    ("mode", "severity"), [(0o777, "error"), (0o1777, "error"), (0o770, "warning"), (0o755, "warning")]
)
async def test_a_directory_that_others_can_use(look: Look, path: Path, mode: int, severity: str) -> None:
    path.chmod(mode)
    found = await look("directory")
    assert found.severity == severity
    assert f"{mode:04o}" in found.text
    assert f"chmod 700 {path}" in found.text


async def test_files_that_others_can_read(look: Look, path: Path) -> None:
    (path / "journal-0000000001").chmod(0o644)
    found = await look("files")
    assert found.severity == "warning"
    assert "0600, 0644" in found.text
    assert "chmod 600" in found.text


def owned(found: os.stat_result, user: int) -> os.stat_result:
    values = list(found)
    values[4] = user
    return os.stat_result(values)


async def test_files_of_several_users(look: Look, files: Ill) -> None:
    files.answers["stat"] = lambda directory, name: owned(
        Files.stat(files, directory, name), 0 if name == "wake" else 4_000_001
    )
    files.answers["status"] = lambda fd: owned(Files.status(files, fd), 4_000_001)
    found = await look("files")
    assert found.severity == "error"
    assert "users root, 4000001," in found.text
    assert "chown -R 4000001 " in found.text


async def test_a_directory_of_root_may_hold_the_files_of_one_user(look: Look, files: Ill, path: Path) -> None:
    files.answers["stat"] = lambda directory, name: owned(Files.stat(files, directory, name), 4_000_001)
    files.answers["status"] = lambda fd: owned(Files.status(files, fd), 0)
    assert (await look("files")).severity == "ok"


def room(files: Ill, **values: int) -> None:
    class Space:
        f_frsize, f_bavail, f_files, f_favail = 4096, 1 << 30, 1 << 20, 1 << 20

    for name, value in values.items():
        setattr(Space, name, value)
    files.answers["space"] = lambda _path: Space


@pytest.mark.parametrize(
    ("blocks", "severity", "says"),
    [
        (100, "error", "409.6 kB free: new jobs are refused"),
        (2_000, "warning", "8.2 MB free: compacting"),
        (1 << 20, "ok", "4.3 GB free"),
    ],
)
async def test_space(look: Look, files: Ill, blocks: int, severity: str, says: str) -> None:
    room(files, f_bavail=blocks)
    found = await look("space")
    assert found.severity == severity
    assert says in found.text


@pytest.mark.parametrize(
    ("all", "free", "severity"),
    [(1 << 20, 3, "error"), (1 << 20, 300, "warning"), (1 << 20, 1 << 19, "ok"), (0, 0, "ok")],
)
async def test_inodes(look: Look, files: Ill, all: int, free: int, severity: str) -> None:
    room(files, f_files=all, f_favail=free)
    assert (await look("inodes")).severity == severity


async def test_size(look: Look, path: Path) -> None:
    assert "1 journal, 1 snapshot" in (await look("size")).text
    (path / "damaged-0000000002").mkdir()
    found = await look("size")
    assert found.severity == "warning"
    assert "damaged-0000000002" in found.text
    for number in range(2, 6):
        (path / f"journal-{number:010d}").touch(mode=0o600)
    found = await look("size")
    assert found.severity == "warning"
    assert "5 journals" in found.text
    assert "Compacting lags behind" in found.text


async def test_without_fsync(look: Look) -> None:
    found = await look("fsync", fsync=False)
    assert found.severity == "warning"
    assert "power cut" in found.text


@pytest.mark.parametrize(
    ("seconds", "severity", "says"),
    [
        ([0.001], "ok", "p50 1.00 ms, p99 1.00 ms of 50"),
        ([0.030], "warning", "every call that stores waits"),
        ([0.001] * 49 + [0.9], "warning", "something else keeps the disk busy"),
        ([1.0], "warning", "of 3"),
    ],
)
async def test_sync(look: Look, files: Ill, seconds: list[float], severity: str, says: str) -> None:
    count = 0

    def sync(_fd: int) -> None:
        nonlocal count
        # The first one is not timed.
        files.clock.move(seconds[count % len(seconds)] if count else 0)
        count += 1

    files.answers["sync"] = sync
    found = await look("sync")
    assert found.severity == severity
    assert says in found.text


def fail(number: int) -> Callable[..., Any]:
    def call(*_args: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("call", "number", "name", "says"),
    [
        ("sync", errno.EIO, "sync", "Input/output error"),
        ("reserve", errno.ENOSPC, "sync", "free some space"),
        ("try_lock", errno.ENOLCK, "locks", "locks"),
    ],
)
async def test_what_fails_is_found(
    look: Look, files: Ill, call: str, number: int, name: str, says: str
) -> None:
    files.answers[call] = fail(number)
    found = await look(name)
    assert found.severity == "error"
    assert says in found.text


@pytest.mark.parametrize(
    ("call", "answer"), [("try_lock", lambda _fd: True), ("rename", lambda *_names: None)]
)
async def test_locks(look: Look, files: Ill, call: str, answer: Callable[..., Any]) -> None:
    files.answers[call] = answer
    found = await look("locks")
    assert found.severity == "error"
    assert "use another filesystem" in found.text


class Watcher:
    def __init__(self, number: int | None) -> None:
        self.interval = LOOK_INTERVAL
        self.number = number

    def fileno(self) -> int | None:
        return self.number

    def clear(self) -> None: ...

    def close(self) -> None: ...


async def test_polling(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "watch", lambda _path: Watcher(None))
    for name, value in (("instances", "8"), ("watches", "99")):
        (tmp_path / f"max_user_{name}").write_text(f"{value}\n")
    monkeypatch.setattr(doctor, "_INOTIFY", tmp_path)
    found = await look("watch")
    assert found.severity == "warning"
    assert "each 20 ms" in found.text
    assert "8 instances and 99 watches" in found.text
    assert "fs.inotify.max_user_instances" in found.text


async def test_polling_where_there_is_nothing_else(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "watch", lambda _path: Watcher(None))
    monkeypatch.setattr(doctor, "_INOTIFY", tmp_path / "nothing")
    assert "gives no notifications of writes" in (await look("watch")).text


async def test_a_watch_that_tells_nothing(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    silent, other = os.pipe()
    monkeypatch.setattr(doctor, "watch", lambda _path: Watcher(silent))
    monkeypatch.setattr(doctor, "_HEARD_WITHIN", 0.01)
    found = await look("watch")
    os.close(silent)
    os.close(other)
    assert found.severity == "warning"
    assert "not told of" in found.text
