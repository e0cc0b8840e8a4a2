"""Counts that take a store long are kept for a moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import MemoryStorage, StorageError, StorageUnavailableError
from jobqueue.storage.values import Counts, NewJob
from jobqueue.testing import FakeClock
from jobqueue.web import dashboard
from jobqueue.web.counting import PATIENCE, RENEWED, Counting
from tests.support import until, within
from tests.web.visitor import Visitor


@pytest.fixture
def asked(store: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have each count take a tenth of a second; return the queues that are counted."""
    queues: list[str] = []
    counts, clock = store.counts, store.clock
    assert isinstance(clock, FakeClock)

    async def slow(queue: str) -> Any:
        queues.append(queue)
        await clock.advance(0.1)
        return await counts(queue)

    monkeypatch.setattr(store, "counts", slow)
    return queues


async def test_counting_takes_a_hundredth_of_the_time_at_most(store: MemoryStorage, asked: list[str]) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    for _ in range(5):
        await counting.of(store, "mail")
        await counting.of(store, "other")
    assert asked == ["mail", "other"]
    await clock.advance(10.1)
    await counting.of(store, "mail")
    counting.forget("mail")
    await counting.of(store, "mail")
    assert asked == ["mail", "other", "mail", "mail"]


async def test_what_costs_nothing_is_never_old(store: MemoryStorage) -> None:
    counting = Counting()
    for number in range(3):
        assert (await counting.of(store, "mail")).queued == number
        await store.insert("mail", [NewJob(f"m{number}", b"1")])


async def test_who_acts_sees_what_was_done(visitor: Visitor, store: MemoryStorage, asked: list[str]) -> None:
    await store.insert("mail", [NewJob("a", b"1"), NewJob("b", b"1")])
    assert (await visitor.page("/")).all("svg", **{"aria-label": "2 queued"})
    before = len(asked)
    await visitor.page("/")
    assert len(asked) == before
    answer = await visitor.post("/jobs", queue="mail", id="a", verb="cancel", state="queued")
    await visitor.get(answer.headers["location"])
    assert (await visitor.page("/")).all("svg", **{"aria-label": "1 queued"})


async def test_nobody_waits_for_the_next_count_of_what_is_looked_at(
    store: MemoryStorage, asked: list[str]
) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    assert (await counting.of(store, "mail")).queued == 0
    await store.insert("mail", [NewJob("a", b"1")])
    await clock.advance(10.1)
    for _ in range(3):
        assert (await counting.of(store, "mail")).queued == 0, "the last one, while the next one is made"
    await until(lambda: len(asked) == 2 and not counting._made)
    assert (await counting.of(store, "mail")).queued == 1
    assert asked == ["mail", "mail"]
    await clock.advance(60.0)
    await store.insert("mail", [NewJob("b", b"1")])
    assert (await counting.of(store, "mail")).queued == 2, "nobody has looked for long: it is made now"


async def test_a_count_from_before_an_action_is_not_shown_after_it(
    store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    answers, go = iter([1, 2, 3]), asyncio.Event()
    go.set()

    async def slow(queue: str) -> Counts:
        number = next(answers)
        await clock.advance(0.1)
        await go.wait()
        return Counts(queued=number)

    monkeypatch.setattr(store, "counts", slow)
    assert (await counting.of(store, "mail")).queued == 1
    await clock.advance(10.1)
    go.clear()
    assert (await counting.of(store, "mail")).queued == 1
    await asyncio.sleep(0)
    counting.forget()
    asked = asyncio.create_task(counting.of(store, "mail"))
    await asyncio.sleep(0)
    go.set()
    assert (await asked).queued == 3
    await until(lambda: not counting._made)
    assert (await counting.of(store, "mail")).queued == 3


async def test_a_store_that_fails_is_said_to_the_next_one(
    store: MemoryStorage, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    await counting.of(store, "mail")
    await clock.advance(10.1)

    async def away(queue: str) -> Counts:
        raise StorageUnavailableError("away")

    monkeypatch.setattr(store, "counts", away)
    await counting.of(store, "mail")
    await until(lambda: not counting._made)
    with pytest.raises(StorageUnavailableError):
        await counting.of(store, "mail")


async def test_closing_ends_what_is_counted(store: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    go = asyncio.Event()
    go.set()

    async def slow(queue: str) -> Counts:
        await clock.advance(0.1)
        await go.wait()
        return Counts()

    monkeypatch.setattr(store, "counts", slow)
    await counting.of(store, "mail")
    await clock.advance(10.1)
    go.clear()
    await counting.of(store, "mail")
    await within(counting.close())
    assert not counting._made


async def test_who_asks_at_the_same_time_shares_a_count(
    store: MemoryStorage, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()
    found = await asyncio.gather(*(counting.of(store, "mail") for _ in range(100)))
    assert asked == ["mail"]
    assert len(set(found)) == 1
    given_up = asyncio.create_task(counting.of(store, "other"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(counting.of(store, "other"))
    await asyncio.sleep(0)
    given_up.cancel()
    assert (await waiting).queued == 0, "the request that began the count has left"
    assert asked == ["mail", "other"]


async def test_a_first_count_from_before_an_action_is_not_kept(
    store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    go = {1: asyncio.Event(), 2: asyncio.Event()}
    began: list[int] = []

    async def slow(queue: str) -> Counts:
        began.append(len(began) + 1)
        number = began[-1]
        await go[number].wait()
        await clock.advance(0.1)
        return Counts(queued=number)

    monkeypatch.setattr(store, "counts", slow)
    before = asyncio.create_task(counting.of(store, "mail"))
    await until(lambda: began == [1])
    counting.forget("mail")
    after = asyncio.create_task(counting.of(store, "mail"))
    await until(lambda: began == [1, 2])
    go[2].set()
    assert (await after).queued == 2
    go[1].set()
    assert (await before).queued == 1, "it was asked for before the action"
    assert (await counting.of(store, "mail")).queued == 2


async def test_few_counts_are_renewed_at_once(
    store: MemoryStorage, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)
    names = [f"queue-{number}" for number in range(50)]
    for name in names:
        await counting.of(store, name)
    await clock.advance(9.0)
    for name in names:
        await counting.of(store, name)
    assert len(counting._made) == RENEWED
    await until(lambda: not counting._made)


async def test_a_store_that_hangs_is_given_up(store: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, clock = Counting(), store.clock
    assert isinstance(clock, FakeClock)

    async def hangs(queue: str) -> Counts:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(store, "counts", hangs)
    asked = asyncio.create_task(counting.of(store, "mail"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await clock.advance(PATIENCE + 1)
    with pytest.raises(TimeoutError):
        await within(asked)
    monkeypatch.undo()
    assert (await counting.of(store, "mail")).queued == 0


async def test_who_waits_for_a_count_is_told_that_the_store_is_closed(
    store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()

    async def hangs(queue: str) -> Counts:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(store, "counts", hangs)
    asked = asyncio.create_task(counting.of(store, "mail"))
    await asyncio.sleep(0)
    counting.forget()
    await within(counting.close())
    with pytest.raises(StorageError):
        await within(asked)


async def test_what_another_process_has_done_is_counted_after_it(
    visitor: Visitor, store: MemoryStorage, asked: list[str]
) -> None:
    """Two processes serve a dashboard: one carries the form out, and its answer leads to the other."""
    await store.insert("mail", [NewJob("a", b"1"), NewJob("b", b"1")])
    assert (await visitor.page("/")).all("svg", **{"aria-label": "2 queued"})
    async with Visitor(dashboard(store)) as other:
        answer = await other.post("/jobs", queue="mail", id="a", verb="cancel", state="queued")
        await visitor.get(answer.headers["location"])
        assert (await visitor.page("/")).all("svg", **{"aria-label": "1 queued"})


async def test_an_action_that_fails_half_way_is_counted(
    visitor: Visitor, store: MemoryStorage, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert("mail", [NewJob("a", b"1"), NewJob("b", b"1")])
    assert (await visitor.page("/")).all("svg", **{"aria-label": "2 queued"})
    cancel = store.cancel

    async def breaks(*args: Any, **more: Any) -> Any:
        await cancel(*args, **more)
        raise StorageUnavailableError("away")

    monkeypatch.setattr(store, "cancel", breaks)
    assert (
        await visitor.post("/jobs", queue="mail", id="a", verb="cancel", state="queued")
    ).status_code == 503
    assert (await visitor.page("/")).all("svg", **{"aria-label": "1 queued"})


async def test_the_end_of_an_action_on_all_jobs_is_counted(
    visitor: Visitor, store: MemoryStorage, asked: list[str]
) -> None:
    await store.insert("mail", [NewJob(f"m{number}", b"1") for number in range(3)])
    await visitor.post("/jobs", queue="mail", verb="cancel", state="queued", all="1")
    await visitor.page("/")
    bulk = visitor.app._board.bulk
    await until(lambda: not bulk.running())
    assert (await visitor.page("/")).all("svg", **{"aria-label": "no live jobs"})
