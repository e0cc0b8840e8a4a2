"""Replies: the waiters of a job receive its end."""

from __future__ import annotations

import pytest

from jobqueue.model.outcomes import STALLED_ERROR
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import MAX_WAITERS, InsertStatus, Reply, Reuse
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, Box, Jobs, expect_only, job, waiting

__all__ = ["WaiterCases"]


class WaiterCases(Cases):
    """Replies."""

    @pytest.mark.parametrize(
        "result",
        [b"result", b"", b"null", b"false", b"0", ALL_BYTES, b"r" * 4096],
        ids=["plain", "empty", "null", "false", "0", "all-bytes", "4KiB"],
    )
    async def test_completed(self, jobs: Jobs, result: bytes) -> None:
        box, inserted = await waiting(jobs)
        await jobs.complete(await jobs.claim_one(), result)
        assert await box.reply() == Reply("q", "a", inserted.seq, JobState.COMPLETED, result, 1)

    async def test_a_large_result_may_be_left_to_be_read(self, jobs: Jobs) -> None:
        box, inserted = await waiting(jobs)
        result = b"r" * 1_048_576
        await jobs.complete(await jobs.claim_one(), result)
        reply = await box.reply()
        assert reply._replace(data=None) == Reply("q", "a", inserted.seq, JobState.COMPLETED, None, 1)
        assert reply.data in (None, result)
        assert (await jobs.record("a")).result == result

    async def test_failed(self, jobs: Jobs) -> None:
        box, inserted = await waiting(jobs)
        await jobs.settle(await jobs.claim_one(), Action.RETRY, b"first")
        await jobs.settle(await jobs.claim_one(), Action.FAIL, b"second")
        assert await box.reply() == Reply("q", "a", inserted.seq, JobState.FAILED, b"second", 2)

    @pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FAILING, JobState.SCHEDULED])
    async def test_cancelled(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state)
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        (record,) = await jobs.storage.get("q", ["a"], reply_to="me")
        assert record is not None
        await jobs.cancel("a")
        expected = Reply("q", "a", record.seq, JobState.CANCELLED, None, record.attempts)
        assert await box.reply() == expected

    @pytest.mark.parametrize("asked", [False, True])
    async def test_cancelled_while_it_ran(self, jobs: Jobs, asked: bool) -> None:
        box, inserted = await waiting(jobs)
        run = await jobs.claim_one()
        if asked:
            await jobs.cancel("a", running=True)
        await jobs.settle(run, Action.COMPLETE if asked else Action.CANCEL, b"x")
        assert await box.reply() == Reply("q", "a", inserted.seq, JobState.CANCELLED, None, 1)

    async def test_cancelled_by_a_sweep(self, jobs: Jobs) -> None:
        box, inserted = await waiting(jobs)
        await jobs.claim()
        await jobs.cancel("a", running=True)
        await jobs.stall()
        assert await box.reply() == Reply("q", "a", inserted.seq, JobState.CANCELLED, None, 1)

    async def test_stalled(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        (inserted,) = await jobs.insert(job("a", wait=True, max_stalls=1), reply_to="me")
        for _ in range(2):
            assert box.replies == []
            await jobs.claim()
            await jobs.stall()
        assert await box.reply() == Reply("q", "a", inserted.seq, JobState.FAILED, STALLED_ERROR, 2)

    # -- registering ------------------------------------------------------------------------------

    async def test_a_waiter_of_a_found_job(self, jobs: Jobs) -> None:
        first, inserted = await waiting(jobs, address="one")
        second = Box()
        await jobs.storage.subscribe("q", "two", second)
        (found,) = await jobs.insert(job("a", wait=True), reply_to="two")
        assert (found.status, found.seq) == (InsertStatus.FOUND, inserted.seq)
        await jobs.complete(await jobs.claim_one())
        reply = Reply("q", "a", inserted.seq, JobState.COMPLETED, b"result", 1)
        assert await first.reply() == reply
        assert await second.reply() == reply

    @pytest.mark.parametrize(
        "state", [JobState.SCHEDULED, JobState.QUEUED, JobState.PROCESSING, JobState.FAILING]
    )
    async def test_get_registers_a_waiter(self, jobs: Jobs, state: JobState) -> None:
        run = await jobs.bring(state)
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        (record,) = await jobs.storage.get("q", ["a"], reply_to="me")
        assert record is not None
        assert record.state is state
        if state is not JobState.PROCESSING:
            jobs.clock.move(5)
            run = await jobs.claim_one()
        assert run is not None
        await jobs.complete(run)
        assert await box.reply() == Reply("q", "a", record.seq, JobState.COMPLETED, b"result", run.attempts)

    async def test_an_address_that_waits_twice_is_told_once(self, jobs: Jobs) -> None:
        box, _ = await waiting(jobs)
        await jobs.insert(job("a", wait=True), job("a", wait=True), reply_to="me")
        await jobs.storage.get("q", ["a", "a"], reply_to="me")
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, box, ["a"])

    async def test_too_many_waiters_drop_the_first(self, jobs: Jobs) -> None:
        dropped, _ = await waiting(jobs, address="me")
        kept = Box()
        await jobs.storage.subscribe("q", "kept", kept)
        await jobs.storage.get("q", ["a"], reply_to="kept")
        for n in range(MAX_WAITERS - 1):
            await jobs.storage.get("q", ["a"], reply_to=f"{n}")
        run = await jobs.claim_one()
        assert run.payload == b"payload"
        await jobs.complete(run)
        assert (await kept.reply()).id == "a"
        await expect_only(jobs, dropped, [])

    async def test_who_does_not_ask_is_not_told(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        await jobs.insert(job("a", wait=False), job("b", wait=True), reply_to="me")
        await jobs.insert(job("c", wait=True), reply_to=None)
        await jobs.insert(job("c", wait=False), reply_to="me")
        await jobs.storage.get("q", ["a", "c"])
        for run in await jobs.claim(3):
            await jobs.complete(run)
        await expect_only(jobs, box, ["b"])

    @pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED])
    async def test_an_ended_job_has_no_waiters(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state)
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        (found,) = await jobs.insert(job("a", wait=True), reply_to="me")
        assert (found.status, found.state) == (InsertStatus.FOUND, state)
        await jobs.storage.get("q", ["a"], reply_to="me")
        # The next incarnation is another job: it must not answer for this one.
        await jobs.put("a", reuse=Reuse.RERUN)
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, box, [])

    async def test_waiters_are_forgotten_when_they_have_been_told(self, jobs: Jobs) -> None:
        box, _ = await waiting(jobs)
        run = await jobs.claim_one()
        await jobs.complete(run)
        await jobs.complete(run)
        await jobs.put("a", reuse=Reuse.RERUN)
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, box, ["a"])

    async def test_waiters_of_a_cancelled_job_do_not_hear_of_the_next(self, jobs: Jobs) -> None:
        box, inserted = await waiting(jobs)
        await jobs.cancel("a")
        await jobs.put("a")
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, box, ["a"])
        assert box.replies[0] == Reply("q", "a", inserted.seq, JobState.CANCELLED, None, 0)

    async def test_a_refused_job_has_no_waiters(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        await jobs.insert(job("a", wait=True), reply_to="me", max_length=0)
        await jobs.put("a")
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, box, [])

    async def test_waiters_stay_through_every_live_state(self, jobs: Jobs) -> None:
        box, _ = await waiting(jobs)
        await jobs.settle(await jobs.claim_one(), Action.RELEASE)
        await jobs.settle(await jobs.claim_one(), Action.RETRY, b"e", delay=1_000)
        jobs.clock.move(1)
        await jobs.claim_one()
        await jobs.stall()
        run = await jobs.claim_one()
        assert box.replies == []
        await jobs.complete(run)
        assert (await box.reply()).attempts == 3

    async def test_a_lost_settlement_tells_nobody(self, jobs: Jobs) -> None:
        box, _ = await waiting(jobs)
        run = await jobs.claim_one()
        await jobs.stall()
        assert await jobs.complete(run) == "lost"
        await expect_only(jobs, box, [])

    @pytest.mark.parametrize("end", [Action.COMPLETE, Action.FAIL, Action.CANCEL])
    async def test_every_answer_about_a_job_names_its_incarnation(self, jobs: Jobs, end: Action) -> None:
        async def named(state: JobState) -> set[int]:
            (listed,) = (await jobs.storage.scan("q", state, 10)).records
            found = (
                [] if state is JobState.CANCELLED else [(await jobs.put("a")).seq]
            )  # cancelled: it is free
            return {listed.seq, (await jobs.record("a")).seq, *found}

        box, told = Box(), list[int]()
        await jobs.storage.subscribe("q", "me", box)
        for _ in range(2):
            (created,) = await jobs.insert(job("a", wait=True, reuse=Reuse.RERUN), reply_to="me")
            assert await named(JobState.QUEUED) == {created.seq}
            run = await jobs.claim_one()
            assert await named(JobState.PROCESSING) == {created.seq}
            await jobs.settle(run, end, b"data")
            assert await named((await jobs.record("a")).state) == {created.seq}
            told.append(created.seq)
            await box.take(replies=len(told))
        assert [reply.seq for reply in box.replies] == told
        assert told[0] < told[1]

    async def test_a_batch_tells_of_each(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        ids = [f"{n}" for n in range(30)]
        inserted = await jobs.insert(*(job(id, wait=True) for id in ids), reply_to="me")
        for run in await jobs.claim(30):
            await jobs.complete(run, run.id.encode())
        await box.take(replies=30)
        assert sorted(box.replies) == sorted(
            Reply("q", id, answer.seq, JobState.COMPLETED, id.encode(), 1)
            for id, answer in zip(ids, inserted, strict=True)
        )

    @pytest.mark.parametrize(("count", "width"), [(1_100, 8), (400, 250)], ids=["many", "long"])
    async def test_the_waiters_of_a_job_are_bounded_and_the_latest_stay(
        self, jobs: Jobs, count: int, width: int
    ) -> None:
        addresses = [f"{n:0{width}d}" for n in range(count)]
        oldest, again, kept, newest = Box(), Box(), Box(), Box()
        for place, box in ((0, oldest), (1, again), (-200, kept), (-1, newest)):
            await jobs.storage.subscribe("q", addresses[place], box)
        await jobs.put("a")
        for address in addresses:
            await jobs.storage.get("q", ["a"], reply_to=address)
        (found,) = await jobs.insert(job("a", wait=True), reply_to=addresses[1])  # it may register again
        assert found.status is InsertStatus.FOUND
        assert (await jobs.record("a", payload=True)).payload == b"payload"
        await jobs.complete(await jobs.claim_one())
        for box in (again, kept, newest):
            assert (await box.reply()).id == "a"
        await jobs.insert(job("mark", wait=True), reply_to=addresses[0])
        await jobs.complete(await jobs.claim_one())
        await oldest.take(replies=1)
        if count > MAX_WAITERS:  # of fewer, how many bytes they take is the store's own affair
            assert [reply.id for reply in oldest.replies] == ["mark"]
