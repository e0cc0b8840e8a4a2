"""Settling: the outcome of a run is written once, and only by the holder of the lease."""

from __future__ import annotations

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import SettleStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, TTL, Jobs, job

__all__ = ["SettleCases"]

ACCEPTED, CANCELLED, LOST = SettleStatus.ACCEPTED, SettleStatus.CANCELLED, SettleStatus.LOST
ACTIONS = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)


class SettleCases(Cases):
    """Settling."""

    async def test_complete(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        before = await jobs.record("a")
        jobs.clock.move(3)
        assert await jobs.complete(run, b"done", ttl=9_000) is ACCEPTED
        now = jobs.clock.now_ms()
        assert await jobs.record("a", payload=True) == before._replace(
            state=JobState.COMPLETED,
            worker=None,
            lease_until=None,
            result=b"done",
            expires_at=now + 9_000,
            updated_at=now,
        )

    @pytest.mark.parametrize(
        "result",
        [b"", b"null", b"false", b"0", b'""', b"\x00", b" ", ALL_BYTES, b"\xff" * 1024, b"x" * 1_048_576],
        ids=["empty", "null", "false", "0", "quotes", "nul", "space", "all-bytes", "1KiB", "1MiB"],
    )
    async def test_a_result_comes_back_byte_for_byte(self, jobs: Jobs, result: bytes) -> None:
        await jobs.put("a")
        await jobs.complete(await jobs.claim_one(), result)
        assert (await jobs.record("a")).result == result
        found = await jobs.put("a")
        assert (found.state, found.data) == (JobState.COMPLETED, result)

    async def test_fail(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        before = await jobs.record("a", payload=True)
        jobs.clock.move(3)
        assert await jobs.settle(run, Action.FAIL, b"why", ttl=9_000) is ACCEPTED
        now = jobs.clock.now_ms()
        record = await jobs.record("a", payload=True)
        # The payload stays with the error: a dead letter is there to be looked at and run again.
        assert record == before._replace(
            state=JobState.FAILED,
            worker=None,
            lease_until=None,
            error=b"why",
            expires_at=now + 9_000,
            updated_at=now,
            history=record.history,
        )

    async def test_retry(self, jobs: Jobs) -> None:
        await jobs.put("a", max_attempts=1)
        run = await jobs.claim_one()
        before = await jobs.record("a", payload=True)
        jobs.clock.move(3)
        # Attempts left are policy: the store does as it is told.
        assert await jobs.settle(run, Action.RETRY, b"why", delay=2_000) is ACCEPTED
        now = jobs.clock.now_ms()
        record = await jobs.record("a", payload=True)
        assert record == before._replace(
            state=JobState.FAILING,
            worker=None,
            lease_until=None,
            error=b"why",
            run_at=now + 2_000,
            updated_at=now,
            history=record.history,
        )
        jobs.clock.move(1.999)
        assert await jobs.claim() == []
        jobs.clock.move(0.001)
        again = await jobs.claim_one()
        assert (again.id, again.attempts, again.payload) == ("a", 2, b"payload")
        assert again.fence > run.fence

    async def test_retry_without_delay(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        run = await jobs.claim_one()
        assert await jobs.settle(run, Action.RETRY, b"e", delay=0) is ACCEPTED
        assert await jobs.claim_ids() == ["b", "a"]

    async def test_an_error_is_kept_until_the_job_completes(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.settle(await jobs.claim_one(), Action.RETRY, b"first")
        run = await jobs.claim_one()
        assert (await jobs.record("a")).error == b"first"
        await jobs.settle(run, Action.RELEASE)
        assert (await jobs.record("a")).error == b"first"
        await jobs.settle(await jobs.claim_one(), Action.RETRY, b"second")
        assert (await jobs.record("a")).error == b"second"
        await jobs.complete(await jobs.claim_one(), b"done")
        record = await jobs.record("a")
        assert (record.error, record.result, record.attempts) == (None, b"done", 3)

    async def test_release_gives_the_attempt_back(self, jobs: Jobs) -> None:
        await jobs.put("a")
        before = await jobs.record("a", payload=True)
        run = await jobs.claim_one()
        jobs.clock.move(3)
        assert await jobs.settle(run, Action.RELEASE) is ACCEPTED
        assert await jobs.record("a", payload=True) == before._replace(
            fence=run.fence, updated_at=jobs.clock.now_ms()
        )
        again = await jobs.claim_one()
        assert (again.attempts, again.payload) == (1, b"payload")
        assert again.fence > run.fence

    async def test_cancel_by_the_worker(self, jobs: Jobs) -> None:
        await jobs.put("a", ttl=5_000)
        run = await jobs.claim_one()
        assert await jobs.settle(run, Action.CANCEL) is CANCELLED
        record = await jobs.record("a", payload=True)
        assert (record.state, record.payload, record.result, record.error) == (
            JobState.CANCELLED, None, None, None,
        )  # fmt: skip
        assert record.expires_at == jobs.clock.now_ms() + 5_000
        assert (record.worker, record.lease_until) == (None, None)

    async def test_progress_outlives_the_run(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.extend(run, b"half")
        await jobs.settle(run, Action.RETRY, b"e")
        assert (await jobs.record("a")).progress == b"half"
        run = await jobs.claim_one()
        assert (await jobs.record("a")).progress is None
        await jobs.extend(run, b"nearly")
        await jobs.complete(run)
        assert (await jobs.record("a")).progress == b"nearly"

    @pytest.mark.parametrize("action", ACTIONS)
    async def test_a_job_asked_to_cancel_ends_cancelled(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a", ttl=5_000)
        run = await jobs.claim_one()
        await jobs.cancel("a", running=True)
        assert await jobs.settle(run, action, b"x", ttl=99_000) is CANCELLED
        record = await jobs.record("a", payload=True)
        assert (record.state, record.result, record.error, record.payload) == (
            JobState.CANCELLED, None, None, None,
        )  # fmt: skip
        assert record.expires_at == jobs.clock.now_ms() + 5_000
        jobs.clock.move(1)
        assert await jobs.claim() == []

    # -- batches ----------------------------------------------------------------------------------

    async def test_a_mixed_batch_is_answered_in_order(self, jobs: Jobs) -> None:
        await jobs.put_all("abcdef")
        a, b, c, d, e, f = await jobs.claim(6)
        await jobs.cancel("f", running=True)
        answer = await jobs.exchange(
            Settlement("c", c.fence, Action.RETRY, b"3", TTL, 5_000),
            Settlement("zz", 1, Action.COMPLETE, b"", TTL),
            Settlement("a", a.fence, Action.COMPLETE, b"1", TTL),
            Settlement("f", f.fence, Action.COMPLETE, b"6", TTL),
            Settlement("b", b.fence, Action.FAIL, b"2", TTL),
            Settlement("e", d.fence, Action.COMPLETE, b"", TTL),
            Settlement("d", d.fence, Action.RELEASE),
            limit=1,
        )
        assert answer.settled == [ACCEPTED, LOST, ACCEPTED, CANCELLED, ACCEPTED, LOST, ACCEPTED]
        assert [run.id for run in answer.jobs] == ["d"]
        assert answer.next_due == 5_000
        states = [record.state for record in await jobs.storage.get("q", list("abcdef")) if record]
        assert states == ["completed", "failed", "failing", "processing", "processing", "cancelled"]
        assert (await jobs.record("e")).fence == e.fence

    async def test_a_released_job_is_claimed_first_by_the_same_exchange(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        run = await jobs.claim_one()
        answer = await jobs.exchange(Settlement("a", run.fence, Action.RELEASE), limit=2)
        assert [(run.id, run.attempts) for run in answer.jobs] == [("a", 1), ("b", 1)]

    async def test_a_retry_that_is_due_is_claimed_by_the_same_exchange(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        run = await jobs.claim_one()
        answer = await jobs.exchange(Settlement("a", run.fence, Action.RETRY, b"e", TTL, 0), limit=2)
        assert [(run.id, run.attempts) for run in answer.jobs] == [("b", 1), ("a", 2)]
        assert answer.next_due is None

    async def test_a_large_batch(self, jobs: Jobs) -> None:
        ids = [f"{n}" for n in range(500)]
        await jobs.insert(*(job(id) for id in ids))
        runs = await jobs.claim(500)
        answer = await jobs.exchange(
            *(Settlement(run.id, run.fence, Action.COMPLETE, run.id.encode(), TTL) for run in runs)
        )
        assert answer.settled == [ACCEPTED] * 500
        records = await jobs.storage.get("q", ids)
        assert [record and record.result for record in records] == [id.encode() for id in ids]
