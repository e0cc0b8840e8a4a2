"""The rules of queues outlive the processes: in the journal, and in the snapshot that the last one leaves."""

from __future__ import annotations

from pathlib import Path

from jobqueue import FileStorage
from jobqueue.storage.values import Limit, NewJob, Rate, Rules, Usage
from jobqueue.testing import FakeClock

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


async def test_limits_turns_and_rates_are_there_when_the_store_is_opened_again(tmp_path: Path) -> None:
    clock = FakeClock()
    rules = Rules(queue=Limit(rate=Rate(1, per=60.0, burst=4)), group=Limit(1, Rate(1, per=60.0)))
    store = FileStorage(tmp_path / "store", clock=clock)
    await store.open()
    assert await store.set_rules("q", rules)
    await store.insert(
        "q", [NewJob(f"{group}{n}", b"", group=group, weight=2) for group in "gh" for n in "12"]
    )
    await store.insert("q", [NewJob("plain", b""), NewJob("next", b"")])
    assert await ids(store, 2) == ["plain", "g1"]
    usage = await store.usage("q", ["", "g", "h"])
    for _ in range(2):  # after a snapshot by the last one, and after another
        await store.close()
        store = FileStorage(tmp_path / "store", clock=clock)
        await store.open()
        assert (await store.get_rules("q")).rules == rules
        assert await store.usage("q", ["", "g", "h"]) == usage
    assert await ids(store, 10) == ["h1", "next"]
    assert await store.usage("q", ["", "h"]) == [Usage(4, 60_000), Usage(1, None)]
    await store.close()


async def test_what_became_due_in_a_paused_queue_has_one_place_for_all(tmp_path: Path) -> None:
    clock = FakeClock()
    store, other = (FileStorage(tmp_path / "store", clock=clock) for _ in range(2))
    await store.open()
    await other.open()
    await store.insert("q", [NewJob("due", b"", delay=1_000)])
    await store.set_rules("q", PAUSED)
    await store.exchange("q", "w", [], 1, 60_000)
    clock.move(1)
    assert (await store.exchange("q", "w", [], 1, 60_000)).paused
    await other.insert("q", [NewJob("new", b"")])
    await other.set_rules("q", None)
    assert await ids(other, 1) == ["due"]
    assert await ids(store, 1) == ["new"]
    await other.close()
    await store.close()


async def ids(store: FileStorage, limit: int) -> list[str]:
    return [run.id for run in (await store.exchange("q", "w", [], limit, 60_000)).jobs]
