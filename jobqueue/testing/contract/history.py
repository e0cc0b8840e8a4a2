"""The history of failed attempts and stalls."""

from __future__ import annotations

import pytest

from jobqueue.model.outcomes import STALLED_ERROR
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import MAX_HISTORY, MAX_SUMMARY, AttemptRecord, Reuse, SettleStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, LEASE, Jobs

__all__ = ["HistoryCases"]

LONGEST = ALL_BYTES * (MAX_SUMMARY // 256)


class HistoryCases(Cases):
    """History."""

    async def test_each_failed_attempt_and_stall_is_kept(self, jobs: Jobs) -> None:
        await jobs.put("a", task="t", headers=b"h")
        run = await jobs.claim_one(worker="w1")
        assert run.history == ()
        await jobs.settle(run, Action.RETRY, b"whole error", summary=b"one")
        first = AttemptRecord(jobs.clock.now_ms(), 1, "w1", b"one")
        assert (await jobs.record("a")).history == (first,)
        jobs.clock.move(1)
        run = await jobs.claim_one(worker="w2")
        assert run.history == (first,)
        await jobs.stall()
        second = AttemptRecord(jobs.clock.now_ms(), 2, "w2", STALLED_ERROR)
        run = await jobs.claim_one(worker="w3")
        assert run.history == (first, second)
        await jobs.settle(run, Action.FAIL, b"whole error", summary=LONGEST)
        third = AttemptRecord(jobs.clock.now_ms(), 3, "w3", LONGEST)
        record = await jobs.record("a")
        assert (record.history, record.error) == ((first, second, third), b"whole error")
        assert (record.task, record.headers) == ("t", b"h")

    @pytest.mark.parametrize("action", [Action.COMPLETE, Action.RELEASE, Action.CANCEL])
    async def test_other_ends_of_a_run_add_nothing(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        await jobs.settle(await jobs.claim_one(), Action.RETRY, b"e", summary=b"one")
        kept = (await jobs.record("a")).history
        await jobs.settle(await jobs.claim_one(), action, b"x", summary=b"two")
        assert len(kept) == 1
        assert (await jobs.record("a")).history == kept

    async def test_the_last_ones_stay(self, jobs: Jobs) -> None:
        await jobs.put("a")
        for n in range(MAX_HISTORY + 5):
            await jobs.settle(await jobs.claim_one(), Action.RETRY, b"e", summary=LONGEST[:-2] + b"%02d" % n)
        record = await jobs.record("a")
        assert [one.attempt for one in record.history] == list(range(6, MAX_HISTORY + 6))
        run = await jobs.claim_one()
        assert run.history == record.history
        await jobs.complete(run)
        assert (await jobs.record("a")).history == record.history

    @pytest.mark.parametrize("action", [Action.RETRY, Action.FAIL])
    async def test_a_repeat_or_a_stale_settlement_adds_nothing(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        for _ in range(2):
            assert await jobs.settle(run, action, b"e", summary=b"one") is SettleStatus.ACCEPTED
        assert len((await jobs.record("a")).history) == 1
        stale = run._replace(fence=run.fence - 1)
        assert await jobs.settle(stale, action, b"e", summary=b"two") is SettleStatus.LOST
        assert len((await jobs.record("a")).history) == 1

    async def test_a_cancelled_run_adds_nothing(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.cancel("a", running=True)
        assert await jobs.settle(run, Action.FAIL, b"e", summary=b"one") is SettleStatus.CANCELLED
        assert (await jobs.record("a")).history == ()

    @pytest.mark.parametrize("cancelling", [False, True])
    async def test_the_stall_that_ends_a_job_is_kept(self, jobs: Jobs, cancelling: bool) -> None:
        await jobs.put("a", max_stalls=0)
        await jobs.claim_one(worker="w1", lease=LEASE)
        if cancelling:
            await jobs.cancel("a", running=True)
        await jobs.stall()
        record = await jobs.record("a")
        assert record.state is (JobState.CANCELLED if cancelling else JobState.FAILED)
        assert record.history == (AttemptRecord(jobs.clock.now_ms(), 1, "w1", STALLED_ERROR),)

    async def test_a_new_job_of_the_id_begins_without(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.settle(await jobs.claim_one(), Action.FAIL, b"e", summary=b"one")
        await jobs.put("a", reuse=Reuse.RERUN)
        assert (await jobs.record("a")).history == ()
        assert (await jobs.claim_one()).history == ()
