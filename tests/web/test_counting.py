"""Counts that take a store long are kept for a moment."""

from __future__ import annotations

from typing import Any

import pytest

from jobqueue import MemoryStorage
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from jobqueue.web.counting import Counting
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
