"""Counts that take a store long are kept for a moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import MemoryStorage, StorageUnavailableError
from jobqueue.storage.values import Counts, NewJob
from jobqueue.testing import FakeClock
from jobqueue.web.counting import Counting
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
