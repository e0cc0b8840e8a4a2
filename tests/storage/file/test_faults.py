"""System calls that fail: typed errors, nothing half done, and the store goes on when the fault is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobqueue.errors import QueueFullError, StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.file import FileStorage, pump
from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.disk import files, filesystem, journal
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.values import InsertStatus, NewJob
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Failing, FullDisk, Quiet
from tests.storage.file.program import LEASE, TTL, compact_at, make_core, one, read

MakeCore = Callable[..., StoreCore]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeCore]:
    clock, cores = FakeClock(), list[StoreCore]()

    def make_one(layer: Files, **options: Any) -> StoreCore:
        core = make_core(tmp_path / "store", layer, clock, **options)
        core.open()
        cores.append(core)
        return core

    yield make_one
    for core in cores:
        core.close()


def insert(core: StoreCore, *ids: str, payload: bytes = b"payload") -> list[InsertStatus]:
    jobs = [NewJob(id, payload, ttl=TTL) for id in ids]
    return [answer.status for answer in one(core, commands.Insert("q", jobs, None, None))]


def claim(core: StoreCore, limit: int = 1) -> list[Any]:
    return list(one(core, commands.Exchange("q", "w", [], limit, LEASE)).jobs)


def complete(core: StoreCore, claimed: list[Any], result: bytes = b"result") -> None:
    done = [Settlement(job.id, job.fence, Action.COMPLETE, result, TTL) for job in claimed]
    one(core, commands.Exchange("q", "w", done, 0, LEASE))


def states(core: StoreCore, *ids: str) -> list[JobState | None]:
    return [record and record.state for record in read(core, "get", "q", ids)]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_failed_write_or_sync_is_told_and_got_over(make: MakeCore, number: int, call: str) -> None:
    layer = Failing(number, (call,))
    core, other = make(layer), make(Quiet())
    insert(core, "before")
    layer.fail_next()
    with pytest.raises(StorageError) as caught:
        insert(core, "lost")
    assert layer.failed == 1
    assert isinstance(caught.value, StorageUnavailableError) == (
        call == "sync" or number not in {errno.EROFS, errno.EACCES}
    )
    assert insert(core, "after") == [InsertStatus.CREATED]
    for one_core in (core, other):
        assert states(one_core, "before", "after") == [JobState.QUEUED] * 2
    if call == "write":
        assert states(core, "lost") == [None]
    assert states(core, "lost") == states(other, "lost")


def test_after_a_failed_sync_the_file_is_opened_read_and_written_again(make: MakeCore) -> None:
    """Another sync of the same descriptor would report success for what the system has dropped."""
    seen: list[tuple[str, int]] = []

    class Recording(Failing):
        def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            seen.append((name, args[0] if isinstance(args[0], int) else -1))
            return super().around(name, call, args)

        def forget_cache(self, fd: int) -> None:
            seen.append(("forget_cache", fd))
            super().forget_cache(fd)

    layer = Recording(errno.EIO, ("sync",))
    core, other = make(layer), make(Quiet())
    insert(core, "one")
    fence = claim(core)[0].fence
    layer.fail_next()
    with pytest.raises(StorageUnavailableError, match="not known"):
        insert(core, "two")
    del seen[:]
    insert(other, "three")  # whoever comes next, in any process, has to do it
    insert(core, "four")
    assert claim(core)[0].fence > fence + 1_000_000, "fences of lost claims must not come again"
    assert states(core, "one", "three", "four") == states(other, "one", "three", "four")


def test_a_sync_that_goes_on_failing_is_told_every_time(make: MakeCore) -> None:
    layer = Failing(errno.EIO, ("sync",))
    core = make(layer)
    insert(core, "one")
    layer.fail_next(times=4)
    for number in range(4):
        with pytest.raises(StorageUnavailableError):
            insert(core, f"lost-{number}")
    assert insert(core, "two") == [InsertStatus.CREATED]
    assert states(core, "one", "two") == [JobState.QUEUED] * 2


def test_recovery_of_a_failed_sync_reads_from_the_disk(make: MakeCore) -> None:
    """What only the page cache had is gone; what had been synced is kept."""

    class Forgetful(Failing):
        lost: tuple[int, int] | None = None

        def forget_cache(self, fd: int) -> None:
            if self.lost is not None:
                os.pwrite(fd, bytes(self.lost[1] - self.lost[0]), self.lost[0])

    layer = Forgetful(errno.EIO, ("sync",))
    core, other = make(layer), make(Quiet())
    insert(core, "safe")
    start = core.replica.position
    (claimed,) = claim(core)  # written, published and not synced
    other.turn([])
    assert states(other, "safe") == [JobState.PROCESSING]
    layer.fail_next()
    with pytest.raises(StorageUnavailableError):
        insert(core, "lost")
    layer.lost = (start, start + 4000)
    turn = core.turn([])
    assert states(core, "safe", "lost") == [JobState.QUEUED, None]
    assert states(other, "safe", "lost") == [JobState.QUEUED, None]
    assert turn.resync
    assert claim(other)[0].fence > claimed.fence


def test_a_full_disk_refuses_new_jobs_and_completes_running_ones(make: MakeCore) -> None:
    layer = FullDisk()
    core = make(layer)
    insert(core, *(f"job-{number}" for number in range(20)))
    claimed = claim(core, 20)
    layer.full = True
    with pytest.raises(QueueFullError, match="disk is full"):  # noqa: PT012 - at some time
        for number in range(1000):
            insert(core, f"new-{number}", payload=bytes(500))
    for job in claimed:
        complete(core, [job])
    assert states(core, *(job.id for job in claimed)) == [JobState.COMPLETED] * 20
    with pytest.raises(QueueFullError):
        insert(core, "another", payload=bytes(500))
    assert insert(core, "job-0") == [InsertStatus.FOUND]
    layer.full = False
    assert insert(core, "room again", payload=bytes(500)) == [InsertStatus.CREATED]


def test_a_full_disk_without_any_reserve_left_is_told(make: MakeCore) -> None:
    layer = FullDisk()
    core = make(layer)
    insert(core, *(f"job-{number}" for number in range(200)))
    claimed = claim(core, 200)
    layer.full = True
    with pytest.raises(StorageUnavailableError, match="full"):  # noqa: PT012 - at some time
        for job in claimed:
            complete(core, [job], result=bytes(1000))
    layer.full = False
    complete(core, claimed)
    assert set(states(core, *(job.id for job in claimed))) == {JobState.COMPLETED}


def test_a_full_disk_does_not_stop_the_next_opener(make: MakeCore) -> None:
    """The room of the journal is kept when a torn tail is cut."""
    layer = FullDisk()
    core = make(layer)
    insert(core, "one")
    (journal_file,) = core.replica.journal.path.parent.glob("journal-*")
    with journal_file.open("r+b") as file:
        file.seek(core.replica.position)
        file.write(b"\xf5JQ\x0atorn")
    lock = core.replica.journal.path.parent / "lock"
    lock.write_bytes(bytes(lock.stat().st_size))
    layer.full = True
    again = make(layer)
    assert states(again, "one") == [JobState.QUEUED]
    complete(again, claim(again))


def test_a_rotation_that_fails_leaves_the_store_as_it_was(make: MakeCore) -> None:
    for kind in ("create", "write", "sync", "sync_dir", "reserve"):
        layer = Failing(errno.EMFILE, (kind,))
        core = make(layer, rotate_at=2000)
        ids = [f"{kind}-{number}" for number in range(40)]
        for number, id in enumerate(ids):
            if number == 20:
                layer.fail_next(after=2, times=1)
            try:
                insert(core, id, payload=bytes(400))
            except StorageError:
                assert insert(core, id, payload=bytes(400))[0] in InsertStatus
        assert set(states(core, *ids)) == {JobState.QUEUED}


def test_a_compaction_that_fails_harms_nothing(make: MakeCore, tmp_path: Path) -> None:
    core = make(Quiet(), rotate_at=2000)
    for number in range(60):
        insert(core, f"job-{number}", payload=bytes(400))
    assert core.compaction_due
    for kind in ("write", "sync", "rename", "sync_dir", "unlink"):
        layer = Failing(errno.EIO, (kind,))
        layer.fail_next()
        with pytest.raises(OSError, match="Input/output"):
            compact_at(layer, tmp_path / "store")
        layer.let_go()
    assert set(states(make(Quiet()), *(f"job-{number}" for number in range(60)))) == {JobState.QUEUED}
    compact_at(Quiet(), tmp_path / "store")
    assert set(states(make(Quiet()), *(f"job-{number}" for number in range(60)))) == {JobState.QUEUED}


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EMFILE, StorageUnavailableError, "ulimit"),
        (errno.EACCES, StorageError, "permissions"),
        (errno.EROFS, StorageError, "read-only"),
        (errno.ENOSPC, StorageError, "free some space"),
        (errno.EIO, StorageUnavailableError, "error"),
    ],
)
async def test_faults_at_opening(number: int, kind: type[Exception], says: str, tmp_path: Path) -> None:
    for name in ("make_dir", "create", "write", "sync"):
        layer = Failing(number, (name,))
        layer.fail_next()
        store = FileStorage(tmp_path / name, files=layer)
        with pytest.raises(kind, match=says):
            await store.open()
        await store.open()  # the fault is gone
        await store.close()
        assert layer.fds == set()


@pytest.mark.parametrize("missing", ["descriptor", "thread"])
async def test_an_opening_without_what_the_process_may_have(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pipe() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def no_thread(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    store = FileStorage(tmp_path / "store", files=Quiet())
    with monkeypatch.context() as patch:
        if missing == "thread":
            patch.setattr(pump.threading.Thread, "start", no_thread)
        else:
            patch.setattr(pump.os, "pipe", no_pipe)
        with pytest.raises(StorageUnavailableError, match="raise the limit"):
            await store.open()
    await store.open()
    await store.close()


async def test_every_call_of_an_opening_may_fail(tmp_path: Path) -> None:
    """No descriptor is left open, whichever fails."""
    for at in range(40):
        layer = Failing(errno.EIO)
        layer.fail_next(after=at)
        store = FileStorage(tmp_path / str(at), files=layer)
        try:
            await store.open()
        except StorageError:
            assert layer.fds == set()
            await store.open()
        await store.close()
        assert layer.fds == set()
        if not layer.failed:
            return
    pytest.fail("an opening makes more calls than thought")


def test_a_removed_directory_is_noticed(make: MakeCore, tmp_path: Path) -> None:
    core = make(Quiet())
    insert(core, "one")
    for path in (tmp_path / "store").iterdir():
        path.unlink()
    with pytest.raises(StorageError, match="removed"):
        insert(core, "two")


def test_a_bug_breaks_off_the_turn_and_not_the_store(make: MakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    core = make(Quiet())
    insert(core, "one")
    with monkeypatch.context() as patch:
        patch.setattr(commands.Sweep, "apply", lambda *args: 1 / 0)
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            one(core, commands.Sweep("q", 1))
    assert states(core, "one") == [JobState.QUEUED]


# -- what kind of filesystem ------------------------------------------------------------------------

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /home rw - btrfs /dev/sdb rw
41 22 0:36 / /mnt/net rw - nfs4 server:/x rw
42 22 0:37 / /mnt/with\\040space rw - cifs //server/x rw
43 22 0:38 / /mnt/fuse rw - fuse.sshfs me@server: rw
44 22 0:39 / /mnt/net/local rw - xfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/home/me", "btrfs"),
        ("/mnt/net/jobs", "nfs4"),
        ("/mnt/with space/jobs", "cifs"),
        ("/mnt/fuse", "fuse.sshfs"),
        ("/mnt/net/local/jobs", "xfs"),
        ("/mnt/network", "ext4"),
    ],
)
def test_filesystem_type(path: str, kind: str) -> None:
    assert filesystem.filesystem_type(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse", "fuse.sshfs", "9p", "ceph"])
async def test_network_filesystems_are_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - {kind} somewhere rw\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    with pytest.raises(StorageError, match="force=True"):
        await FileStorage(tmp_path / "store").open()
    forced = FileStorage(tmp_path / "store", force=True)
    await forced.open()
    await forced.close()


class NoLocks(Quiet):
    def try_lock(self, fd: int) -> bool:
        return True


class NoRename(Quiet):
    def rename(self, *names: Any) -> None:
        return None


@pytest.mark.parametrize(("layer", "says"), [(NoLocks(), "locks"), (NoRename(), "rename")])
async def test_a_filesystem_without_what_is_needed(layer: Files, says: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=says):
        await FileStorage(tmp_path / "store", files=layer).open()
    assert list((tmp_path / "store").iterdir()) == []


async def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    store = FileStorage(tmp_path / "a" / "b")
    await store.open()
    await store.insert("q", [NewJob("../../escape", b"")])
    await store.close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    names = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()}
    locks = {"lock", "users", "wake", "compact.lock"}
    assert set(names) == locks | {"journal-0000000001", "snapshot-0000000001"}
    assert set(names.values()) == {0o600}


async def test_a_symbolic_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "store" / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError, match="symbolic link"):
        await FileStorage(tmp_path / "store").open()
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_room_is_reserved_by_writing_where_the_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*args: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(files.os, "posix_fallocate", unsupported, raising=False)
    with Directory.open(Files(), tmp_path) as directory:
        made = journal.Journal.create(directory, 1)
    assert made.size() >= journal.RESERVE
    assert made.is_clean(24)
    made.close()


async def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(StorageError, match="the path is a file: choose"):
        await FileStorage(tmp_path / "store").open()
    with pytest.raises(StorageError, match="a part of the path is not a directory"):
        await FileStorage(tmp_path / "store" / "inner").open()
