"""The rules of queues outlive the processes: in the journal, and in the snapshot that the last one leaves."""

from __future__ import annotations

from pathlib import Path

from jobqueue import FileStorage
from jobqueue.storage.values import NewJob, Rules

PAUSED = Rules(paused=True)


async def claimed(store: FileStorage) -> int:
    return len((await store.exchange("q", "w", [], 10, 1_000)).jobs)


async def test_rules_are_there_when_the_store_is_opened_again(tmp_path: Path) -> None:
    store = FileStorage(tmp_path / "store")
    await store.open()
    await store.insert("q", [NewJob("a", b"data")])
    assert await store.set_rules("q", PAUSED)
    other = FileStorage(tmp_path / "store")  # as another process: it reads the journal
    await other.open()
    assert (await other.get_rules("q")).rules == PAUSED
    await other.close()
    await store.close()  # the last one leaves a snapshot
    assert list((tmp_path / "store").glob("snapshot-*"))
    store = FileStorage(tmp_path / "store")
    await store.open()
    assert (await store.get_rules("q")).rules == PAUSED
    assert await claimed(store) == 0
    assert await store.set_rules("q", None, expected=PAUSED)
    assert await claimed(store) == 1
    await store.close()
