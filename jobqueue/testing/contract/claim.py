"""Claiming: order, schedules and leases."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import PROMOTE_LIMIT, Exchanged, SettleStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, LIMIT, TTL, WAIT, Jobs, job

__all__ = ["ClaimCases"]


class ClaimCases(Cases):
    """Claiming."""

    async def test_claim_hands_out_the_job(self, jobs: Jobs) -> None:
        created_at = jobs.clock.now_ms()
        await jobs.put("a", payload=b"data", max_attempts=7, ttl=4_321)
        jobs.clock.move(2)
        run = await jobs.claim_one()
        assert run[:7] == ("a", b"data", run.fence, 1, 7, 4_321, created_at)
        assert run.fence > 0

    async def test_claim_writes_the_lease(self, jobs: Jobs) -> None:
        await jobs.put("a")
        before = await jobs.record("a", payload=True)
        jobs.clock.move(2)
        run = await jobs.claim_one(worker="w1", lease=1_234)
        now = jobs.clock.now_ms()
        assert await jobs.record("a", payload=True) == before._replace(
            state=JobState.PROCESSING,
            attempts=1,
            fence=run.fence,
            worker="w1",
            lease_until=now + 1_234,
            updated_at=now,
        )

    async def test_an_empty_queue_gives_nothing(self, jobs: Jobs) -> None:
        assert await jobs.exchange(limit=5) == Exchanged([], [], None)

    @pytest.mark.parametrize("limit", [0, 1, 3, 4, 5])
    async def test_limit(self, jobs: Jobs, limit: int) -> None:
        await jobs.put_all("abcd")
        assert await jobs.claim_ids(limit) == list("abcd"[:limit])

    async def test_the_limit_holds_across_priorities(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(id, priority=ord(id)) for id in "abcdef"))
        assert await jobs.claim_ids(4) == list("fedc")
        assert await jobs.claim_ids(4) == list("ba")

    async def test_a_claimed_job_is_not_claimed_again(self, jobs: Jobs) -> None:
        await jobs.put("a")
        assert await jobs.claim_ids() == ["a"]
        assert await jobs.claim_ids() == []

    async def test_concurrent_claims_share_the_jobs_out(self, jobs: Jobs, other: Storage) -> None:
        ids = [f"{n}" for n in range(100)]
        await jobs.put_all(ids)
        handles = [jobs, Jobs(other, jobs.clock)]
        calls = [handles[n % 2].claim(9, worker=f"w{n}") for n in range(12)]
        runs = [run for batch in await asyncio.gather(*calls) for run in batch]
        assert sorted(run.id for run in runs) == sorted(ids)
        assert len({run.fence for run in runs}) == 100

    async def test_calls_of_one_worker_that_overlap_hand_in_and_claim_each_its_own(self, jobs: Jobs) -> None:
        ids = [f"{n}" for n in range(60)]
        await jobs.put_all(ids)
        runs = await jobs.claim(20)
        ends = [Settlement(run.id, run.fence, Action.COMPLETE, b"done", TTL) for run in runs]
        first, second = await asyncio.gather(
            jobs.exchange(*ends[:10], limit=20), jobs.exchange(*ends[10:], limit=20)
        )
        assert first.settled == second.settled == [SettleStatus.ACCEPTED] * 10
        runs += [*first.jobs, *second.jobs, *await jobs.claim(60)]
        assert sorted(run.id for run in runs) == sorted(ids)
        assert len({run.fence for run in runs}) == 60
        assert (await jobs.storage.counts(jobs.queue)).completed == 20

    @pytest.mark.parametrize("turns", range(8))
    async def test_what_a_cancelled_call_claims_is_given_back(self, jobs: Jobs, turns: int) -> None:
        await jobs.put("a")
        claiming = asyncio.create_task(jobs.exchange(limit=1))
        for _ in range(turns):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        if not claiming.cancelled():  # it was faster
            for run in claiming.result().jobs:
                await jobs.settle(run, Action.RELEASE)
        async with asyncio.timeout(LIMIT):
            while not (runs := await jobs.claim()):
                await jobs.storage.wait_for_work("q", "idle", WAIT)
        assert [(run.id, run.attempts) for run in runs] == [("a", 1)]

    async def test_fences_rise_in_the_order_of_the_claims(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(id, priority=n % 3) for n, id in enumerate("abcdefgh")))
        fences = [run.fence for run in await jobs.claim(5) + await jobs.claim(5)]
        assert fences == sorted(set(fences))
        assert len(fences) == 8

    # -- order ------------------------------------------------------------------------------------

    async def test_first_in_first_out(self, jobs: Jobs) -> None:
        await jobs.put_all("zy")
        await jobs.put_all(["m"])
        await jobs.put_all("ab")
        assert await jobs.claim_ids(3) == list("zym")
        await jobs.put("0")
        assert await jobs.claim_ids() == list("ab0")

    async def test_highest_priority_first(self, jobs: Jobs) -> None:
        order = {"a": 0, "b": 10, "c": -5, "d": 10, "e": 1000, "f": -1000, "g": 9, "h": 0}
        for id, priority in order.items():
            await jobs.put(id, priority=priority)
        assert await jobs.claim_ids() == list("ebdgahcf")

    async def test_a_later_job_of_a_higher_priority_overtakes(self, jobs: Jobs) -> None:
        await jobs.put_all("abc")
        assert await jobs.claim_ids(1) == ["a"]
        await jobs.put("x", priority=1)
        assert await jobs.claim_ids(2) == ["x", "b"]

    async def test_the_created_again_goes_to_the_back(self, jobs: Jobs) -> None:
        await jobs.put_all("abc")
        await jobs.cancel("a")
        await jobs.put("a")
        assert await jobs.claim_ids() == list("bca")

    # -- schedules --------------------------------------------------------------------------------

    async def test_a_scheduled_job_starts_at_its_instant(self, jobs: Jobs) -> None:
        await jobs.put("a", delay=1_000)
        jobs.clock.move(0.999)
        assert await jobs.exchange(limit=1) == Exchanged([], [], 1)
        jobs.clock.move(0.001)
        assert await jobs.claim_ids() == ["a"]

    async def test_scheduled_jobs_start_by_due_time_then_seq(self, jobs: Jobs) -> None:
        for id, delay in (("a", 30), ("b", 10), ("c", 20), ("d", 10), ("e", 30), ("f", 9)):
            await jobs.put(id, delay=delay)
        jobs.clock.move(1)
        assert await jobs.claim_ids() == list("fbdcae")

    async def test_ids_do_not_break_ties_of_due_times(self, jobs: Jobs) -> None:
        run_at = jobs.clock.now_ms() + 1_000
        ids = [f"{(n * 37) % 64}" for n in range(64)]
        await jobs.put_all(ids, run_at=run_at)
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ids

    async def test_due_jobs_go_to_the_back_of_ready(self, jobs: Jobs) -> None:
        await jobs.put("due", delay=10)
        jobs.clock.move(1)
        await jobs.put_all("ab")
        assert await jobs.claim_ids(2) == ["a", "b"]
        assert await jobs.claim_ids(2) == ["due"]

    async def test_due_jobs_keep_their_priority(self, jobs: Jobs) -> None:
        await jobs.put("low", delay=10, priority=-1)
        await jobs.put("high", delay=20, priority=1)
        await jobs.put("ready")
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ["high", "ready", "low"]

    async def test_a_promoted_job_is_queued(self, jobs: Jobs) -> None:
        due = jobs.clock.now_ms() + 10
        await jobs.put_all("ab", delay=10)
        jobs.clock.move(1)
        assert await jobs.claim_ids(1) == ["a"]
        record = await jobs.record("b")
        assert (record.state, record.run_at) == (JobState.QUEUED, due)
        assert (await jobs.put("b")).state is JobState.QUEUED
        assert await jobs.cancel("b") == "cancelled"
        assert await jobs.claim() == []

    async def test_next_due(self, jobs: Jobs) -> None:
        await jobs.put("a", delay=5_000)
        assert (await jobs.exchange(limit=1)).next_due == 5_000
        await jobs.put("b", delay=2_000)
        assert (await jobs.exchange(limit=1)).next_due == 2_000
        jobs.clock.move(1.5)
        assert (await jobs.exchange(limit=1)).next_due == 500
        await jobs.cancel("b")
        assert (await jobs.exchange(limit=1)).next_due == 3_500
        jobs.clock.move(3.5)
        answer = await jobs.exchange(limit=1)
        assert ([run.id for run in answer.jobs], answer.next_due) == (["a"], None)

    async def test_next_due_knows_retries(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.PROCESSING)
        assert run is not None
        assert await jobs.settle(run, Action.RETRY, b"e", delay=700) == "accepted"
        assert (await jobs.exchange(limit=1)).next_due == 700

    async def test_next_due_is_of_this_queue(self, jobs: Jobs) -> None:
        await jobs.at("other").put("a", delay=5)
        assert (await jobs.exchange(limit=1)).next_due is None

    async def test_without_a_limit_nothing_is_promoted(self, jobs: Jobs) -> None:
        await jobs.put("a", delay=10)
        jobs.clock.move(1)
        assert (await jobs.exchange(limit=0)).next_due == 0
        assert await jobs.state("a") is JobState.SCHEDULED
        await jobs.put("b")
        assert await jobs.claim_ids() == ["b", "a"]

    async def test_promotion_is_bounded(self, jobs: Jobs) -> None:
        await jobs.put_all([f"{n}" for n in range(PROMOTE_LIMIT + 5)], delay=10)
        jobs.clock.move(1)
        answer = await jobs.exchange(limit=1)
        assert ([run.id for run in answer.jobs], answer.next_due) == (["0"], 0)
        counts = await jobs.storage.counts("q")
        assert (counts.scheduled, counts.queued, counts.processing) == (5, PROMOTE_LIMIT - 1, 1)
        answer = await jobs.exchange(limit=PROMOTE_LIMIT + 5, lease=LEASE)
        assert answer.next_due is None
        assert [run.id for run in answer.jobs] == [f"{n}" for n in range(1, PROMOTE_LIMIT + 5)]
