"""Fences: only the current lease holder's outcome is written, and once."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Reuse, SettleStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs

__all__ = ["FenceCases"]

ACCEPTED, CANCELLED, LOST = SettleStatus.ACCEPTED, SettleStatus.CANCELLED, SettleStatus.LOST
ACTIONS = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)


class FenceCases(Cases):
    """Fences."""

    async def test_fences_only_grow(self, jobs: Jobs) -> None:
        two = jobs.at("two")
        await jobs.put("a", max_stalls=9)
        await two.put("b", max_stalls=0)
        fences = [(await jobs.claim_one()).fence, (await two.claim_one()).fence]
        await jobs.stall()
        fences.append((await jobs.record("a")).fence)
        await two.storage.sweep("two", 9)
        fences.append((await two.record("b")).fence)
        run = await jobs.claim_one()
        fences.append(run.fence)
        await jobs.settle(run, Action.RELEASE)
        assert (await jobs.record("a")).fence == run.fence
        fences.append((await jobs.claim_one()).fence)
        jobs.clock.move(TTL / 1000)
        await two.storage.purge("two", 100)
        await two.put("b")
        fences.append((await two.claim_one()).fence)
        assert fences == sorted(set(fences))

    @pytest.mark.parametrize("action", ACTIONS)
    @pytest.mark.parametrize("offset", [-1, 1, 1000])
    async def test_another_fence_is_refused(self, jobs: Jobs, action: Action, offset: int) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        before = await jobs.record("a", payload=True)
        assert await jobs.settle(run._replace(fence=run.fence + offset), action, b"x") is LOST
        assert await jobs.record("a", payload=True) == before
        assert await jobs.settle(run, action, b"x") is not LOST

    async def test_another_jobs_fence_is_refused(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        a, b = await jobs.claim(2)
        assert await jobs.complete(a._replace(fence=b.fence)) is LOST
        assert await jobs.complete(b._replace(fence=a.fence)) is LOST
        assert await jobs.ids_in(JobState.PROCESSING) == ["a", "b"]

    @pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.QUEUED])
    async def test_a_job_that_was_never_claimed_cannot_be_settled(self, jobs: Jobs, state: JobState) -> None:
        await jobs.put("b", priority=9)
        run = await jobs.claim_one()
        await jobs.bring(state, "a")
        before = await jobs.record("a")
        assert await jobs.complete(run._replace(id="a")) is LOST
        assert await jobs.record("a") == before

    async def test_an_unknown_id_is_lost(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        assert await jobs.complete(run._replace(id="b")) is LOST
        assert await jobs.at("other").complete(run) is LOST
        assert await jobs.find("b") is None
        assert await jobs.at("other").find("a") is None
        assert await jobs.state("a") is JobState.PROCESSING

    @pytest.mark.parametrize("second", ACTIONS)
    @pytest.mark.parametrize("first", [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE])
    async def test_settling_again_is_accepted_without_effect(
        self, jobs: Jobs, first: Action, second: Action
    ) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        assert await jobs.settle(run, first, b"1", ttl=7_000, delay=3_000) is ACCEPTED
        before = await jobs.record("a", payload=True)
        jobs.clock.move(1)
        assert await jobs.settle(run, second, b"2", ttl=9_000, delay=9_000) is ACCEPTED
        assert await jobs.record("a", payload=True) == before

    async def test_settling_a_cancelled_run_again_says_cancelled(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        assert await jobs.settle(run, Action.CANCEL) is CANCELLED
        before = await jobs.record("a")
        jobs.clock.move(1)
        assert await jobs.complete(run) is CANCELLED
        assert await jobs.record("a") == before

    async def test_one_run_settled_twice_in_a_batch(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        answer = await jobs.exchange(
            Settlement("a", run.fence, Action.COMPLETE, b"1", TTL),
            Settlement("a", run.fence, Action.FAIL, b"2", TTL),
        )
        assert answer.settled == [ACCEPTED, ACCEPTED]
        record = await jobs.record("a")
        assert (record.state, record.result) == (JobState.COMPLETED, b"1")

    async def test_one_run_released_twice_in_a_batch_is_given_back_once(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        run = await jobs.claim_one()
        release = Settlement("a", run.fence, Action.RELEASE)
        assert (await jobs.exchange(release, release)).settled == [ACCEPTED, ACCEPTED]
        assert [(run.id, run.attempts) for run in await jobs.claim(9)] == [("a", 1), ("b", 1)]

    async def test_concurrent_settlements_of_one_run_write_one(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        handles = [jobs, Jobs(other, jobs.clock)]
        calls = [handles[n % 2].complete(run, b"%d" % n) for n in range(10)]
        assert await asyncio.gather(*calls) == [ACCEPTED] * 10
        first = (await jobs.record("a")).result
        assert await jobs.complete(run, b"late") is ACCEPTED
        assert (await jobs.record("a")).result == first != b"late"

    @pytest.mark.parametrize("action", ACTIONS)
    async def test_a_swept_run_is_lost(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.stall()
        before = await jobs.record("a", payload=True)
        assert await jobs.settle(run, action, b"late") is LOST
        assert await jobs.record("a", payload=True) == before
        assert await jobs.claim_ids() == ["a"]

    @pytest.mark.parametrize("action", ACTIONS)
    async def test_a_run_whose_job_was_claimed_again_is_lost(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        old = await jobs.claim_one(worker="w1")
        await jobs.settle(old, Action.RELEASE)
        new = await jobs.claim_one(worker="w2")
        assert await jobs.settle(old, action, b"late") is LOST
        assert (await jobs.record("a")).fence == new.fence
        assert await jobs.complete(new, b"right") is ACCEPTED
        assert (await jobs.record("a")).result == b"right"

    async def test_an_abandoned_run_is_lost(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=0)
        run = await jobs.claim_one()
        await jobs.stall()
        assert await jobs.complete(run) is LOST
        assert await jobs.state("a") is JobState.FAILED

    async def test_a_run_of_an_earlier_incarnation_is_lost(self, jobs: Jobs) -> None:
        await jobs.put("a")
        old = await jobs.claim_one()
        await jobs.settle(old, Action.FAIL, b"e")
        await jobs.put("a", reuse=Reuse.RERUN)
        assert await jobs.complete(old) is LOST
        assert await jobs.state("a") is JobState.QUEUED
        await jobs.claim_one()
        assert await jobs.complete(old) is LOST
        assert await jobs.state("a") is JobState.PROCESSING

    async def test_a_settlement_after_the_record_expired_is_lost(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.complete(run, ttl=1_000)
        jobs.clock.move(0.999)
        assert await jobs.complete(run) is ACCEPTED
        jobs.clock.move(0.001)
        assert await jobs.complete(run) is LOST

    async def test_a_lease_that_ran_out_unswept_still_settles(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        jobs.clock.move(2 * LEASE / 1000)
        assert await jobs.complete(run) is ACCEPTED
        assert await jobs.storage.sweep("q", 10) == []
