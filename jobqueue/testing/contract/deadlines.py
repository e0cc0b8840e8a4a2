"""Jobs that have to start in time: one that has not never does, and fails."""

from __future__ import annotations

import pytest

from jobqueue.model.outcomes import EXPIRED_ERROR, FailureReason, decode_error
from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import Admission, Revival, Sweepable
from jobqueue.storage.values import (
    EXPIRE_LIMIT,
    CancelStatus,
    Conflict,
    Counts,
    InsertStatus,
    Reply,
    Reuse,
    Rules,
    Swept,
)
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Box, Jobs, job

__all__ = ["DeadlineCases"]

SOON = 1_000


def late(*ids: str) -> list[Swept]:
    return [Swept(id, JobState.FAILED, 0, 0, "", expired=True) for id in ids]


class DeadlineCases(Cases):
    """Jobs that have to start in time."""

    @pytest.mark.parametrize("delay", [0, 2_000])
    @pytest.mark.parametrize("sweeps", [True, False])
    async def test_one_that_has_not_started_in_time_fails(self, jobs: Jobs, sweeps: bool, delay: int) -> None:
        await jobs.put("a", payload=b"data", delay=delay, expires=SOON, dead_letter_ttl=10 * TTL, task="t")
        due = jobs.clock.now_ms() + delay
        jobs.clock.move((delay + SOON - 1) / 1000)
        assert await jobs.storage.sweep("q", 10) == []
        assert (await jobs.record("a")).error is None
        jobs.clock.move(1 / 1000)
        if sweeps:
            assert await jobs.storage.sweep("q", 10) == late("a")
            assert await jobs.storage.sweep("q", 10) == []
        else:
            answer = await jobs.exchange(limit=9)
            assert (answer.jobs, answer.expired, answer.more) == ([], ("a",), False)
            assert (await jobs.exchange(limit=9)).expired == ()
        record = await jobs.record("a", payload=True)
        assert (record.state, record.error, record.payload) == (JobState.FAILED, EXPIRED_ERROR, b"data")
        assert (record.attempts, record.stalls, record.fence, record.worker) == (0, 0, 0, None)
        assert (record.run_at, record.expires, record.history) == (due, SOON, ())
        assert record.updated_at == jobs.clock.now_ms()
        assert record.expires_at == jobs.clock.now_ms() + TTL
        assert decode_error(EXPIRED_ERROR)[1] is FailureReason.EXPIRED
        assert await jobs.storage.counts("q") == Counts(failed=1)
        jobs.clock.move(TTL / 1000)
        assert await jobs.find("a") is None
        assert (await jobs.find("a", letters=True)) is not None

    @pytest.mark.parametrize("group", ["", "g"])
    async def test_one_that_is_due_and_late_at_once_is_in_no_line(self, jobs: Jobs, group: str) -> None:
        await jobs.put("a", group=group, delay=SOON, expires=1)
        jobs.clock.move(2 * SOON / 1000)
        answer = await jobs.exchange(limit=9)
        assert (answer.jobs, answer.expired) == ([], ("a",))
        assert await jobs.storage.counts("q") == Counts(failed=1)
        assert await jobs.ids_in(JobState.QUEUED) == []
        assert await jobs.ids_in(JobState.FAILED) == ["a"]

    async def test_one_that_starts_in_time_runs_for_as_long_as_it_likes(self, jobs: Jobs) -> None:
        await jobs.put("a", expires=SOON, max_stalls=3)
        jobs.clock.move((SOON - 1) / 1000)
        run = await jobs.claim_one()
        assert (await jobs.record("a")).expires == SOON
        jobs.clock.move(2 * SOON / 1000)
        assert await jobs.storage.sweep("q", 10) == []
        # Nor does it expire when it waits once more: it has started.
        for action in (Action.RETRY, Action.RELEASE, None):
            if action is None:
                await jobs.stall()
            else:
                await jobs.settle(run, action, b"error")
            jobs.clock.move(2 * SOON / 1000)
            assert await jobs.storage.sweep("q", 10) == []
            run = await jobs.claim_one()
        await jobs.complete(run)
        record = await jobs.record("a")
        assert (record.state, record.expires) == (JobState.COMPLETED, SOON)

    @pytest.mark.parametrize("priority", [0, 5])
    async def test_a_claim_goes_on_to_the_next(self, jobs: Jobs, priority: int) -> None:
        await jobs.put("plain", priority=priority)
        await jobs.put_all(["late", "later"], priority=priority, expires=SOON)
        await jobs.put("long", priority=priority, expires=10 * SOON)
        await jobs.put("urgent", priority=9, expires=SOON - 1)
        await jobs.put("last")
        jobs.clock.move(SOON / 1000)
        answer = await jobs.exchange(limit=9)
        assert answer.expired == ("urgent", "late", "later")
        assert [run.id for run in answer.jobs] == ["plain", "long", "last"]
        assert await jobs.storage.counts("q") == Counts(processing=3, failed=3)

    async def test_a_call_that_claims_nothing_fails_none(self, jobs: Jobs) -> None:
        await jobs.put("a", expires=SOON)
        jobs.clock.move(1)
        assert (await jobs.exchange(limit=0)).expired == ()
        if isinstance(jobs.storage, Admission):
            await jobs.storage.set_rules("q", Rules(paused=True))
            assert (await jobs.exchange(limit=9)).expired == ()
        assert await jobs.storage.sweep("q", 0) == []
        assert await jobs.state("a") is JobState.QUEUED
        assert await jobs.storage.sweep("q", 1) == late("a")

    async def test_waiters_are_told(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        (first, second) = await jobs.insert(
            job("a", wait=True, expires=SOON), job("b", wait=True, expires=SOON), reply_to="me"
        )
        jobs.clock.move(1)
        assert await jobs.storage.sweep("q", 1) == late("a")
        await jobs.exchange(limit=1)
        await box.take(replies=2)
        assert [reply._replace(data=None) for reply in sorted(box.replies)] == [
            Reply("q", id, seq, JobState.FAILED, None, 0) for id, seq in (("a", first.seq), ("b", second.seq))
        ]
        assert {reply.data for reply in box.replies} <= {EXPIRED_ERROR, None}
        found = await jobs.put("a")
        assert (found.status, found.data) == (InsertStatus.FOUND, EXPIRED_ERROR)

    async def test_a_sweep_takes_so_many_by_the_time_they_had(self, jobs: Jobs) -> None:
        await jobs.put("stalled")
        run = await jobs.claim_one(lease=LEASE)
        await jobs.put("third", expires=SOON + 1)
        await jobs.put_all(["first", "second"], expires=SOON)
        jobs.clock.move(max(LEASE, 2 * SOON) / 1000)
        assert await jobs.storage.sweep("q", 2) == [
            Swept("stalled", JobState.QUEUED, 1, 1, "w"), *late("first")
        ]  # fmt: skip
        assert run.id == "stalled"
        assert await jobs.storage.sweep("q", 9) == late("second", "third")

    async def test_more_than_one_call_fails_take_several(self, jobs: Jobs) -> None:
        ids = [f"{n:04}" for n in range(EXPIRE_LIMIT + 5)]
        await jobs.put_all(ids, expires=SOON)
        await jobs.put("good")
        jobs.clock.move(1)
        answer = await jobs.exchange(limit=9)
        expired, claimed = list(answer.expired), answer.jobs
        assert 0 < len(expired) <= EXPIRE_LIMIT
        while answer.more:
            answer = await jobs.exchange(limit=9)
            expired += answer.expired
            claimed += answer.jobs
        assert (expired, [run.id for run in claimed]) == (ids, ["good"])

    async def test_a_job_that_is_gone_does_not_expire(self, jobs: Jobs) -> None:
        store = jobs.storage
        await jobs.put_all(["cancelled", "forgotten"], expires=SOON)
        assert await jobs.cancel("cancelled") is CancelStatus.CANCELLED
        if isinstance(store, Revival):
            await store.forget("q", ["forgotten"])
        else:
            await jobs.cancel("forgotten")
        jobs.clock.move(SOON / 2000)
        assert (await jobs.put("cancelled", expires=SOON)).status is InsertStatus.CREATED
        jobs.clock.move(SOON / 2000)
        assert await store.sweep("q", 9) == []
        jobs.clock.move(SOON / 2000)
        assert await store.sweep("q", 9) == late("cancelled")

    async def test_a_new_job_of_the_id_has_its_own_time(self, jobs: Jobs) -> None:
        await jobs.put("a", expires=SOON)
        jobs.clock.move(1)
        await jobs.storage.sweep("q", 9)
        assert (await jobs.put("a", reuse=Reuse.RERUN_FAILED)).status is InsertStatus.CREATED
        jobs.clock.move(9)
        assert await jobs.storage.sweep("q", 9) == []
        assert (await jobs.record("a")).expires is None
        assert await jobs.claim_ids() == ["a"]

    @pytest.mark.parametrize("expires", [None, 2 * SOON])
    @pytest.mark.parametrize("delay", [0, SOON])
    async def test_a_replaced_job_has_the_time_of_the_new_one(
        self, jobs: Jobs, delay: int, expires: int | None
    ) -> None:
        await jobs.put("a", expires=SOON)
        answer = await jobs.put("a", delay=delay, expires=expires, conflict=Conflict.REPLACE)
        assert answer.status is InsertStatus.REPLACED
        jobs.clock.move((delay + 2 * SOON - 1) / 1000)
        assert await jobs.storage.sweep("q", 9) == []
        assert (await jobs.record("a")).expires == expires
        jobs.clock.move(1)
        assert await jobs.storage.sweep("q", 9) == ([] if expires is None else late("a"))

    async def test_one_that_has_started_and_is_replaced_does_not_expire(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.FAILING, "a")
        await jobs.put("a", expires=SOON, conflict=Conflict.REPLACE)
        jobs.clock.move(9)
        assert await jobs.storage.sweep("q", 9) == []
        assert await jobs.claim_ids() == ["a"]

    async def test_a_revived_job_does_not_expire_again(self, jobs: Jobs) -> None:
        store = jobs.storage
        if not isinstance(store, Revival):
            pytest.skip("an ability that this store does not have")
        await jobs.put_all(["a", "b"], expires=SOON)
        jobs.clock.move(1)
        assert await store.sweep("q", 9) == late("a", "b")
        assert await store.revive("q", ["a", "b"], 0) == [True, True]
        jobs.clock.move(9)
        assert await store.sweep("q", 9) == []
        record = await jobs.record("a")
        assert (record.state, record.expires, record.error) == (JobState.QUEUED, None, None)
        assert await jobs.claim_ids() == ["a", "b"]

    async def test_one_that_comes_with_a_settlement_has_to_start_in_time_too(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.settle(run, Action.COMPLETE, b"x", then=[job("b", expires=SOON), job("c")])
        jobs.clock.move(1)
        answer = await jobs.exchange(limit=9)
        assert (answer.expired, [one.id for one in answer.jobs]) == (("b",), ["c"])

    async def test_the_queues_with_late_jobs_are_named(self, jobs: Jobs) -> None:
        store = jobs.storage
        if not isinstance(store, Sweepable):
            pytest.skip("an ability that this store does not have")
        await jobs.put("a", expires=SOON)
        await jobs.at("other").put("a", expires=2 * SOON)
        jobs.clock.move(1)
        named = await store.to_sweep(["q", "other", "none"])
        assert "q" in named
        assert named in (["q"], ["q", "other", "none"])  # one may name them all
        await store.sweep("q", 9)
        assert await store.to_sweep(["q"]) in ([], ["q"])

    async def test_jobs_of_one_call_keep_their_own_times(self, jobs: Jobs) -> None:
        times = [None, SOON, SOON, None, 3 * SOON, 2 * SOON]
        await jobs.insert(*(job(str(n), expires=time) for n, time in enumerate(times)))
        assert [(await jobs.record(str(n))).expires for n in range(6)] == times
        page = await jobs.storage.scan("q", JobState.QUEUED, 9)
        assert {record.id: record.expires for record in page.records} == dict(
            zip("012345", times, strict=True)
        )
        jobs.clock.move(2 * SOON / 1000)
        assert await jobs.storage.sweep("q", 9) == late("1", "2", "5")
        assert await jobs.claim_ids() == ["0", "3", "4"]
