"""Leases: renewing, losing and recovering them; fences; who is at work."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.job import STALLED_ERROR, Action, JobState, Settlement
from jobqueue.storage.base import (
    WORKER_SEEN_FOR,
    Claimed,
    LeaseStatus,
    Renewal,
    Storage,
    Swept,
    WorkerInfo,
)
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs, job

__all__ = ["LeaseCases"]

HELD, CANCELLING, LOST = LeaseStatus.HELD, LeaseStatus.CANCELLING, LeaseStatus.LOST


class LeaseCases(Cases):
    """Leases."""

    async def test_extend(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        before = await jobs.record("a")
        jobs.clock.move(20)
        assert await jobs.extend(run, lease=5_000) is HELD
        record = await jobs.record("a")
        assert record.lease_until == jobs.clock.now_ms() + 5_000
        assert record == before._replace(lease_until=record.lease_until, updated_at=record.updated_at)

    async def test_an_extended_lease_outlives_its_first_end(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        jobs.clock.move(LEASE / 1000 - 1)
        await jobs.extend(run)
        jobs.clock.move(LEASE / 1000 - 0.001)
        assert await jobs.storage.sweep("q", 10) == []
        jobs.clock.move(0.001)
        assert [swept.id for swept in await jobs.storage.sweep("q", 10)] == ["a"]

    async def test_a_shortened_lease_ends_early(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.extend(await jobs.claim_one(), lease=10)
        jobs.clock.move(0.010)
        assert len(await jobs.storage.sweep("q", 10)) == 1

    async def test_extend_writes_progress(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        seen = []
        for progress in (None, b"10%", None, b"", b"\x00\xff", None):
            assert await jobs.extend(run, progress) is HELD
            seen.append((await jobs.record("a")).progress)
        assert seen == [None, b"10%", b"10%", b"", b"\x00\xff", b"\x00\xff"]

    @pytest.mark.parametrize("action", [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE])
    async def test_a_settled_lease_is_lost(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.settle(run, action, b"x", delay=1_000)
        before = await jobs.record("a", payload=True)
        assert await jobs.extend(run, b"late") is LOST
        assert await jobs.record("a", payload=True) == before

    async def test_a_swept_lease_is_lost(self, jobs: Jobs) -> None:
        await jobs.put("a")
        old = await jobs.claim_one(worker="w1")
        await jobs.stall()
        assert await jobs.extend(old, b"late", worker="w1") is LOST
        new = await jobs.claim_one(worker="w2")
        before = await jobs.record("a")
        assert await jobs.extend(old, b"late", worker="w1", lease=99_000) is LOST
        assert await jobs.record("a") == before
        assert await jobs.extend(new) is HELD

    async def test_foreign_fences_and_ids_are_lost(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        a, b = await jobs.claim(2)
        renewals = [
            Renewal("b", a.fence),
            Renewal("a", a.fence),
            Renewal("zz", a.fence),
            Renewal("a", a.fence + 100),
            Renewal("b", b.fence),
        ]
        assert await jobs.storage.extend("q", "w", renewals, LEASE) == [LOST, HELD, LOST, LOST, HELD]
        assert await jobs.storage.extend("other", "w", renewals, LEASE) == [LOST] * 5

    async def test_extend_of_nothing(self, jobs: Jobs) -> None:
        assert await jobs.storage.extend("q", "w", [], LEASE) == []

    async def test_extend_reports_a_cancel_request(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        a, b = await jobs.claim(2)
        await jobs.cancel("a", running=True)
        assert [await jobs.extend(a), await jobs.extend(b), await jobs.extend(a)] == [
            CANCELLING, HELD, CANCELLING,
        ]  # fmt: skip
        assert (await jobs.record("a")).lease_until == jobs.clock.now_ms() + LEASE

    async def test_a_lease_that_ran_out_unswept_is_still_held(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        jobs.clock.move(2 * LEASE / 1000)
        assert await jobs.extend(run) is HELD
        assert await jobs.storage.sweep("q", 10) == []
        assert await jobs.complete(run) == "accepted"

    # -- sweeping ---------------------------------------------------------------------------------

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

    # -- the front --------------------------------------------------------------------------------

    async def test_recovered_jobs_go_to_the_front_in_fence_order(self, jobs: Jobs) -> None:
        await jobs.put_all("abcde")
        await jobs.claim(3)
        await jobs.stall()
        assert await jobs.claim_ids() == list("abcde")

    async def test_released_jobs_go_to_the_front_in_fence_order(self, jobs: Jobs) -> None:
        await jobs.put_all("abcdef")
        runs = {run.id: run for run in await jobs.claim(4)}
        await jobs.storage.exchange("q", "w", [released(runs[id]) for id in "cadb"], 0, LEASE)
        assert await jobs.claim_ids() == list("abcdef")

    async def test_what_is_released_later_comes_first(self, jobs: Jobs) -> None:
        await jobs.put_all("abcd")
        a, b, _ = await jobs.claim(3)
        await jobs.settle(a, Action.RELEASE)
        await jobs.settle(b, Action.RELEASE)
        assert await jobs.claim_ids() == list("bad")

    async def test_the_front_is_that_of_the_priority(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(id, priority=1) for id in "ab"), *(job(id) for id in "xyz"))
        runs = {run.id: run for run in await jobs.claim(3)}
        assert list(runs) == ["a", "b", "x"]
        await jobs.put("c", priority=1)
        await jobs.exchange(released(runs["x"]), released(runs["b"]))
        assert await jobs.claim_ids() == ["b", "c", "x", "y", "z"]

    async def test_recovered_jobs_keep_their_priority(self, jobs: Jobs) -> None:
        await jobs.insert(job("low", priority=-1), job("high", priority=1), job("low2", priority=-1))
        await jobs.claim(2)
        await jobs.put_all(["mid"])
        await jobs.stall()
        assert await jobs.claim_ids() == ["high", "mid", "low", "low2"]

    # -- fences -----------------------------------------------------------------------------------

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

    # -- workers ----------------------------------------------------------------------------------

    async def test_workers_are_listed_by_name_with_their_leases(self, jobs: Jobs) -> None:
        assert await jobs.storage.workers("q") == []
        start = jobs.clock.now_ms()
        await jobs.put_all("abc")
        await jobs.claim(2, worker="w2")
        jobs.clock.move(1)
        (run,) = await jobs.claim(1, worker="w1")
        await jobs.exchange(worker="w3")
        expected = [
            WorkerInfo("w1", start + 1_000, 1),
            WorkerInfo("w2", start, 2),
            WorkerInfo("w3", start + 1_000, 0),
        ]
        assert await jobs.storage.workers("q") == expected
        assert await jobs.storage.workers("other") == []
        jobs.clock.move(1)
        await jobs.settle(run, Action.COMPLETE, b"")
        listed = await jobs.storage.workers("q")
        assert [(one.worker, one.running) for one in listed] == [("w", 0), ("w1", 0), ("w2", 2), ("w3", 0)]

    async def test_a_worker_is_seen_for_a_while(self, jobs: Jobs) -> None:
        await jobs.exchange(worker="w1")
        jobs.clock.move(1)
        await jobs.storage.extend("q", "w2", [], LEASE)
        jobs.clock.move(WORKER_SEEN_FOR / 1000 - 1.001)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w1", "w2"]
        jobs.clock.move(0.001)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w2"]
        await jobs.storage.purge("q", 10)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w2"]
        await jobs.storage.extend("q", "w1", [], LEASE)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w1", "w2"]
        jobs.clock.move(WORKER_SEEN_FOR / 1000)
        await jobs.storage.purge("q", 10)
        assert await jobs.storage.workers("q") == []

    async def test_a_sweep_takes_the_lease_off_its_worker(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.claim_one(worker="w1")
        await jobs.stall()
        assert [(one.worker, one.running) for one in await jobs.storage.workers("q")] == [("w1", 0)]


def released(run: Claimed) -> Settlement:
    return Settlement(run.id, run.fence, Action.RELEASE)
