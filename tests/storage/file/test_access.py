"""Whose files they are, which are refused, and what a repair does with what somebody has planted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobqueue.errors import StorageError
from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.frames import FRAME_SIZE, HEADER_SIZE
from jobqueue.storage.file.upkeep import fsck
from jobqueue.storage.values import NewJob
from tests.storage.file.layers import Quiet
from tests.storage.file.program import compact_at

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")


async def fill(path: Path, *, rotate_at: int = 1 << 20) -> None:
    store = FileStorage(path, files=Quiet(), rotate_at=rotate_at)
    await store.open()
    for number in range(30):
        await store.insert("q", [NewJob(str(number), bytes(300))])
    await store.close()


def damage(path: Path) -> None:
    journal = path / "journal-0000000001"
    data = bytearray(journal.read_bytes())
    data[HEADER_SIZE + FRAME_SIZE + 1] ^= 255
    journal.write_bytes(data)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o777, 0o377, 0o027, 0])
async def test_modes_do_not_depend_on_the_umask(mask: int, tmp_path: Path, umask: None) -> None:
    path = tmp_path / "store"
    os.umask(mask)
    await fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
async def test_a_directory_that_everybody_can_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StorageError, match=f"has mode {mode:04o}.*chmod 700.*inside of it"):
        await FileStorage(tmp_path).open()
    assert list(tmp_path.iterdir()) == []
    await fill(tmp_path / "inside")


async def test_a_directory_that_a_group_can_write_to_is_taken(tmp_path: Path) -> None:
    """As `mkdir` makes them where each user has a group; the doctor warns of it."""
    tmp_path.chmod(0o775)
    store = FileStorage(tmp_path)
    await store.open()
    found = {finding.name: finding.severity for finding in await store.diagnose()}
    await store.close()
    assert found["directory"] == "warning"


@pytest.mark.parametrize("name", ["lock", "users", "wake", "journal-0000000001", "snapshot-0000000001"])
@pytest.mark.parametrize("what", ["link", "hard link", "pipe", "directory"])
async def test_what_is_no_file_of_the_store_alone_is_refused(what: str, name: str, tmp_path: Path) -> None:
    path, outside = tmp_path / "store", tmp_path / "outside"
    await fill(path)
    (path / name).rename(outside)
    before = outside.read_bytes()
    if what == "link":
        (path / name).symlink_to(outside)
    elif what == "hard link":
        os.link(outside, path / name)
    elif what == "pipe":
        os.mkfifo(path / name)
    else:
        (path / name).mkdir()
    with pytest.raises(StorageError, match=r"link|not a regular file|there is a directory"):
        await FileStorage(path).open()
    assert outside.read_bytes() == before


async def test_what_is_left_of_a_rotation_is_replaced_not_written_to(tmp_path: Path) -> None:
    path, outside = tmp_path / "store", tmp_path / "outside"
    await fill(path)
    outside.write_bytes(b"precious")
    os.link(outside, path / "journal-0000000002")
    (path / "snapshot-0000000002.tmp").symlink_to(outside)
    await fill(path, rotate_at=2000)
    compact_at(Quiet(), path)
    assert outside.read_bytes() == b"precious"
    assert not (path / "journal-0000000001").exists()


async def test_a_repair_leaves_the_directory_by_no_link(tmp_path: Path) -> None:
    path, outside = tmp_path / "store", tmp_path / "outside"
    await fill(path)
    damage(path)
    outside.mkdir()
    for name in ("damaged-0000000002", "snapshot-0000000002.tmp"):
        (path / name).symlink_to(outside)
    findings = fsck.repair(Quiet(), path)
    assert list(outside.iterdir()) == []
    assert findings[-1].name == "damaged-0000000002-2"
    assert (path / "damaged-0000000002-2" / "journal-0000000001").exists()
    await fill(path)


@as_root
async def test_what_root_makes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)
    await fill(path, rotate_at=2000)
    compact_at(Quiet(), path)
    damage_of = max(path.glob("journal-*"))
    data = bytearray(damage_of.read_bytes())
    data[HEADER_SIZE] ^= 255
    damage_of.write_bytes(data)
    fsck.repair(Quiet(), path)
    made = [path, *path.rglob("*")]
    assert any(file.name.startswith("damaged-") for file in made)
    assert {(file.stat().st_uid, file.stat().st_gid) for file in made} == {(NOBODY, NOBODY)}


@as_root
async def test_a_file_that_was_there_is_given_to_nobody(tmp_path: Path) -> None:
    """Who may write to the directory cannot have root give away what is somebody else's."""
    path = tmp_path / "store"
    path.mkdir(mode=0o700)
    (path / "wake").touch(mode=0o600)
    os.chown(path, NOBODY, NOBODY)
    await fill(path)
    assert (path / "wake").stat().st_uid == 0
    assert (path / "lock").stat().st_uid == NOBODY


def test_two_who_list_the_names_at_once_see_all_of_them(tmp_path: Path) -> None:
    """As a process does, and the one that it has started to compact with the same descriptor."""
    for number in range(2000):
        (tmp_path / f"{number:05d}").touch()
    with Directory.open(Files(), tmp_path) as directory, directory.copy() as other:
        with ThreadPoolExecutor(2) as pool:
            lists = [pool.submit((directory, other)[turn % 2].names) for turn in range(40)]
        assert {len(listed.result()) for listed in lists} == {2000}
