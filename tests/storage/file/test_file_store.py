"""The store as its users have it: group commit, idling, waking, forks, clocks, growth."""

from __future__ import annotations

import asyncio
import copy
import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobqueue.errors import InvalidArgumentError, StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.file import FileStorage, open_store, pump
from jobqueue.storage.file.commands.state import SEEN_EVERY, State
from jobqueue.storage.file.disk import watch
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.upkeep import rotation
from jobqueue.storage.values import InsertStatus, LeaseStatus, NewJob, Renewal
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Counting, Quiet
from tests.storage.file.program import LEASE, TTL, compact_at
from tests.storage.file.seams import core_of, home_of

Make = Callable[..., Any]
ROOT = Path(__file__).parents[3]


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    stores: list[FileStorage] = []

    async def make_one(**options: Any) -> FileStorage:
        options.setdefault("clock", FakeClock())
        store = FileStorage(tmp_path / "store", **options)
        await store.open()
        stores.append(store)
        return store

    yield make_one
    for store in stores:
        await store.close()


async def bounded(awaitable: Any) -> Any:
    async with asyncio.timeout(20):
        return await awaitable


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what a thread or a process is about to do."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def claim_one(store: FileStorage) -> Any:
    (job,) = (await store.exchange("q", "w", [], 1, LEASE)).jobs
    return job


# -- group commit -----------------------------------------------------------------------------------


class Syncs(Counting):
    """Counts syncs, and can hold the first one up."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        self.calls.append(name)
        if name == "sync":
            assert self.gate.wait(20)
        return call()


async def test_calls_made_together_share_a_sync(make: Make) -> None:
    layer = Syncs()
    store = await make(files=layer)
    del layer.calls[:]
    await asyncio.gather(*(store.insert("q", [NewJob(str(n), b"")]) for n in range(100)))
    assert layer.calls.count("sync") == 1


async def test_calls_made_during_a_sync_join_the_next_and_the_loop_goes_on(make: Make) -> None:
    layer = Syncs()
    store = await make(files=layer)
    await store.insert("q", [NewJob("run", b"")])
    run = await claim_one(store)
    del layer.calls[:]
    layer.gate.clear()
    first = asyncio.ensure_future(store.insert("q", [NewJob("first", b"")]))
    await until(lambda: "sync" in layer.calls)
    done = Settlement(run.id, run.fence, Action.COMPLETE, b"", TTL)
    others = [
        asyncio.ensure_future(store.insert("q", [NewJob("second", b"")])),
        asyncio.ensure_future(store.exchange("q", "w", [done], 1, LEASE)),
        asyncio.ensure_future(store.extend("q", "w", [Renewal("first", 1)], LEASE)),
    ]
    await asyncio.sleep(0)  # the loop is free while the disk is not
    assert not first.done()
    layer.gate.set()
    await bounded(asyncio.gather(first, *others))
    assert layer.calls.count("sync") == 2


async def test_idle_workers_write_nothing(make: Make) -> None:
    layer = Syncs()
    store = await make(files=layer)
    clock = store.clock
    await store.exchange("q", "w", [], 5, LEASE)
    del layer.calls[:]
    for _ in range(50):
        clock.move(0.3)
        await store.exchange("q", "w", [], 5, LEASE)
        await store.sweep("q", 100)
        await store.purge("q", 100)
        await store.counts("q")
    assert set(layer.calls) <= {"write"}
    assert layer.calls.count("write") <= 100 + 2  # the page of the lock file, in memory
    assert [info.worker for info in await store.workers("q")] == ["w"]


class Locks(Quiet):
    """Counts how often the lock is taken."""

    taken = 0

    def lock(self, fd: int) -> None:
        self.taken += 1
        super().lock(fd)


async def test_sweeping_costs_what_there_is_to_sweep(make: Make) -> None:
    layer = Locks()
    store = await make(files=layer)
    queues = [f"q{number}" for number in range(300)]
    await asyncio.gather(*(store.insert(queue, [NewJob("a", b"", ttl=1000)]) for queue in queues))
    (stalled,) = (await store.exchange("q7", "w", [], 1, LEASE)).jobs
    (done,) = (await store.exchange("q8", "w", [], 1, LEASE)).jobs
    await store.exchange("q8", "w", [Settlement("a", done.fence, Action.COMPLETE, b"", 1000)], 0, LEASE)

    async def sweep() -> tuple[list[str], int]:
        swept = [await store.sweep(queue, 100) for queue in queues]
        purged = [await store.purge(queue, 100) for queue in queues]
        return [job.id for jobs in swept for job in jobs], sum(purged)

    layer.taken = 0
    assert await sweep() == ([], 0)
    assert layer.taken == 0
    store.clock.move(LEASE / 1000 + 1)
    assert await sweep() == ([stalled.id], 1)
    assert layer.taken == 2


def test_what_is_remembered_of_workers_is_not_gone_through_at_every_call() -> None:
    looks = 0

    class Counted(dict[tuple[str, str], int]):
        def items(self) -> Any:
            nonlocal looks
            looks += 1
            return super().items()

    remembered = State()
    for number in range(5000):
        if not isinstance(remembered.noted, Counted):
            remembered.noted = Counted(remembered.noted)
        remembered.note(f"q{number}", "w", 0)
    assert looks < 10
    remembered.note("late", "w", SEEN_EVERY)
    assert len(remembered.noted) <= 5001


async def test_claims_and_renewals_are_not_synced(make: Make) -> None:
    layer = Syncs()
    store = await make(files=layer)
    await store.insert("q", [NewJob("a", b"")])
    del layer.calls[:]
    run = await claim_one(store)
    assert await store.extend("q", "w", [Renewal(run.id, run.fence)], LEASE) == [LeaseStatus.HELD]
    assert "sync" not in layer.calls
    await store.exchange("q", "w", [Settlement(run.id, run.fence, Action.COMPLETE, b"", TTL)], 0, LEASE)
    assert layer.calls.count("sync") == 1


async def test_a_cancelled_call_leaves_the_store_usable(make: Make) -> None:
    layer = Syncs()
    store = await make(files=layer)
    layer.gate.clear()
    call = asyncio.ensure_future(store.insert("q", [NewJob("a", b"")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    layer.gate.set()
    assert await store.insert("q", [NewJob("b", b"")])
    assert (await store.get("q", ["b"]))[0] is not None


# -- waking -----------------------------------------------------------------------------------------


async def test_a_lost_notification_costs_a_rescan(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch._Inotify, "interval", 0.05)
    monkeypatch.setattr(watch.Bell, "ring", lambda *args: None)
    producer, worker = await make(), await make()
    waiting = asyncio.ensure_future(worker.wait_for_work("q", "w", 1000))
    await worker.counts("q")
    await producer.insert("q", [NewJob("a", b"")])
    assert await bounded(waiting)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC])
async def test_without_watches_the_page_is_polled(
    number: int, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(watch._Inotify, "__init__", refused)
    producer, worker = await make(), await make()
    assert "cannot be watched" in caplog.text
    waiting = asyncio.ensure_future(worker.wait_for_work("q", "w", 1000))
    await worker.counts("q")
    await producer.insert("q", [NewJob("a", b"")])
    assert await bounded(waiting)


async def test_a_burst_of_notifications_is_one(make: Make) -> None:
    producer, worker = await make(), await make()
    for number in range(100):
        await producer.insert("q", [NewJob(str(number), b"")])
    assert (await worker.counts("q")).queued == 100


# -- life -------------------------------------------------------------------------------------------


async def test_a_clone_serves_another_thread(make: Make) -> None:
    store = await make()
    answers: list[Any] = []

    async def use(clone: FileStorage) -> None:
        await clone.open()
        answers.append(await clone.insert("q", [NewJob("a", b"")]))
        await clone.close()

    clone = store.clone()
    await asyncio.to_thread(asyncio.run, use(clone))
    assert answers[0][0].status is InsertStatus.CREATED
    assert (await store.get("q", ["a"]))[0] is not None


async def test_a_loop_that_ends_without_closing_harms_nobody(make: Make) -> None:
    store = await make()

    async def leave(clone: FileStorage) -> None:
        await clone.open()
        await clone.counts("q")

    await asyncio.to_thread(asyncio.run, leave(store.clone()))
    for number in range(3):
        await store.insert("q", [NewJob(str(number), b"")])
    assert (await store.counts("q")).queued == 3


async def test_open_and_close_are_counted(make: Make, tmp_path: Path) -> None:
    store = FileStorage(tmp_path / "store")
    with pytest.raises(StorageError, match="open"):
        await store.counts("q")
    await store.open()
    await store.open()
    await store.close()
    assert (await store.counts("q")).queued == 0
    await store.close()
    await store.close()
    with pytest.raises(StorageError, match="open"):
        await store.counts("q")
    await store.open()
    assert (await store.counts("q")).queued == 0
    await store.close()


async def test_closing_runs_what_was_called(tmp_path: Path) -> None:
    store = FileStorage(tmp_path / "store")
    await store.open()
    call = asyncio.ensure_future(store.insert("q", [NewJob("a", b"")]))
    await asyncio.sleep(0)
    await store.close()
    assert (await bounded(call))[0].status is InsertStatus.CREATED


async def test_threads_and_descriptors_are_given_back(tmp_path: Path) -> None:
    layer = Counting()
    before = threading.active_count()
    for _ in range(5):
        store = FileStorage(tmp_path / "store", files=layer)
        await store.open()
        await store.counts("q")
        await store.close()
    assert layer.fds == set()
    await until(lambda: threading.active_count() <= before)


async def test_a_thread_that_breaks_off_is_reported_and_hangs_nobody(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await make()
    monkeypatch.setattr(pump.Pump, "_take", lambda _: 1 / 0)
    with pytest.raises(StorageError, match="closed"):
        await bounded(store.counts("q"))
    with pytest.raises(StorageError, match="closed"):
        await bounded(store.counts("q"))
    await until(lambda: "broke off" in caplog.text)  # the thread tells its callers first


@pytest.mark.parametrize("path", ["", "a\0b", b"", None, 5, ["a"]])
def test_bad_paths(path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="path"):
        FileStorage(path)


@pytest.mark.parametrize("name", ["fsync", "force", "progress", "rotate_at"])
def test_bad_options(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        FileStorage("jobs", **{name: "yes"})


def test_a_relative_path_where_there_is_no_directory_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidArgumentError, match=r"path.*working directory"):
        FileStorage("jobs")
    FileStorage(tmp_path / "jobs")


async def test_a_forked_child_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await make()
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        inherited = copy.copy(store)
        inherited.forked()
        with pytest.raises(StorageError, match="fork"):
            await inherited.counts("q")
        await inherited.close()  # harmless
    assert (await store.counts("q")).queued == 0


FORKING = """
import asyncio, os, sys
from jobqueue.storage.file import FileStorage
from tests.storage.file.seams import core_of, home_of

async def main():
    store = FileStorage(sys.argv[1])
    await store.open()
    with home_of(core_of(store)).lock.held():
        if os.fork():
            os._exit(0)  # dies holding the lock
        print("child", flush=True)
        try:
            await store.counts("q")
        except Exception as error:
            print(error, flush=True)
        sys.stdin.read()
        os._exit(0)

asyncio.run(main())
"""


def test_a_forked_child_lets_go_of_the_lock(tmp_path: Path) -> None:
    """Else its copy of the descriptor would keep the lock that its parent has died with."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "store")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "child\n"
        assert "fork" in process.stdout.readline()
        assert process.wait(20) == 0  # the parent; its child is alive
        with (tmp_path / "store" / "lock").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_lock_that_nobody_lets_go_of_is_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_store, "STUCK_AFTER", 0.05)
    store = await make()
    file = os.open(tmp_path / "store" / "lock", os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        with pytest.raises(StorageUnavailableError, match="holds the lock"):
            await bounded(store.insert("q", [NewJob("a", b"")]))
    finally:
        os.close(file)
    monkeypatch.undo()
    assert await bounded(store.insert("q", [NewJob("b", b"")]))


# -- clocks -----------------------------------------------------------------------------------------


class Settable(FakeClock):
    """A clock that somebody sets."""

    virtual = False
    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


@pytest.mark.parametrize("step", [3600.0, -3600.0, 86_400.0 * 365, 0.4, -0.4])
async def test_setting_the_clock_neither_kills_nor_extends_leases(step: float, make: Make) -> None:
    clock = Settable()
    store, other = await make(clock=clock), await make(clock=clock)
    await store.insert("q", [NewJob("a", b""), NewJob("b", b"", ttl=60_000)])
    run, done = (await store.exchange("q", "w", [], 2, LEASE)).jobs
    await store.exchange("q", "w", [Settlement(done.id, done.fence, Action.COMPLETE, b"", 60_000)], 0, LEASE)
    term = await store.lock_acquire("l", "me", LEASE)
    clock.ahead += step
    clock.move(LEASE / 1000 - 1)
    assert await other.sweep("q", 10) == []
    assert await other.lock_acquire("l", "you", LEASE) is None
    clock.move(2)
    assert [swept.id for swept in await other.sweep("q", 10)] == ["a"]
    assert await other.lock_acquire("l", "you", LEASE) > term
    assert (await store.get("q", ["b"]))[0] is not None
    clock.move(30)
    assert (await store.get("q", ["b"]))[0] is None
    assert run.fence


async def test_starting_times_follow_the_wall_clock(make: Make) -> None:
    clock = Settable()
    store = await make(clock=clock)
    at = clock.now_ms() + 3_600_000
    await store.insert("q", [NewJob("a", b"", run_at=at)])
    assert (await store.exchange("q", "w", [], 1, LEASE)).jobs == []
    clock.ahead = 3601
    assert await claim_one(store)


class Boots(Quiet):
    boot = "one"

    def boot_id(self) -> str:
        return self.boot


async def test_leases_of_an_earlier_boot_are_dead_at_once(tmp_path: Path) -> None:
    clock, files = FakeClock(), Boots()
    store = FileStorage(tmp_path / "store", clock=clock, files=files)
    await store.open()
    await store.insert("q", [NewJob("a", b"")])
    run = await claim_one(store)
    term = await store.lock_acquire("l", "me", LEASE)
    await store.close()
    await store.open()  # the same boot: still alive
    assert await store.sweep("q", 10) == []
    await store.close()
    files.boot = "two"
    await store.open()
    assert [swept.id for swept in await store.sweep("q", 10)] == ["a"]
    assert (await claim_one(store)).fence > run.fence + 1_000_000
    assert await store.lock_acquire("l", "you", LEASE) > term
    await store.close()


async def test_a_host_that_wakes_up_in_the_past(tmp_path: Path) -> None:
    """Without a battery the clock begins anew: time goes on from the journal, and TTLs hold."""
    clock, files = Settable(), Boots()
    store = FileStorage(tmp_path / "store", clock=clock, files=files)
    await store.open()
    await store.insert("q", [NewJob("a", b"")])
    run = await claim_one(store)
    await store.exchange("q", "w", [Settlement("a", run.fence, Action.COMPLETE, b"", 60_000)], 0, LEASE)
    await store.close()
    files.boot, clock.ahead = "two", -1_000_000_000.0
    await store.open()
    assert (await store.get("q", ["a"]))[0] is not None
    clock.ahead = 0.0
    assert (await store.get("q", ["a"]))[0] is not None
    clock.move(61)
    assert (await store.get("q", ["a"]))[0] is None
    await store.close()


# -- growth -----------------------------------------------------------------------------------------


def size_of(directory: Path) -> int:
    size = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # a compaction removes files meanwhile
            size += path.stat().st_size
    return size


async def test_the_directory_stays_small(make: Make, tmp_path: Path) -> None:
    """However much has gone through it."""
    store = await make(files=Quiet(), rotate_at=20_000)
    for round in range(30):
        await store.insert("q", [NewJob(f"{round}-{n}", bytes(200)) for n in range(20)])
        jobs = (await store.exchange("q", "w", [], 100, LEASE)).jobs
        done = [Settlement(job.id, job.fence, Action.COMPLETE, b"", 1000) for job in jobs]
        await store.exchange("q", "w", done, 0, LEASE)
        store.clock.move(2)
        await store.purge("q", 1000)
    await until(lambda: size_of(tmp_path / "store") < 150_000)
    assert core_of(store).replica.journal.generation > 3


async def test_a_process_compacts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FileStorage(tmp_path / "store", rotate_at=20_000)
    await store.open()
    for number in range(200):
        await store.insert("q", [NewJob(str(number), bytes(400))])
    await until(lambda: not (tmp_path / "store" / "journal-0000000001").exists())
    await store.close()
    again = FileStorage(tmp_path / "store")
    await again.open()
    assert (await again.counts("q")).queued == 200
    await again.close()
    assert caplog.text == ""


async def test_a_process_that_fails_to_compact_is_reported(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await make()
    (tmp_path / "python3").symlink_to("/bin/false")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python3"))
    directory = Directory.open(Files(), tmp_path / "store")
    compaction = rotation.Compaction()
    compaction.start(directory)
    await until(lambda: not compaction.running())
    assert "will be tried again" in caplog.text
    monkeypatch.setattr("sys.executable", str(tmp_path / "python-that-is-gone"))
    compaction.start(directory)
    await until(lambda: not compaction.running())
    assert "could not start a process" in caplog.text
    compaction.stop()
    directory.close()


async def test_compacting_in_the_middle_of_a_rotation(make: Make, tmp_path: Path) -> None:
    """The next journal exists, but this one is not sealed yet: it must not be part of any snapshot."""
    store = await make(files=Quiet(), rotate_at=1 << 30)
    await store.insert("q", [NewJob("one", b"")])
    core_of(store).rotate_now()
    await store.insert("q", [NewJob("two", b"")])
    core_of(store).begin_rotation()
    assert compact_at(Quiet(), tmp_path / "store")
    await store.insert("q", [NewJob("three", b"")])
    later = await make()
    assert (await later.counts("q")).queued == 3


async def test_nothing_is_compacted_before_the_store_is_recovered(make: Make, tmp_path: Path) -> None:
    store = await make(files=Quiet(), rotate_at=1 << 30)
    core_of(store).rotate_now()
    (tmp_path / "store" / "lock").write_bytes(b"")
    assert not compact_at(Quiet(), tmp_path / "store")


async def test_one_compaction_at_a_time(make: Make, tmp_path: Path) -> None:
    await make()
    files = Files()
    fd = os.open(tmp_path / "store" / "compact.lock", os.O_RDWR | os.O_CREAT)
    assert files.try_lock(fd)
    assert not compact_at(Files(), tmp_path / "store")
    files.close(fd)
    assert not compact_at(Files(), tmp_path / "store")  # nothing to do


async def test_jobs_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    """Wherever the head of such a job comes to lie in what has been read."""
    sizes = [3_000_000, 5, 1_048_000, 1_100_000, *range(1_047_000, 1_050_000, 97), 2_000_000]
    store = FileStorage(tmp_path / "store", fsync=False, files=Quiet())
    await store.open()
    for number, size in enumerate(sizes):
        await store.insert("q", [NewJob(str(number), bytes(size), ttl=TTL)])
    core_of(store).rotate_now()
    await store.close()
    assert compact_at(Quiet(), tmp_path / "store")
    await store.open()
    records = await store.get("q", [str(number) for number in range(len(sizes))], payload=True)
    await store.close()
    assert [len(record.payload or b"") for record in records if record is not None] == sizes


async def test_who_fell_behind_loads_anew(make: Make) -> None:
    """Two generations further, with the journal that it would have read removed."""
    producer = await make(files=Quiet(), rotate_at=10_000)

    class Heard:
        resyncs = 0

        def deliver(self, replies: Any) -> None: ...
        def cancel_requested(self, queue: str, id: str, fence: int) -> None: ...
        def resync(self) -> None:
            self.resyncs += 1

    heard = Heard()
    sleeper = await make()
    await sleeper.subscribe("q", "me", heard)
    home, producer_core = home_of(core_of(sleeper)), core_of(producer)
    gate = home.lock.read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "page", lambda: gate)  # it sleeps
        number = 0
        while producer_core.replica.journal.generation < 4 or producer_core.compaction_due:
            number += 1
            await producer.insert("q", [NewJob(str(number), bytes(500))])
        directory = producer.path
        await until(lambda: not (directory / "journal-0000000002").exists())
    assert (await sleeper.counts("q")).queued == number
    await until(lambda: heard.resyncs == 1)


async def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = FileStorage(tmp_path / "store", rotate_at=2000, files=Quiet())
    await store.open()
    for number in range(100):
        await store.insert("q", [NewJob(str(number), bytes(200))])
    await until(lambda: not (tmp_path / "store" / "snapshot-0000000001").exists())
    await store.close()
    again = FileStorage(tmp_path / "store", progress=lambda done, total: seen.append((done, total)))
    await again.open()
    assert (await again.counts("q")).queued == 100
    await again.close()
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen), "it never goes back"
    assert all(done < total for done, total in seen[:-1]), "only the end is the end"
    assert len({total for _, total in seen}) == 1


@pytest.mark.parametrize("check", [False, True])
async def test_progress_of_a_journal_is_told(tmp_path: Path, check: bool) -> None:
    seen: list[tuple[int, int]] = []
    store = FileStorage(tmp_path / "store")
    await store.open()
    for number in range(20):
        await store.insert("q", [NewJob(str(number), bytes(2000))])
    await store.close()
    store.report_loading(lambda done, total: seen.append((done, total)))
    store.report_loading(lambda _done, _total: pytest.fail("the first one stays"))
    if check:
        await store.check()
    else:
        await store.open()
        await store.close()
    assert len(seen) > 20
    assert seen[-1][0] == seen[-1][1]
    assert any(0.2 < done / total < 0.9 for done, total in seen)


async def test_an_opening_that_is_cancelled(tmp_path: Path) -> None:
    """As Ctrl-C does it while a large store is read."""
    store = FileStorage(tmp_path / "store")
    await store.open()
    await store.insert("q", [NewJob("a", b"")])
    await store.close()
    reading, go_on = threading.Event(), threading.Event()

    def hold(_done: int, _total: int) -> None:
        reading.set()
        assert go_on.wait(20)

    threads = set(threading.enumerate())
    store.report_loading(hold)
    opening = asyncio.create_task(store.open())
    await bounded(asyncio.to_thread(reading.wait))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bounded(opening)
    go_on.set()
    started = {thread for thread in threading.enumerate() if thread.name == "jobqueue-file"} - threads
    for thread in started:
        await bounded(asyncio.to_thread(thread.join))
    await store.open()
    assert (await store.counts("q")).queued == 1
    await store.close()


async def test_states_survive_a_closing(tmp_path: Path) -> None:
    clock = FakeClock()
    store = FileStorage(tmp_path / "store", clock=clock)
    await store.open()
    await store.insert("q", [NewJob("a", b"payload", priority=3), NewJob("b", b"", delay=5000)])
    run = await claim_one(store)
    await store.extend("q", "w", [Renewal(run.id, run.fence, b"half")], LEASE)
    before = await store.get("q", ["a", "b"], payload=True)
    await store.close()
    await store.open()
    assert await store.get("q", ["a", "b"], payload=True) == before
    assert before[0] is not None
    assert before[0].state is JobState.PROCESSING
    await store.close()


def test_a_store_that_a_dead_event_loop_left_open_can_be_used_again(tmp_path: Path) -> None:
    store = FileStorage(tmp_path / "store")

    async def use() -> int:
        await store.open()
        try:
            await store.insert("q", [NewJob("a", b"")])
            return (await store.counts("q")).queued
        finally:
            await store.close()

    asyncio.run(store.open())
    with pytest.raises(StorageError, match="another event loop"):
        asyncio.run(store.counts("q"))
    assert asyncio.run(use()) == 1
