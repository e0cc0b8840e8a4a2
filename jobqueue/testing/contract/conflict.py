"""What an id means whose job waits: it is joined, replaced, or replaced and put off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Conflict, Counts, InsertStatus, Reply, Reuse
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import TTL, WAIT, Box, Jobs, job, within_limit

__all__ = ["ConflictCases"]

REPLACE, DEBOUNCE = Conflict.REPLACE, Conflict.DEBOUNCE
BOTH = pytest.mark.parametrize("conflict", [REPLACE, DEBOUNCE])
NEW: dict[str, Any] = {
    "payload": b"new",
    "priority": 4,
    "max_attempts": 7,
    "max_stalls": 5,
    "ttl": 9 * TTL,
    "headers": b"head",
    "task": "task",
    "group": "group",
}


class ConflictCases(Cases):
    """Conflicts."""

    @BOTH
    @pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.QUEUED, JobState.FAILING])
    @pytest.mark.parametrize("delay", [0, 30_000])
    async def test_a_job_that_waits_becomes_the_new_one(
        self, jobs: Jobs, conflict: Conflict, state: JobState, delay: int
    ) -> None:
        await jobs.bring(state, "a", payload=b"old", headers=b"old", task="old")
        before = await jobs.record("a", payload=True)
        jobs.clock.move(1)
        answer = await jobs.put("a", conflict=conflict, delay=delay, **NEW)
        now = jobs.clock.now_ms()
        due = max(now + delay, before.run_at) if conflict is DEBOUNCE else now + delay
        waits = JobState.FAILING if before.attempts else JobState.SCHEDULED
        expected = JobState.QUEUED if due <= now else waits
        assert answer == (InsertStatus.REPLACED, before.seq, expected, None, before.attempts)
        record = await jobs.record("a", payload=True)
        assert record == before._replace(
            state=expected, run_at=due, updated_at=now, payload=b"new", priority=4, max_attempts=7,
            max_stalls=5, ttl=9 * TTL, headers=b"head", task="task", group="group",
        )  # fmt: skip
        others = [s for s in JobState if s is not expected]
        assert [await jobs.ids_in(s) for s in others] == [[]] * len(others)
        assert await jobs.ids_in(expected) == ["a"]
        counts = await jobs.storage.counts("q")
        assert sum(counts[:7]) == 1
        jobs.clock.move(max(0, due - now) / 1000)
        run = await jobs.claim_one()
        assert (run.payload, run.task, run.headers, run.seq) == (b"new", "task", b"head", before.seq)
        assert (run.attempts, run.max_attempts) == (before.attempts + 1, 7)
        assert await jobs.claim_ids() == []

    @BOTH
    async def test_any_other_job_is_treated_as_ever(self, jobs: Jobs, conflict: Conflict) -> None:
        run = await jobs.bring(JobState.PROCESSING, "a", payload=b"old")
        assert run is not None
        found = await jobs.put("a", conflict=conflict, payload=b"new", delay=5_000)
        assert (found.status, found.state) == (InsertStatus.FOUND, JobState.PROCESSING)
        await jobs.complete(run, b"result")
        found = await jobs.put("a", conflict=conflict, payload=b"new")
        assert (found.status, found.data) == (InsertStatus.FOUND, b"result")
        again = await jobs.put("a", conflict=conflict, reuse=Reuse.RERUN, payload=b"new")
        assert (again.status, again.seq > found.seq) == (InsertStatus.CREATED, True)
        assert (await jobs.put("b", conflict=conflict)).status is InsertStatus.CREATED
        assert await jobs.claim_ids() == ["a", "b"]

    @pytest.mark.parametrize("conflict", list(Conflict))
    @pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
    async def test_a_batch_that_finds_a_job_and_then_runs_it_again(
        self, jobs: Jobs, conflict: Conflict, size: int
    ) -> None:
        run = await jobs.bring(JobState.PROCESSING, "a")
        assert run is not None
        await jobs.complete(run, b"r" * size)
        found, other, again = await jobs.insert(
            job("a"), job("b", conflict=conflict), job("a", conflict=conflict, reuse=Reuse.RERUN)
        )
        assert (found.status, found.state, found.seq) == (InsertStatus.FOUND, JobState.COMPLETED, run.seq)
        assert found.data == b"r" * size
        assert {other.status, again.status} == {InsertStatus.CREATED}
        assert again.seq > other.seq > found.seq

    async def test_joining_leaves_it_as_it_is(self, jobs: Jobs) -> None:
        await jobs.put("a", payload=b"old", delay=1_000)
        before = await jobs.record("a", payload=True)
        jobs.clock.move(0.5)
        assert (await jobs.put("a", payload=b"new", conflict=Conflict.JOIN)).status is InsertStatus.FOUND
        assert await jobs.record("a", payload=True) == before

    async def test_one_that_stays_ready_keeps_its_place(self, jobs: Jobs) -> None:
        for id in "abc":
            await jobs.put(id)
        jobs.clock.move(1)
        await jobs.put("b", payload=b"new", conflict=REPLACE)
        assert await jobs.claim_ids() == ["a", "b", "c"]

    @pytest.mark.parametrize("first", [0, 3])
    async def test_another_priority_is_another_line(self, jobs: Jobs, first: int) -> None:
        for id in "abc":
            await jobs.put(id, priority=first)
        await jobs.put("d", priority=5)
        await jobs.put("b", priority=5, conflict=REPLACE)
        assert await jobs.claim_ids() == ["d", "b", "a", "c"]

    async def test_a_ready_one_is_put_off(self, jobs: Jobs) -> None:
        for id in "abc":
            await jobs.put(id)
        await jobs.put("b", delay=2_000, conflict=DEBOUNCE)
        exchanged = await jobs.exchange(limit=9)
        assert ([run.id for run in exchanged.jobs], exchanged.next_due) == (["a", "c"], 2_000)
        jobs.clock.move(2)
        assert await jobs.claim_ids() == ["b"]

    async def test_debouncing_puts_off_and_never_brings_forward(self, jobs: Jobs) -> None:
        await jobs.put("a", delay=5_000, payload=b"0", conflict=DEBOUNCE)
        for turn in range(1, 4):
            jobs.clock.move(4)
            answer = await jobs.put("a", delay=5_000, payload=b"%d" % turn, conflict=DEBOUNCE)
            assert answer.status is InsertStatus.REPLACED
            assert await jobs.claim_ids() == []
        await jobs.put("a", delay=1_000, payload=b"last", conflict=DEBOUNCE)
        jobs.clock.move(4.999)
        assert await jobs.claim_ids() == []
        jobs.clock.move(0.001)
        assert (await jobs.claim_one()).payload == b"last"

    async def test_a_start_time_is_replaced_too(self, jobs: Jobs) -> None:
        await jobs.put("a", delay=50_000)
        at = jobs.clock.now_ms() + 2_000
        assert (await jobs.put("a", run_at=at, conflict=REPLACE)).state is JobState.SCHEDULED
        assert (await jobs.record("a")).run_at == at
        await jobs.put("a", run_at=at - 1_000, conflict=DEBOUNCE)
        assert (await jobs.record("a")).run_at == at

    async def test_who_waits_gets_the_result_of_the_new_job(self, jobs: Jobs, other: Storage) -> None:
        box, late = Box(), Box()
        await other.subscribe("q", "me", box)
        await other.subscribe("q", "late", late)
        (first,) = await jobs.insert(job("a", wait=True), reply_to="me")
        await jobs.insert(job("a", b"new", wait=True, conflict=REPLACE), reply_to="late")
        await jobs.complete(await jobs.claim_one(), b"result")
        reply = Reply("q", "a", first.seq, JobState.COMPLETED, b"result", 1)
        assert await box.reply() == await late.reply() == reply

    async def test_the_history_stays_and_the_checkpoint_goes(self, jobs: Jobs) -> None:
        await jobs.put("a", task="old")
        run = await jobs.claim_one()
        await jobs.extend(run, b"half", saved=b"cursor")
        await jobs.settle(run, Action.RETRY, b"error", summary=b"short", delay=9_000)
        before = await jobs.record("a")
        await jobs.put("a", payload=b"new", conflict=REPLACE)
        record = await jobs.record("a")
        assert (record.history, record.error, record.attempts) == (before.history, b"error", 1)
        again = await jobs.claim_one()
        assert (again.saved, again.history, again.task) == (None, before.history, "")
        assert await jobs.settle(run, Action.COMPLETE) == "lost"

    async def test_a_job_that_was_put_back_is_replaced(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.put("b")
        await jobs.settle(await jobs.claim_one(), Action.RELEASE)
        await jobs.put("a", payload=b"new", conflict=REPLACE)
        assert [run.payload for run in await jobs.claim(2)] == [b"new", b"payload"]

    async def test_a_batch_is_applied_in_order(self, jobs: Jobs) -> None:
        await jobs.put("old", payload=b"0")
        answers = await jobs.insert(
            job("new", b"1"),
            job("old", b"2", conflict=REPLACE, priority=1),
            job("new", b"3", conflict=REPLACE, delay=1_000),
            job("third", b"4", conflict=REPLACE, priority=1),
            job("old", b"5", conflict=REPLACE, priority=1),
            job("new", b"6", conflict=REPLACE, priority=1),
        )
        assert [str(answer.status) for answer in answers] == [
            "created", "replaced", "replaced", "created", "replaced", "replaced"
        ]  # fmt: skip
        assert [(run.id, run.payload) for run in await jobs.claim(9)] == [
            ("old", b"5"), ("third", b"4"), ("new", b"6")
        ]  # fmt: skip
        assert (await jobs.storage.counts("q")) == Counts(processing=3)

    async def test_it_needs_no_room(self, jobs: Jobs) -> None:
        await jobs.put_all(["a", "b"])
        answers = await jobs.storage.insert(
            "q", [job("a", conflict=REPLACE, priority=2), job("c", conflict=REPLACE)], max_length=2
        )
        assert [answer.status for answer in answers] == [InsertStatus.REPLACED, InsertStatus.FULL]

    async def test_it_wakes_a_worker(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a", delay=10**8)
        woken = asyncio.create_task(within_limit(other.wait_for_work("q", "idle", WAIT)))
        await jobs.clock.settle()
        await jobs.put("a", conflict=REPLACE)
        assert await woken is True

    async def test_many_are_replaced(self, jobs: Jobs) -> None:
        ids = [f"{n:04}" for n in range(1_200)]
        await jobs.put_all(ids)
        answers = await jobs.insert(*(job(id, b"new", conflict=REPLACE, priority=1) for id in ids))
        assert {answer.status for answer in answers} == {InsertStatus.REPLACED}
        assert [run.id for run in await jobs.claim(5)] == ids[:5]
        assert (await jobs.storage.counts("q")).queued == 1_195

    async def test_what_follows_a_run_replaces_nothing(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        then = (job("b", conflict=REPLACE),)
        with pytest.raises(InvalidArgumentError, match="then"):
            await jobs.exchange(Settlement(run.id, run.fence, Action.COMPLETE, then=then))
