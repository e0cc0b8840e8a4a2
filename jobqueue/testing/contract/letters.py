"""Dead letters: failed jobs that can be read longer than their ids are taken."""

from __future__ import annotations

import pytest

from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import DEAD_LETTER_TTL, CancelStatus, Counts, InsertStatus, UpdateTtlStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs

__all__ = ["LetterCases"]

LONG = 10 * TTL


class LetterCases(Cases):
    """Dead letters."""

    async def test_a_failed_job_stays_as_a_dead_letter(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a", payload=b"data", dead_letter_ttl=LONG, task="t", group="g")
        await jobs.settle(await jobs.claim_one(), Action.FAIL, b"error", summary=b"short")
        failed = await jobs.record("a", payload=True)
        assert failed.expires_at == jobs.clock.now_ms() + TTL
        jobs.clock.move(TTL / 1000)
        for _ in range(2):
            assert await jobs.find("a") is None
            (letter,) = await other.get("q", ["a"], payload=True, letters=True)
            assert letter == failed
            page = await other.scan("q", JobState.FAILED, 10)
            assert page.records == [failed._replace(payload=None, headers=b"", history=())]
            assert await other.counts("q") == Counts(failed=1)
            assert await other.queues() == ["q"]
            assert await jobs.storage.purge("q", 10) == 0
        jobs.clock.move((LONG - TTL) / 1000)
        assert await jobs.find("a", letters=True) is None
        assert await jobs.ids_in(JobState.FAILED) == []
        assert await jobs.storage.counts("q") == Counts()
        assert await jobs.storage.purge("q", 10) <= 1
        assert await jobs.storage.purge("q", 10) == 0

    async def test_its_id_is_free(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.FAILED, "a", dead_letter_ttl=LONG)
        jobs.clock.move(TTL / 1000)
        assert await jobs.cancel("a", running=True) is CancelStatus.NOT_FOUND
        assert await jobs.storage.set_ttl("q", [("a", TTL)]) == [UpdateTtlStatus.NOT_FOUND]
        assert await jobs.storage.get("q", ["a"], reply_to="me") == [None]
        inserted = await jobs.put("a", payload=b"new")
        assert (inserted.status, inserted.attempts) == (InsertStatus.CREATED, 0)
        record = await jobs.record("a")
        assert (record.state, record.seq) == (JobState.QUEUED, inserted.seq)
        assert await jobs.find("a", letters=True) == record
        assert await jobs.ids_in(JobState.FAILED) == []
        assert await jobs.storage.counts("q") == Counts(queued=1, oldest=record.created_at)
        jobs.clock.move(LONG / 1000)
        assert await jobs.storage.purge("q", 10) == 0
        assert (await jobs.claim_one()).payload == b"new"

    async def test_one_that_was_replaced_leaves_nothing_behind(self, jobs: Jobs) -> None:
        for _ in range(3):
            await jobs.bring(JobState.FAILED, "a", dead_letter_ttl=LONG)
            jobs.clock.move(TTL / 1000)
        assert await jobs.storage.counts("q") == Counts(failed=1)
        assert await jobs.ids_in(JobState.FAILED) == ["a"]
        jobs.clock.move(LONG / 1000)
        assert await jobs.storage.counts("q") == Counts()

    @pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.CANCELLED])
    async def test_other_ended_jobs_are_none(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state, "a", dead_letter_ttl=LONG)
        jobs.clock.move(TTL / 1000)
        assert await jobs.find("a", letters=True) is None
        assert await jobs.storage.counts("q") == Counts()
        await jobs.storage.purge("q", 10)
        assert await jobs.find("a", letters=True) is None

    async def test_letters_are_asked_for_without_harm(self, jobs: Jobs) -> None:
        for place, state in enumerate(JobState):
            await jobs.bring(state, state.value, priority=place)
        ids = [state.value for state in JobState]
        plain = await jobs.storage.get("q", ids, payload=True)
        assert None not in plain
        assert await jobs.storage.get("q", ids, payload=True, letters=True) == plain
        assert await jobs.find("unknown", letters=True) is None

    @pytest.mark.parametrize(
        ("dead_letter_ttl", "ttl"),
        [(0, TTL), (1_000, TTL), (TTL, TTL), (TTL, 0), (None, TTL), (None, 2 * DEAD_LETTER_TTL)],
    )
    async def test_the_longer_time_counts(self, jobs: Jobs, dead_letter_ttl: int | None, ttl: int) -> None:
        await jobs.put("a", dead_letter_ttl=dead_letter_ttl)
        await jobs.settle(await jobs.claim_one(), Action.FAIL, b"error", ttl=ttl)
        end = max(DEAD_LETTER_TTL if dead_letter_ttl is None else dead_letter_ttl, ttl)
        jobs.clock.move((end - 1) / 1000)
        assert await jobs.find("a", letters=True) is not None
        assert await jobs.ids_in(JobState.FAILED) == ["a"]
        jobs.clock.move(0.001)
        assert await jobs.find("a", letters=True) is None
        assert await jobs.ids_in(JobState.FAILED) == []

    async def test_an_abandoned_job_stays_too(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=0, dead_letter_ttl=LONG)
        await jobs.claim_one(lease=LEASE)
        await jobs.stall()
        jobs.clock.move((LONG - 1) / 1000)
        assert await jobs.find("a") is None
        assert await jobs.ids_in(JobState.FAILED) == ["a"]
        jobs.clock.move(0.001)
        assert await jobs.ids_in(JobState.FAILED) == []

    async def test_a_later_expiry_moves_the_end_of_a_letter(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.FAILED, "a", dead_letter_ttl=LONG)
        for ttl in (1_000, 2 * LONG, 1_000):
            assert await jobs.storage.set_ttl("q", [("a", ttl)]) == [UpdateTtlStatus.UPDATED]
            record = await jobs.record("a")
            assert record.expires_at == jobs.clock.now_ms() + ttl
        jobs.clock.move((2 * LONG - 1) / 1000)
        assert await jobs.storage.purge("q", 10) == 0
        assert await jobs.find("a") is None
        assert await jobs.find("a", letters=True) is not None
        jobs.clock.move(0.001)
        assert await jobs.find("a", letters=True) is None
        assert await jobs.storage.counts("q") == Counts()

    async def test_pages_list_letters_and_others_once(self, jobs: Jobs) -> None:
        for n in range(6):
            await jobs.bring(JobState.FAILED, f"a{n}", dead_letter_ttl=LONG if n % 2 else 0)
        jobs.clock.move(TTL / 1000)
        for n in range(4):
            await jobs.bring(JobState.FAILED, f"b{n}", dead_letter_ttl=LONG)
        listed: list[str] = []
        cursor = None
        for _ in range(9):
            page = await jobs.storage.scan("q", JobState.FAILED, 2, cursor)
            listed += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
        assert cursor is None
        assert sorted(listed) == ["a1", "a3", "a5", "b0", "b1", "b2", "b3"]

    async def test_purge_takes_each_when_its_time_is_over(self, jobs: Jobs) -> None:
        for n, dead_letter_ttl in enumerate((0, 2 * TTL, 3 * TTL)):
            await jobs.bring(JobState.FAILED, str(n), dead_letter_ttl=dead_letter_ttl)
        for left in (["1", "2"], ["2"], []):
            jobs.clock.move(TTL / 1000)
            assert await jobs.storage.purge("q", 10) == 1
            assert await jobs.ids_in(JobState.FAILED) == left
