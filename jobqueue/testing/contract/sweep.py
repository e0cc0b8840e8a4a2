"""Sweeping: expired leases are recovered, and jobs that stall too often fail."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.outcomes import STALLED_ERROR
from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import Sweepable
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Swept
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs, job

__all__ = ["SweepCases"]


class SweepCases(Cases):
    """Sweeping."""

    async def test_sweep_takes_a_lease_at_its_end(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one(worker="w1", lease=1_000)
        before = await jobs.record("a", payload=True)
        jobs.clock.move(0.999)
        assert await jobs.storage.sweep("q", 10) == []
        assert await jobs.record("a", payload=True) == before
        jobs.clock.move(0.001)
        assert await jobs.storage.sweep("q", 10) == [Swept("a", JobState.QUEUED, 1, 1, "w1")]
        record = await jobs.record("a", payload=True)
        assert record == before._replace(
            state=JobState.QUEUED,
            stalls=1,
            fence=record.fence,
            worker=None,
            lease_until=None,
            updated_at=jobs.clock.now_ms(),
            history=record.history,
        )
        assert record.fence > run.fence

    async def test_sweep_of_a_quiet_queue(self, jobs: Jobs) -> None:
        assert await jobs.storage.sweep("q", 10) == []
        await jobs.put_all("ab")
        await jobs.put("c", delay=5)
        jobs.clock.move(1_000)
        assert await jobs.storage.sweep("q", 10) == []

    async def test_sweep_is_idempotent(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.claim()
        await jobs.stall()
        before = await jobs.record("a")
        for _ in range(3):
            assert await jobs.storage.sweep("q", 10) == []
        assert await jobs.record("a") == before
        assert await jobs.claim_ids() == ["a"]
        assert await jobs.storage.sweep("q", 10) == []

    async def test_sweep_is_limited_and_goes_by_claim(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(id, priority=n % 3) for n, id in enumerate("abcdefg")))
        claimed = [run.id for run in await jobs.claim(7)]
        jobs.clock.move(LEASE / 1000)
        assert await jobs.storage.sweep("q", 0) == []
        taken = [[swept.id for swept in await jobs.storage.sweep("q", limit)] for limit in (1, 3, 9, 9)]
        assert taken == [claimed[:1], claimed[1:4], claimed[4:], []]

    async def test_sweep_takes_the_oldest_claim_first_whatever_was_extended(self, jobs: Jobs) -> None:
        await jobs.put_all("abc")
        a, b, c = await jobs.claim(3)
        await jobs.extend(c, lease=300)
        await jobs.extend(a, lease=200)
        await jobs.extend(b, lease=100)
        jobs.clock.move(1)
        assert [swept.id for swept in await jobs.storage.sweep("q", 2)] == ["a", "b"]

    async def test_sweep_takes_only_what_expired(self, jobs: Jobs) -> None:
        await jobs.put_all("abc")
        await jobs.claim(1, lease=3_000)
        await jobs.claim(1, lease=1_000)
        await jobs.claim(1, lease=2_000)
        jobs.clock.move(2)
        assert [swept.id for swept in await jobs.storage.sweep("q", 10)] == ["b", "c"]
        assert await jobs.ids_in(JobState.PROCESSING) == ["a"]

    async def test_sweep_is_of_one_queue(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.claim()
        jobs.clock.move(LEASE / 1000)
        assert await jobs.storage.sweep("other", 10) == []
        assert await jobs.state("a") is JobState.PROCESSING

    async def test_concurrent_sweeps_take_each_job_once(self, jobs: Jobs, other: Storage) -> None:
        ids = [f"{n}" for n in range(40)]
        await jobs.put_all(ids)
        await jobs.claim(40)
        jobs.clock.move(LEASE / 1000)
        handles = [jobs.storage, other]
        calls = [handles[n % 2].sweep("q", 7) for n in range(12)]
        swept = [one.id for taken in await asyncio.gather(*calls) for one in taken]
        assert sorted(swept) == sorted(ids)
        assert sorted(await jobs.claim_ids()) == sorted(ids)

    @pytest.mark.parametrize("max_stalls", [0, 1, 2, 5])
    async def test_a_job_that_stalls_too_often_fails(self, jobs: Jobs, max_stalls: int) -> None:
        await jobs.put("a", max_stalls=max_stalls, max_attempts=1)
        for stall in range(1, max_stalls + 1):
            await jobs.claim_one(worker="w1")
            jobs.clock.move(LEASE / 1000)
            # A stall never ends a job by max_attempts.
            assert await jobs.storage.sweep("q", 9) == [Swept("a", JobState.QUEUED, stall, stall, "w1")]
        run = await jobs.claim_one(worker="w1")
        jobs.clock.move(LEASE / 1000)
        stalls = max_stalls + 1
        assert await jobs.storage.sweep("q", 9) == [Swept("a", JobState.FAILED, stalls, stalls, "w1")]
        record = await jobs.record("a")
        assert (record.state, record.error, record.result) == (JobState.FAILED, STALLED_ERROR, None)
        assert (record.stalls, record.attempts) == (stalls, stalls)
        assert (record.worker, record.lease_until) == (None, None)
        assert record.expires_at == jobs.clock.now_ms() + TTL
        assert record.fence > run.fence
        assert await jobs.claim() == []

    async def test_stalls_add_up_over_other_ends_of_runs(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=1)
        await jobs.claim()
        await jobs.stall()
        await jobs.settle(await jobs.claim_one(), Action.RELEASE)
        await jobs.settle(await jobs.claim_one(), Action.RETRY, b"e")
        await jobs.claim()
        await jobs.stall()
        record = await jobs.record("a")
        assert (record.state, record.stalls, record.attempts) == (JobState.FAILED, 2, 3)

    async def test_a_stalled_job_that_was_asked_to_cancel_is_cancelled(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=0, ttl=5_000)
        await jobs.claim_one(worker="w1")
        await jobs.cancel("a", running=True)
        jobs.clock.move(LEASE / 1000)
        assert await jobs.storage.sweep("q", 10) == [Swept("a", JobState.CANCELLED, 1, 1, "w1")]
        record = await jobs.record("a", payload=True)
        assert (record.state, record.error, record.payload) == (JobState.CANCELLED, None, None)
        assert record.expires_at == jobs.clock.now_ms() + 5_000
        assert (await jobs.put("a")).status == "created"

    async def test_a_sweep_of_every_outcome_in_order(self, jobs: Jobs) -> None:
        await jobs.put("fails", max_stalls=0)
        await jobs.put("back")
        await jobs.put("cancelled")
        await jobs.claim(3)
        await jobs.cancel("cancelled", running=True)
        jobs.clock.move(LEASE / 1000)
        swept = await jobs.storage.sweep("q", 10)
        assert [(one.id, one.state) for one in swept] == [
            ("fails", JobState.FAILED),
            ("back", JobState.QUEUED),
            ("cancelled", JobState.CANCELLED),
        ]
        assert await jobs.claim_ids() == ["back"]

    async def test_the_queues_with_something_to_sweep_are_named(self, jobs: Jobs) -> None:
        store = jobs.storage
        if not isinstance(store, Sweepable):
            pytest.skip("an ability that this store does not have")
        stalled, expired, waits = jobs.at("stalled"), jobs.at("expired"), jobs.at("waits")
        await stalled.put("a")
        await stalled.claim_one(lease=LEASE)
        await expired.put("a")
        await expired.complete(await expired.claim_one(), ttl=LEASE)
        await waits.put("a")
        await waits.put("b", delay=2 * LEASE)
        names = ["waits", "expired", "nobody", "stalled"]
        jobs.clock.move(LEASE / 1000)
        if await store.to_sweep(["nobody"]):  # this one names them all
            assert await store.to_sweep(names) == names
            return
        assert await store.to_sweep(names) == ["expired", "stalled"]
        assert len(await store.sweep("stalled", 10)) == 1
        assert await store.purge("expired", 10) == 1
        assert await store.to_sweep(names) == []
        assert await store.to_sweep([]) == []
