"""A directory that is moved, removed or replaced while a store is open in it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import Job, Queue, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.disk import watch
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.lock import DisplacedError
from jobqueue.storage.file.upkeep import fsck
from jobqueue.storage.values import NewJob, SettleStatus
from tests.storage.file.layers import Quiet
from tests.storage.file.program import LEASE, TTL

Make = Callable[..., Any]


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    stores: list[FileStorage] = []

    async def make_one(path: Path | None = None, **options: Any) -> FileStorage:
        store = FileStorage(path or tmp_path / "store", files=Quiet(), rotate_at=2000, **options)
        stores.append(store)
        await store.open()
        return store

    yield make_one
    for store in stores:
        await store.close()


async def insert(store: FileStorage, *ids: str) -> None:
    await store.insert("q", [NewJob(id, bytes(400), ttl=TTL) for id in ids])


async def told(store: FileStorage) -> None:
    """Have the store find out, at the latest by this call."""
    with pytest.raises(DisplacedError, match="put it back, or start a program"):
        await insert(store, "told")


async def ids(store: FileStorage) -> set[str]:
    names = [*(f"old-{n}" for n in range(40)), *(f"new-{n}" for n in range(40)), "told", "later"]
    return {record.id for record in await store.get("q", names) if record is not None}


def move(path: Path) -> Path:
    return path.rename(path.with_name("moved"))


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def sound(path: Path) -> bool:
    return fsck.check(Quiet(), path) == []


async def test_who_was_there_serves_the_store_that_is_there_now(make: Make) -> None:
    old = await make()
    await insert(old, "old-0")
    moved = move(old.path)
    new = await make()
    await insert(new, "new-0")
    await told(old)
    await insert(old, "later")
    assert await ids(old) == await ids(new) == {"new-0", "later"}
    again = await make(moved)
    assert await ids(again) == {"old-0"}
    assert sound(old.path)
    assert sound(moved)


async def test_a_store_that_was_moved_never_writes_into_the_next_one(make: Make, tmp_path: Path) -> None:
    """Nor does it begin a journal or compact there, if it has not looked yet."""
    old = await make()
    await insert(old, "old-0")
    with pytest.MonkeyPatch.context() as patch:
        identity = Files().identity(str(old.path / "lock"))
        patch.setattr(Files, "identity", lambda *_: identity)  # as in the moment before the move
        moved = move(old.path)
        shutil.copytree(moved, old.path)  # looks the same, and is another one
        before = {path.name: path.read_bytes() for path in old.path.iterdir()}
        for number in range(40):
            await insert(old, f"old-{number}")
    assert {path.name: path.read_bytes() for path in old.path.iterdir()} == before
    assert "journal-0000000001" not in names(moved)
    await told(old)
    assert sound(moved)
    assert sound(old.path)


async def test_a_removed_store_is_told_until_there_is_one_again(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    old = await make()
    await insert(old, "old-0")
    shutil.rmtree(old.path)
    for _ in range(3):
        await told(old)
        with pytest.raises(StorageUnavailableError, match="moved or removed"):
            await old.counts("q")
    assert not old.path.exists()  # to make a new one is for who opens one
    assert caplog.text.count("moved or removed") == 1
    old.path.mkdir(mode=0o700)
    await told(old)  # an empty directory is no store
    await make()
    await told(old)
    await insert(old, "later")
    assert await ids(old) == {"later"}
    assert caplog.text.count("is used from here on") == 1


@pytest.mark.parametrize("how", ["contents", "link"])
async def test_other_ways_to_replace_a_store(how: str, make: Make, tmp_path: Path) -> None:
    (tmp_path / "release-1").mkdir(mode=0o700)
    path = tmp_path / "current"
    path.symlink_to("release-1")
    old = await make(path)
    await insert(old, "old-0")
    if how == "contents":
        for file in (tmp_path / "release-1").iterdir():
            file.unlink()
    else:
        (tmp_path / "release-2").mkdir(mode=0o700)
        path.unlink()
        path.symlink_to("release-2")
    await make(path)
    await told(old)
    await insert(old, "later")
    assert await ids(old) == {"later"}


async def test_a_store_that_is_put_back_goes_on(make: Make) -> None:
    old = await make()
    await insert(old, "old-0")
    moved = move(old.path)
    await told(old)
    moved.rename(old.path)
    await told(old)
    await insert(old, "later")
    assert await ids(old) == {"old-0", "later"}


async def test_a_run_of_the_store_before_changes_nothing_in_the_next(make: Make) -> None:
    """Even if its job has the same name."""
    old = await make()
    await insert(old, "old-0")
    (run,) = (await old.exchange("q", "w", [], 1, LEASE)).jobs
    shutil.rmtree(old.path)
    new = await make()
    await insert(new, "old-0")
    (other,) = (await new.exchange("q", "v", [], 1, LEASE)).jobs
    await told(old)
    done = Settlement(run.id, run.fence, Action.COMPLETE, b"stale", TTL)
    answer = await old.exchange("q", "w", [done], 0, LEASE)
    assert answer.settled == [SettleStatus.LOST]
    assert other.fence > run.fence


async def test_news_is_heard_where_the_store_is_now(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await make()
    shutil.rmtree(old.path)
    new = await make()
    await told(old)
    await insert(old, "new-0")
    monkeypatch.setattr(watch._Inotify, "interval", 1000)
    await old.exchange("q", "w", [], 1, LEASE)
    waiting = asyncio.ensure_future(old.wait_for_work("q", "w", 1000))
    await old.counts("q")
    await insert(new, "new-1")
    async with asyncio.timeout(20):
        assert await waiting


async def test_a_worker_serves_the_store_that_was_made_anew(make: Make, tmp_path: Path) -> None:
    """Although it has nothing to do, and so makes no calls."""
    queue: Queue[Any, Any] = Queue(FileStorage(tmp_path / "store", files=Quiet()), block_timeout=60.0)

    @queue.execute
    async def answer(job: Job) -> int:
        return job.payload * 2

    async with queue, asyncio.timeout(30):
        assert await queue.enqueue_and_wait("a", 1) == 2
        shutil.rmtree(tmp_path / "store")
        async with Queue(FileStorage(tmp_path / "store", files=Quiet())) as producer:
            assert await producer.enqueue_and_wait("b", 2) == 4
