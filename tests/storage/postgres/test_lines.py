"""Where claims begin, and that none is missed which a claim that begins further back would find."""

from __future__ import annotations

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.postgres.lines import EVERYTHING, Lines, Reached, Span
from jobqueue.storage.values import NewJob
from tests.storage.postgres.support import postgres_storage

SECOND = 1_000_000
LATE = 500_000


def covers(spans: list[Span], priority: int, place: int) -> bool:
    return any(s.least <= priority <= s.most and s.low <= place < s.high for s in spans)


def test_the_first_claim_looks_at_everything() -> None:
    assert Lines().spans(front=False) == (EVERYTHING, 0)


def test_a_line_that_was_emptied_is_looked_at_from_shortly_before_then() -> None:
    lines = Lines()
    lines.note(Reached(10 * SECOND, 10_000, 5, (7, 0)), front=True, now=1.0)
    spans, due = lines.spans(front=False)
    assert spans == [
        Span(1000, 8),
        Span(7, 7, high=0),
        Span(7, 7, low=10 * SECOND - LATE),
        Span(6, 1),
        Span(0, 0, high=0),
        Span(0, 0, low=10 * SECOND - LATE),
        Span(-1, -1000),
    ]
    assert due == 10_000 - LATE // 1000


def test_below_the_last_job_of_a_full_claim_nothing_is_known() -> None:
    lines = Lines()
    lines.note(Reached(10 * SECOND, 1, 5, (7, 3, 0), 3, 6 * SECOND), front=True, now=1.0)
    spans, _ = lines.spans(front=False)
    assert not covers(list(spans), 7, 9 * SECOND)
    assert covers(list(spans), 3, 6 * SECOND)
    assert not covers(list(spans), 3, 6 * SECOND - 1)
    assert covers(list(spans), 0, 1)


def test_a_claim_from_the_front_comes_again_when_its_cost_is_a_small_part_of_the_time() -> None:
    lines = Lines()
    assert lines.claims_from_front(0.0)
    lines.note(Reached(SECOND, 1, took=10_000), front=True, now=100.0)
    assert not lines.claims_from_front(100.19)
    assert lines.claims_from_front(100.2)


def test_a_narrow_claim_that_finds_too_little_is_followed_by_one_from_the_front() -> None:
    lines = Lines()
    lines.note(Reached(SECOND, 1, took=10_000), front=True, now=1e9)
    assert lines.due(None) is None
    lines.note(Reached(SECOND, 1, took=10), front=False, now=1e9)
    due = lines.due(None)
    assert due is not None
    assert due > 0
    assert lines.due(1) == 1


async def test_a_job_whose_transaction_ended_late_is_found() -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob("early", b"")])
        (early,) = (await store.exchange("q", "w", [], 10, 60_000)).jobs
        lines = store._open_session().statements.lines("q")
        lines._floors[0] = 2**62
        await store.insert("q", [NewJob("late", b"")])
        done = [Settlement(early.id, early.fence, Action.COMPLETE, b"", 60_000)]
        found = (await store.exchange("q", "w", done, 10, 60_000)).jobs
        while not found:
            assert await store.wait_for_work("q", "w", 10.0)
            found = (await store.exchange("q", "w", [], 10, 60_000)).jobs
        assert [job.id for job in found] == ["late"]
        await store.close()


async def test_released_jobs_and_new_priorities_are_found_by_narrow_claims() -> None:
    async with postgres_storage() as store:
        await store.open()
        try:
            await store.insert("q", [NewJob(str(n), b"", priority=n % 3) for n in range(9)])
            claimed = (await store.exchange("q", "w", [], 9, 60_000)).jobs
            store._open_session().statements.lines("q")._front_at = 1e18
            back = [Settlement(job.id, job.fence, Action.RELEASE) for job in claimed]
            again = (await store.exchange("q", "w", back, 9, 60_000)).jobs
            assert [job.id for job in again] == [job.id for job in claimed]
            await store.insert("q", [NewJob(f"p{n}", b"", priority=n) for n in (-1000, -1, 0, 1, 2, 3, 1000)])
            new = (await store.exchange("q", "w", [], 100, 60_000)).jobs
            assert [job.id for job in new] == ["p1000", "p3", "p2", "p1", "p0", "p-1", "p-1000"]
        finally:
            await store.close()
