"""Cancelling: waiting jobs at once, running ones through their worker."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import CancelStatus, InsertStatus, LeaseStatus, Reuse
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import TTL, Box, Jobs

__all__ = ["CancelCases"]

CANCELLED, NOT_FOUND = CancelStatus.CANCELLED, CancelStatus.NOT_FOUND


class CancelCases(Cases):
    """Cancelling."""

    @pytest.mark.parametrize("running", [False, True])
    @pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.QUEUED, JobState.FAILING])
    async def test_a_waiting_job_is_cancelled_at_once(
        self, jobs: Jobs, state: JobState, running: bool
    ) -> None:
        await jobs.bring(state, ttl=5_000)
        before = await jobs.record("a")
        jobs.clock.move(1)
        assert await jobs.cancel("a", running=running) is CANCELLED
        now = jobs.clock.now_ms()
        assert await jobs.record("a", payload=True) == before._replace(
            state=JobState.CANCELLED, error=None, payload=None, expires_at=now + 5_000, updated_at=now
        )
        assert (await jobs.exchange(limit=1)).next_due is None
        jobs.clock.move(4)
        assert await jobs.claim() == []

    @pytest.mark.parametrize("running", [False, True])
    @pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED])
    async def test_an_ended_job_stays_as_it_is(self, jobs: Jobs, state: JobState, running: bool) -> None:
        await jobs.bring(state)
        before = await jobs.record("a")
        jobs.clock.move(1)
        assert await jobs.cancel("a", running=running) == CancelStatus(state.value)
        assert await jobs.record("a") == before

    @pytest.mark.parametrize("running", [False, True])
    async def test_an_absent_job_is_not_found(self, jobs: Jobs, running: bool) -> None:
        assert await jobs.cancel("a", running=running) is NOT_FOUND
        await jobs.put("b")
        assert await jobs.cancel("a", running=running) is NOT_FOUND
        assert await jobs.at("other").cancel("b", running=running) is NOT_FOUND
        assert await jobs.find("a") is None
        assert await jobs.state("b") is JobState.QUEUED

    async def test_a_running_job_is_left_alone(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.PROCESSING)
        assert run is not None
        before = await jobs.record("a", payload=True)
        assert await jobs.cancel("a") is CancelStatus.PROCESSING
        assert await jobs.record("a", payload=True) == before
        assert await jobs.extend(run) is LeaseStatus.HELD
        assert await jobs.complete(run) == "accepted"

    async def test_a_running_job_is_asked_to_end(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.PROCESSING)
        assert run is not None
        before = await jobs.record("a", payload=True)
        for _ in range(2):
            assert await jobs.cancel("a", running=True) is CancelStatus.CANCELLING
        record = await jobs.record("a", payload=True)
        assert record == before._replace(cancelling=True)
        assert await jobs.cancel("a") is CancelStatus.PROCESSING
        assert (await jobs.put("a")).status is InsertStatus.FOUND
        assert await jobs.extend(run) is LeaseStatus.CANCELLING
        assert await jobs.settle(run, Action.CANCEL) == "cancelled"
        assert await jobs.cancel("a", running=True) is CANCELLED

    async def test_the_worker_is_told(self, jobs: Jobs) -> None:
        worker, neighbour = Box(), Box()
        await jobs.storage.subscribe("q", "w1", worker)
        await jobs.storage.subscribe("q", "w2", neighbour)
        await jobs.put_all("ab")
        run = await jobs.claim_one(worker="w1")
        other = await jobs.claim_one(worker="w2")
        await jobs.cancel("a", running=False)
        await jobs.cancel("a", running=True)
        await worker.take(cancels=1)
        assert set(worker.cancels) == {("q", "a", run.fence)}
        await jobs.cancel("b", running=True)
        await neighbour.take(cancels=1)
        assert set(neighbour.cancels) == {("q", "b", other.fence)}
        assert worker.replies == neighbour.replies == []

    async def test_the_worker_on_another_handle_is_told(self, jobs: Jobs, other: Storage) -> None:
        worker = Box()
        await other.subscribe("q", "w1", worker)
        await jobs.put("a")
        run = await jobs.claim_one(worker="w1")
        await jobs.cancel("a", running=True)
        await worker.take(cancels=1)
        assert set(worker.cancels) == {("q", "a", run.fence)}

    async def test_a_request_is_forgotten_with_its_job(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.PROCESSING)
        assert run is not None
        await jobs.cancel("a", running=True)
        await jobs.settle(run, Action.CANCEL)
        await jobs.put("a")
        assert not (await jobs.record("a")).cancelling
        again = await jobs.claim_one()
        assert await jobs.extend(again) is LeaseStatus.HELD
        assert await jobs.complete(again) == "accepted"

    async def test_a_batch_is_answered_in_order(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED, "done")
        await jobs.bring(JobState.PROCESSING, "runs")
        await jobs.put_all("ab")
        ids = ["b", "zz", "runs", "b", "done", "a"]
        assert await jobs.storage.cancel("q", ids) == [
            "cancelled", "not_found", "processing", "cancelled", "completed", "cancelled",
        ]  # fmt: skip
        assert await jobs.storage.cancel("q", []) == []
        assert await jobs.claim() == []

    # -- the id is free ---------------------------------------------------------------------------

    @pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.QUEUED, JobState.FAILING])
    async def test_a_cancelled_id_runs_the_new_payload_once(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state, payload=b"old")
        await jobs.cancel("a")
        assert (await jobs.put("a", payload=b"new")).status is InsertStatus.CREATED
        runs = await jobs.claim(9)
        assert [(run.payload, run.attempts) for run in runs] == [(b"new", 1)]
        jobs.clock.move(10)
        assert await jobs.claim(9) == []
        assert await jobs.complete(runs[0]) == "accepted"
        assert (await jobs.record("a")).result == b"result"

    async def test_a_cancelled_schedule_leaves_no_start_behind(self, jobs: Jobs) -> None:
        await jobs.put("a", delay=1_000)
        await jobs.cancel("a")
        await jobs.put("a", delay=9_000, payload=b"new")
        assert (await jobs.exchange(limit=1)).next_due == 9_000
        jobs.clock.move(1)
        assert await jobs.claim() == []
        jobs.clock.move(8)
        assert [run.payload for run in await jobs.claim(9)] == [b"new"]

    async def test_the_same_schedule_again_starts_once(self, jobs: Jobs) -> None:
        run_at = jobs.clock.now_ms() + 1_000
        for payload in (b"1", b"2", b"3"):
            await jobs.put("a", run_at=run_at, payload=payload)
            await jobs.cancel("a")
        await jobs.put("a", run_at=run_at, payload=b"4")
        jobs.clock.move(1)
        assert [run.payload for run in await jobs.claim(9)] == [b"4"]
        counts = await jobs.storage.counts("q")
        assert (counts.scheduled, counts.queued, counts.processing, counts.cancelled) == (0, 0, 1, 0)

    async def test_the_old_record_does_not_expire_the_new_job(self, jobs: Jobs) -> None:
        await jobs.put("a", ttl=1_000)
        await jobs.cancel("a")
        await jobs.put("a", payload=b"new")
        jobs.clock.move(2)
        await jobs.storage.purge("q", 100)
        assert await jobs.state("a") is JobState.QUEUED
        assert (await jobs.claim_one()).payload == b"new"

    async def test_a_cancelled_record_answers_until_its_ttl_ends(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.cancel("a")
        jobs.clock.move(TTL / 1000 - 0.001)
        assert await jobs.state("a") is JobState.CANCELLED
        assert await jobs.cancel("a") is CANCELLED
        jobs.clock.move(0.001)
        assert await jobs.find("a") is None
        assert await jobs.cancel("a") is NOT_FOUND

    async def test_a_cancel_of_an_earlier_incarnation_does_not_linger(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.PROCESSING)
        assert run is not None
        await jobs.cancel("a", running=True)
        await jobs.stall()
        assert await jobs.state("a") is JobState.CANCELLED
        await jobs.put("a", reuse=Reuse.RETURN)
        again = await jobs.claim_one()
        assert await jobs.extend(again) is LeaseStatus.HELD

    # -- races ------------------------------------------------------------------------------------

    async def test_cancel_and_claim_never_both_get_a_job(self, jobs: Jobs, other: Storage) -> None:
        ids = [f"{n}" for n in range(60)]
        await jobs.put_all(ids)
        there = Jobs(other, jobs.clock)
        cancels = [there.cancel(id) for id in reversed(ids)]
        claims = [jobs.claim_ids(2) for _ in range(30)]
        statuses, claimed = await asyncio.gather(asyncio.gather(*cancels), asyncio.gather(*claims))
        taken = {id for batch in claimed for id in batch}
        gone = {id for id, status in zip(reversed(ids), statuses, strict=True) if status is CANCELLED}
        assert taken.isdisjoint(gone)
        left = set(await jobs.claim_ids())
        assert taken | gone | left == set(ids)
        assert len(taken) + len(gone) + len(left) == 60

    async def test_concurrent_cancels_all_say_cancelled(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        calls = [(other if n % 2 else jobs.storage).cancel("q", ["a"]) for n in range(10)]
        assert await asyncio.gather(*calls) == [[CANCELLED]] * 10
