"""Listings of the engine: complete and in order, page by page, whatever is kept between the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobqueue.model.states import JobState
from jobqueue.storage.engine import listing
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.values import NewJob
from tests.storage.test_engine import IDS, Program, run


@pytest.fixture(params=[0, 10_000], ids=["with a list", "without"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(listing, "LARGE", request.param)
    return int(request.param)


def pages(engine: Engine, state: JobState, limit: int, now: int) -> Iterator[list[str]]:
    cursor = None
    while True:
        page = engine.scan("q", state, limit, now, cursor)
        yield [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return


def expected(engine: Engine, state: JobState, now: int) -> list[str]:
    """Return the ids of a listing, from single look-ups."""
    found = [record for record in engine.get("q", IDS, now, letters=True) if record is not None]
    return [record.id for record in sorted(found, key=lambda record: record.seq) if record.state is state]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("seed", range(12))
def test_every_listing_is_complete_and_in_order(seed: int) -> None:
    program, engine = Program(seed), Engine()
    for number, call in enumerate(program.calls(400)):
        run(engine, call, program)
        choice, now = program.random.choice, program.now
        match number % 9:
            case 3:
                engine.revive("q", program.ids(), now, choice([0, 50]))
            case 5:
                engine.forget("q", program.ids(), now)
            case 7 if number % 4 == 0:
                fresh = Engine()
                fresh.load(engine.dump(now), engine.locks, engine.counters)
                engine = fresh
        for state in JobState:
            limit = choice([1, 2, 3, 50])
            found = list(pages(engine, state, limit, now))
            assert [id for page in found for id in page] == expected(engine, state, now)
            assert all(len(page) == limit for page in found[:-1])


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("seed", range(6))
def test_a_job_that_stays_is_listed_once_while_others_come_and_go(seed: int) -> None:
    program, engine = Program(seed), Engine()
    stay = [f"stays-{n}" for n in range(7)]
    engine.insert("q", [NewJob(id, b"", delay=10**9) for id in stay], 0)
    for _ in range(60):
        cursor, seen = None, list[str]()
        while True:
            page = engine.scan("q", JobState.SCHEDULED, 2, program.now, cursor)
            seen += [record.id for record in page.records]
            for call in program.calls(5):
                run(engine, call, program)
            engine.forget("q", program.ids(), program.now)
            cursor = page.cursor
            if cursor is None:
                break
        assert [id for id in seen if id in stay] == stay


def test_the_list_of_a_queue_that_nobody_lists_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGE", 10)
    engine = Engine()
    engine.insert("q", [NewJob(f"{n}", b"", ttl=100) for n in range(20)], 0)
    assert len(engine.scan("q", JobState.QUEUED, 5, 0).records) == 5
    index = engine._queues["q"]
    assert index.roll is not None
    engine.purge("q", 10, 10_000)
    assert index.roll is not None
    engine.purge("q", 10, 10_001)
    assert index.roll is None


def test_the_list_does_not_grow_by_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGE", 10)
    engine = Engine()
    for n in range(500):
        engine.insert("q", [NewJob(f"{n}", b"")], 0)
        engine.forget("q", [f"{n - 12}"], 0)
        assert len(engine.scan("q", JobState.QUEUED, 50, 0).records) == min(n + 1, 12)
    roll = engine._queues["q"].roll
    assert roll is not None
    assert len(roll.jobs) < 60
