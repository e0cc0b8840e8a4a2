"""Every byte of a small store flipped, every length cut: found out, never served, and mended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.calls import write
from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.frames import (
    FRAME_SIZE,
    HEADER_SIZE,
    SNAPSHOT,
    find_frames,
    pack_frame,
    parse_header,
)
from jobqueue.storage.file.disk.journal import Journal
from jobqueue.storage.file.upkeep import fsck, rotation
from jobqueue.storage.values import Change, NewJob
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Quiet
from tests.storage.file.program import LEASE, Ledger, Program, make_core, one, read

JOBS = 6
MORE = int(os.environ.get("JOBQUEUE_TEST_MORE", "1"))


def write_store(directory: Path, clock: FakeClock) -> None:
    """Some jobs, each inserted in a frame of its own; the first is done."""
    core = make_core(directory, Quiet(), clock)
    core.open()
    for number in range(JOBS):
        one(core, commands.Insert("q", [NewJob(f"job-{number}", b"payload")], None, None))
    (claimed,) = one(core, commands.Exchange("q", "w", [], 1, LEASE)).jobs
    done = Settlement(claimed.id, claimed.fence, Action.COMPLETE, b"result", 60_000)
    one(core, commands.Exchange("q", "w", [done], 0, LEASE))
    core.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    clock = FakeClock()
    write_store(tmp_path / "store", clock)
    return tmp_path / "store"


def copy_of(store: Path, name: str) -> Path:
    copy = store.parent / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy)
    return copy


def forget_page(directory: Path) -> None:
    (directory / "lock").write_bytes(b"")


def frames_of(store: Path) -> list[tuple[int, int]]:
    with Directory.open(Quiet(), store) as directory:
        journal = Journal.open(directory, 1)
    frames = [(frame.offset, frame.end) for frame in journal.frames(HEADER_SIZE)]
    journal.close()
    return frames


def open_ids(directory: Path) -> set[str]:
    """Open, and name the jobs."""
    core = make_core(directory, Quiet(), FakeClock())
    try:
        core.open()
        ids = [f"job-{number}" for number in range(JOBS)]
        records = read(core, "get", "q", ids)
        return {record.id for record in records if record is not None}
    finally:
        core.close()


def test_every_byte_of_the_journal_flipped(store: Path) -> None:
    """With the page of this boot, which knows what was safe: always refused, always with the remedy."""
    journal = store / "journal-0000000001"
    end = frames_of(store)[-1][1]
    whole = journal.read_bytes()
    for at in range(end):
        journal.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(StorageError, match="fsck"):
            open_ids(store)


def test_every_byte_flipped_after_a_restart(store: Path) -> None:
    """Without the page: refused, but for the frames that no later one vouches for; those are cut."""
    whole = (store / "journal-0000000001").read_bytes()
    frames = frames_of(store)
    vouched = frames[-2][1]  # the last frame was the last to be synced: nothing tells that it was
    refused = 0
    for at in range(frames[-1][1]):
        forget_page(store)
        (store / "journal-0000000001").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            left = open_ids(store)
        except StorageError as error:
            refused += "fsck" in str(error)
        else:
            assert at >= frames[-3][0], f"damage at {at} of {vouched} was not found"
            assert len(left) == JOBS
    assert refused >= frames[-3][0]


def test_every_length_cut_after_a_restart(store: Path) -> None:
    """A cut takes whole calls away, the last first, and says so."""
    whole = (store / "journal-0000000001").read_bytes()
    frames = frames_of(store)
    for size in range(HEADER_SIZE, frames[-1][1], 1 if MORE > 1 else 7):
        forget_page(store)
        (store / "journal-0000000001").write_bytes(whole[:size])
        inserts = [end for _, end in frames[1 : 1 + JOBS]]
        assert open_ids(store) == {f"job-{n}" for n, end in enumerate(inserts) if end <= size}


def test_a_torn_tail_is_reported(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal, (start, end) = store / "journal-0000000001", frames_of(store)[-1]
    whole = journal.read_bytes()
    journal.write_bytes(whole[: (start + end) // 2])
    forget_page(store)
    assert len(open_ids(store)) == JOBS
    assert f"unfinished write at {start}" in caplog.text


def test_every_byte_of_the_snapshot_flipped(tmp_path: Path) -> None:
    ledger, clock = Ledger(), FakeClock()
    Program(tmp_path / "s", Quiet(), clock, ledger).run()
    (snapshot,) = (path for path in (tmp_path / "s").iterdir() if path.name.startswith("snapshot"))
    whole = snapshot.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 300)):
        snapshot.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(StorageError, match="fsck --repair"):
            open_ids(tmp_path / "s")
    snapshot.write_bytes(whole[:-5])
    with pytest.raises(StorageError, match="fsck --repair"):
        open_ids(tmp_path / "s")


@pytest.mark.parametrize("name", ["journal-0000000001", "snapshot-0000000001"])
def test_a_missing_file_refuses(store: Path, name: str) -> None:
    (store / name).unlink()
    with pytest.raises(StorageError, match="fsck"):
        open_ids(store)


def test_the_lock_file_may_be_lost(store: Path) -> None:
    (store / "lock").unlink()
    assert len(open_ids(store)) == JOBS


def test_another_version_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue.storage.file.disk.frames.ENGINE", 99)
    with pytest.raises(StorageError, match="another version"):
        open_ids(store)


def test_a_store_that_diverges_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters in every frame tell when a replay comes to something else."""
    monkeypatch.setattr("jobqueue.storage.file.commands.jobs.Insert.apply", lambda *args: [])
    with pytest.raises(StorageError, match="another state"):
        open_ids(store)


# -- fsck -----------------------------------------------------------------------------------------


async def test_a_sound_store_has_no_findings(store: Path) -> None:
    assert list(await FileStorage(store).check()) == []
    assert list(await FileStorage(store).check(repair=True)) == []


async def test_check_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not the directory of a file store"):
        await FileStorage(tmp_path / "none").check()


def test_repair_saves_every_job_outside_of_the_damage(store: Path) -> None:
    frames = frames_of(store)
    for number, (start, _) in enumerate(frames):
        copy = copy_of(store, "copy")
        journal = copy / "journal-0000000001"
        data = bytearray(journal.read_bytes())
        data[start + FRAME_SIZE + 3] ^= 255
        journal.write_bytes(data)
        findings = fsck.check(Quiet(), copy)
        assert [finding.severity for finding in findings] == ["error"]
        mended = fsck.repair(Quiet(), copy)
        assert all(finding.severity == "warning" for finding in mended)
        assert fsck.check(Quiet(), copy) == []
        lost = {f"job-{number - 1}"} if 1 <= number <= JOBS else set[str]()
        assert open_ids(copy) == {f"job-{n}" for n in range(JOBS)} - lost
        assert (copy / "damaged-0000000002" / "journal-0000000001").exists()


@pytest.mark.parametrize("name", ["journal-0000000001", "snapshot-0000000001"])
def test_repair_without_a_file(store: Path, name: str) -> None:
    (store / name).unlink()
    assert any(finding.severity == "error" for finding in fsck.check(Quiet(), store))
    fsck.repair(Quiet(), store)
    assert fsck.check(Quiet(), store) == []
    assert len(open_ids(store)) == (JOBS if name.startswith("snapshot") else 0)


def test_repair_of_a_snapshot(tmp_path: Path) -> None:
    """Its sound blocks are kept."""
    ledger, clock = Ledger(), FakeClock()
    Program(tmp_path / "s", Quiet(), clock, ledger).run()
    (snapshot,) = (path for path in (tmp_path / "s").iterdir() if path.name.startswith("snapshot"))
    whole = bytearray(snapshot.read_bytes())
    whole[HEADER_SIZE + FRAME_SIZE + 2] ^= 1  # the counters
    snapshot.write_bytes(whole)
    fsck.repair(Quiet(), tmp_path / "s")
    core = make_core(tmp_path / "s", Quiet(), clock)
    core.open()
    records = read(core, "get", "q", sorted(ledger.live))
    assert all(record is not None for record in records)
    core.close()


async def test_documents_that_cannot_be_read_are_reported_and_the_rest_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "CLOSING_SNAPSHOT", 1 << 20)
    store = FileStorage(tmp_path)
    await store.open()
    await store.insert("q", [NewJob("a", b"payload")])
    await store.write_documents("space", [Change("name", 0, b"data")])
    await store.close()
    (snapshot,) = tmp_path.glob("snapshot-*")
    data = snapshot.read_bytes()
    header = parse_header(data, SNAPSHOT)
    assert header is not None
    for frame in find_frames(data, HEADER_SIZE, 0, header.salt):
        if frame.payload[:1] == b"d":
            senseless = b"d" + b"\xff" * (len(frame.payload) - 1)
            sealed = pack_frame(senseless, frame.offset, frame.synced, header.salt)
            data = data[: frame.offset] + sealed + data[frame.end :]
    snapshot.write_bytes(data)
    with pytest.raises(StorageError, match="fsck"):
        await store.open()
    assert any("documents that cannot be read" in finding.text for finding in await store.check())
    await store.check(repair=True)
    assert await store.check() == []
    await store.open()
    assert await store.read_documents("space", ["name"]) == [None]
    assert [record is not None for record in await store.get("q", ["a"])] == [True]
    await store.close()


def test_who_has_the_store_open_begins_anew_after_a_repair(store: Path) -> None:
    clock = FakeClock()
    core = make_core(store, Quiet(), clock)
    core.open()
    journal = store / "journal-0000000001"
    data = bytearray(journal.read_bytes())
    data[frames_of(store)[2][0] + FRAME_SIZE] ^= 255
    journal.write_bytes(data)
    fsck.repair(Quiet(), store)
    turn = core.turn([write(commands.Insert("q", [NewJob("new", b"")], None, None))])
    assert turn.resync
    assert read(core, "get", "q", ["new"])[0] is not None
    assert read(core, "get", "q", ["job-1"]) == [None]
    core.close()
