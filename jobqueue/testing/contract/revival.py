"""Revival, for stores that can: failed jobs run again, records are deleted before their time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import Revival
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Counts, InsertStatus, Reply, SettleStatus
from jobqueue.testing.contract.arguments import NUMBERS, TEXTS, in_batch
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, WAIT, Box, Jobs, job, within_limit

__all__ = ["RevivalCases"]

LONG = 10 * TTL
QUEUES = [*TEXTS, "a b", "a/b", "x" * 65]
CALLS: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "revive": (
        {"queue": "q", "ids": ["failed"], "delay": 0, "payload": b""},
        {
            "queue": QUEUES,
            "ids": in_batch("failed", TEXTS),
            "delay": [None, *NUMBERS],
            "payload": ["text", 5, bytearray(b"a")],
        },
    ),
    "forget": ({"queue": "q", "ids": ["failed"]}, {"queue": QUEUES, "ids": in_batch("failed", TEXTS)}),
}


def revival(store: Storage) -> Revival:
    """Return the store as one that can revive; skip the test of a store that cannot."""
    if not isinstance(store, Revival):
        pytest.skip("this store cannot revive or forget jobs")
    return store


async def revive(jobs: Jobs, *ids: str, delay: int = 0) -> list[bool]:
    return await revival(jobs.storage).revive(jobs.queue, ids, delay)


async def forget(jobs: Jobs, *ids: str) -> list[bool]:
    return await revival(jobs.storage).forget(jobs.queue, ids)


class RevivalCases(Cases):
    """Revival."""

    async def test_a_failed_job_runs_again_from_the_beginning(self, jobs: Jobs) -> None:
        created = jobs.clock.now_ms()
        await jobs.put(
            "a", payload=b"data", priority=3, max_attempts=5, max_stalls=1, task="t", headers=b"h", group="g"
        )
        await jobs.claim_one()
        await jobs.stall()
        run = await jobs.claim_one()
        await jobs.extend(run, b"half", saved=b"cursor")
        await jobs.settle(run, Action.FAIL, b"error", summary=b"short")
        before = await jobs.record("a", payload=True)
        assert (before.attempts, before.stalls, before.state) == (2, 1, JobState.FAILED)
        jobs.clock.move(2)
        assert await revive(jobs, "a") == [True]
        record = await jobs.record("a", payload=True)
        now = jobs.clock.now_ms()
        assert record.seq > before.seq
        assert record == before._replace(
            seq=record.seq,
            state=JobState.QUEUED,
            run_at=now,
            updated_at=now,
            attempts=0,
            stalls=0,
            error=None,
            progress=None,
            expires_at=None,
        )
        assert await jobs.storage.counts("q") == Counts(queued=1, oldest=created)
        again = await jobs.claim_one()
        assert (again.id, again.payload, again.attempts, again.seq) == ("a", b"data", 1, record.seq)
        assert (again.saved, again.history) == (None, before.history)
        assert again.fence > run.fence
        await jobs.complete(again)
        assert (await jobs.record("a")).history == before.history

    async def test_revived_jobs_stand_at_the_back_in_their_order(self, jobs: Jobs) -> None:
        for id in "abc":
            await jobs.bring(JobState.FAILED, id)
        await jobs.put("first")
        assert await revive(jobs, "c", "a", "b") == [True] * 3
        assert await jobs.claim_ids() == ["first", "c", "a", "b"]

    async def test_one_can_be_revived_for_later(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.FAILED, "a")
        jobs.clock.move(1)
        assert await revive(jobs, "a", delay=5_000) == [True]
        record = await jobs.record("a")
        assert (record.state, record.run_at) == (JobState.SCHEDULED, jobs.clock.now_ms() + 5_000)
        assert await jobs.claim_ids() == []
        assert (await jobs.exchange()).next_due == 5_000
        jobs.clock.move(5)
        assert await jobs.claim_ids() == ["a"]

    @pytest.mark.parametrize("delay", [0, 2_000])
    async def test_one_can_be_revived_with_another_payload(self, jobs: Jobs, delay: int) -> None:
        for id in "ab":
            await jobs.put(id, payload=b"data", task="t", headers=b"h", dead_letter_ttl=LONG)
            await jobs.settle(await jobs.claim_one(), Action.FAIL, b"error", summary=b"short")
        jobs.clock.move(TTL / 1000)
        before = await jobs.record("b", payload=True, letters=True)
        store = revival(jobs.storage)
        assert await store.revive("q", ["a", "unknown"], delay, b"other") == [True, False]
        revived = await jobs.record("a", payload=True)
        assert (revived.payload, revived.task, revived.headers) == (b"other", "t", b"h")
        assert [attempt.error for attempt in revived.history] == [b"short"]
        assert await jobs.record("b", payload=True, letters=True) == before
        jobs.clock.move(delay / 1000)
        assert (await jobs.claim_one()).payload == b"other"
        assert await store.revive("q", ["a"], 0, b"of one that runs") == [False]

    @pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.FAILED])
    async def test_only_failed_jobs_are_revived(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state, "a")
        before = await jobs.record("a", payload=True)
        assert await revive(jobs, "a", "unknown") == [False, False]
        assert await jobs.record("a", payload=True) == before

    async def test_each_id_is_answered_for_itself(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.FAILED, "a")
        await jobs.put("b")
        assert await revive(jobs, "a", "b", "a", "zz") == [True, False, False, False]
        assert await revive(jobs) == []
        assert await revive(jobs.at("other"), "a") == [False]
        assert await jobs.claim_ids() == ["b", "a"]

    async def test_a_revived_job_is_found_waited_for_and_ends_as_any_other(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        await jobs.bring(JobState.FAILED, "a")
        await revive(jobs, "a")
        (inserted,) = await jobs.insert(job("a", wait=True), reply_to="me")
        record = await jobs.record("a")
        assert inserted == (InsertStatus.FOUND, record.seq, JobState.QUEUED, None, 0)
        jobs.clock.move(10 * TTL / 1000)
        assert await jobs.storage.purge("q", 10) == 0
        run = await jobs.claim_one()
        assert await jobs.settle(run, Action.FAIL, b"again") is SettleStatus.ACCEPTED
        assert await box.reply() == Reply("q", "a", record.seq, JobState.FAILED, b"again", 1)
        assert await jobs.ids_in(JobState.FAILED) == ["a"]
        jobs.clock.move(TTL / 1000)
        assert await jobs.find("a") is None

    async def test_the_old_run_has_no_say_any_more(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.FAILED, "a")
        assert run is not None
        await revive(jobs, "a")
        again = await jobs.claim_one()
        assert await jobs.settle(run, Action.FAIL, b"late") is SettleStatus.LOST
        assert (await jobs.record("a")).state is JobState.PROCESSING
        assert await jobs.complete(again) is SettleStatus.ACCEPTED

    async def test_reviving_wakes_a_worker(self, jobs: Jobs, other: Storage) -> None:
        await jobs.bring(JobState.FAILED, "a")
        woken = asyncio.create_task(within_limit(other.wait_for_work("q", "idle", WAIT)))
        await jobs.clock.settle()
        await revive(jobs, "a")
        assert await woken is True

    async def test_many_are_revived_and_forgotten_at_once(self, jobs: Jobs) -> None:
        revival(jobs.storage)
        ids = [f"{n}" for n in range(1_200)]
        await jobs.put_all(ids)
        for run in await jobs.claim(600):
            await jobs.settle(run, Action.FAIL, b"error")
        assert await revive(jobs, *ids) == [True] * 600 + [False] * 600
        assert await jobs.claim_ids(5) == ["600", "601", "602", "603", "604"]
        assert await forget(jobs, *ids) == [True] * 600 + [False] * 5 + [True] * 595
        assert (await jobs.storage.counts("q")).processing == 5

    # -- dead letters -----------------------------------------------------------------------------

    async def test_a_dead_letter_is_revived(self, jobs: Jobs) -> None:
        revival(jobs.storage)
        await jobs.bring(JobState.FAILED, "a", payload=b"data", dead_letter_ttl=LONG)
        jobs.clock.move(TTL / 1000)
        assert await revive(jobs, "a") == [True]
        assert await jobs.state("a") is JobState.QUEUED
        jobs.clock.move(LONG / 1000)
        assert await jobs.storage.purge("q", 10) == 0
        run = await jobs.claim_one()
        assert run.payload == b"data"
        await jobs.settle(run, Action.FAIL, b"again")
        jobs.clock.move((LONG - 1) / 1000)
        assert await jobs.find("a") is None
        assert await jobs.ids_in(JobState.FAILED) == ["a"]
        jobs.clock.move(0.001)
        assert await revive(jobs, "a") == [False]

    async def test_a_dead_letter_is_forgotten(self, jobs: Jobs) -> None:
        revival(jobs.storage)
        await jobs.bring(JobState.FAILED, "a", dead_letter_ttl=LONG)
        jobs.clock.move(TTL / 1000)
        assert await forget(jobs, "a") == [True]
        assert await jobs.find("a", letters=True) is None
        assert await jobs.storage.counts("q") == Counts()

    # -- forgetting -------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.PROCESSING])
    async def test_a_forgotten_job_is_absent(self, jobs: Jobs, other: Storage, state: JobState) -> None:
        revival(jobs.storage)
        await jobs.bring(state, "a")
        assert await forget(jobs, "a") == [True]
        assert await other.get("q", ["a"], letters=True) == [None]
        assert await jobs.ids_in(state) == []
        assert await other.counts("q") == Counts()
        assert await forget(jobs, "a") == [False]
        jobs.clock.move(TTL / 1000)
        assert await jobs.claim_ids() == []
        assert (await jobs.put("a")).status is InsertStatus.CREATED
        assert await jobs.claim_ids() == ["a"]

    async def test_a_running_job_stays(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.PROCESSING, "a")
        assert run is not None
        assert await forget(jobs, "a") == [False]
        assert await jobs.complete(run) is SettleStatus.ACCEPTED

    async def test_waiters_of_a_forgotten_job_are_told_that_it_is_cancelled(
        self, jobs: Jobs, other: Storage
    ) -> None:
        revival(jobs.storage)
        box = Box()
        await other.subscribe("q", "me", box)
        (inserted,) = await jobs.insert(job("a", wait=True), reply_to="me")
        assert await forget(jobs, "a") == [True]
        assert await box.reply() == Reply("q", "a", inserted.seq, JobState.CANCELLED, None, 0)

    async def test_the_run_of_a_job_that_was_forgotten_after_its_end_is_lost(self, jobs: Jobs) -> None:
        run = await jobs.bring(JobState.COMPLETED, "a")
        assert run is not None
        assert await forget(jobs, "a") == [True]
        assert await jobs.complete(run) is SettleStatus.LOST

    async def test_of_two_that_forget_one_job_one_did(self, jobs: Jobs, other: Storage) -> None:
        revival(jobs.storage)
        ids = [f"{n}" for n in range(30)]
        await jobs.put_all(ids)
        both = await asyncio.gather(forget(jobs, *ids), forget(Jobs(other, jobs.clock), *ids))
        assert [one != two for one, two in zip(*both, strict=True)] == [True] * 30
        assert await jobs.storage.counts("q") == Counts()

    async def test_of_two_that_revive_one_job_one_did(self, jobs: Jobs, other: Storage) -> None:
        revival(jobs.storage)
        ids = [f"{n}" for n in range(10)]
        for id in ids:
            await jobs.bring(JobState.FAILED, id)
        both = await asyncio.gather(revive(jobs, *ids), revive(Jobs(other, jobs.clock), *ids))
        assert [one != two for one, two in zip(*both, strict=True)] == [True] * 10
        assert sorted(await jobs.claim_ids()) == sorted(ids)
        assert (await jobs.exchange(limit=1, lease=LEASE)).jobs == []

    @pytest.mark.parametrize(
        ("name", "argument"), [(name, argument) for name, (_, bad) in CALLS.items() for argument in bad]
    )
    async def test_a_bad_argument_revives_and_forgets_nothing(
        self, jobs: Jobs, name: str, argument: str
    ) -> None:
        store = revival(jobs.storage)
        await jobs.bring(JobState.FAILED, "failed")
        before = await jobs.record("failed", payload=True)
        good, bad = CALLS[name]
        for value in bad[argument]:
            with pytest.raises(InvalidArgumentError) as caught:
                await getattr(store, name)(**{**good, argument: value})
            assert caught.value.argument.startswith(argument), caught.value
        assert await jobs.record("failed", payload=True) == before
        assert await getattr(store, name)(**good) == [True]
