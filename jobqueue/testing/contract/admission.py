"""Admission, for stores that can: the rules of a queue hold in every claim."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import Admission, ClaimsOnArrival
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import AdmissionInfo, Counts, Rules, SettleStatus
from jobqueue.testing.contract.arguments import BOOLS, TEXTS
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, WAIT, Jobs, job, run_out, within_limit

__all__ = ["AdmissionCases"]

PAUSED = Rules(paused=True)
QUEUES = [*TEXTS, "a b", "a/b", "x" * 65]
BAD_RULES: list[Any] = [5, True, "paused", {"paused": True}, (True,), *(Rules(paused=bad) for bad in BOOLS)]
BAD: dict[str, list[Any]] = {"queue": QUEUES, "rules": BAD_RULES, "expected": BAD_RULES}


def admission(store: Storage) -> Admission:
    """Return the store as one that keeps rules; skip the test of a store that does not."""
    if not isinstance(store, Admission):
        pytest.skip("this store keeps no rules for its queues")
    return store


async def pause(jobs: Jobs, store: Storage | None = None) -> None:
    assert await admission(store or jobs.storage).set_rules(jobs.queue, PAUSED)


async def resume(jobs: Jobs, store: Storage | None = None) -> None:
    assert await admission(store or jobs.storage).set_rules(jobs.queue, None)


async def info(jobs: Jobs, store: Storage | None = None) -> AdmissionInfo:
    return await admission(store or jobs.storage).get_rules(jobs.queue)


async def ends_without_news(jobs: Jobs, timeout: float = 0.01) -> None:
    """Wait for work, and expect that nothing is said to be there: false alarms are allowed, but end."""
    for _ in range(20):
        if not await run_out(jobs.clock, jobs.storage.wait_for_work(jobs.queue, "w", timeout), timeout):
            return
    pytest.fail("20 waits for work in a paused queue all said that there may be some")


class AdmissionCases(Cases):
    """Admission."""

    async def test_a_paused_queue_hands_out_nothing(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put_all("ab")
        await pause(jobs, other)
        answer = await jobs.exchange(limit=10)
        assert (answer.jobs, answer.more, answer.paused) == ([], False, True)
        assert await jobs.ids_in(JobState.QUEUED) == ["a", "b"]
        assert (await admission(jobs.storage).get_rules(jobs.queue, counted=False)).rules.paused
        await resume(jobs)
        assert not (await admission(jobs.storage).get_rules(jobs.queue, counted=False)).rules.paused
        answer = await jobs.exchange(limit=10)
        assert ([run.id for run in answer.jobs], answer.paused) == (["a", "b"], False)

    async def test_jobs_of_every_priority_stay(self, jobs: Jobs) -> None:
        await pause(jobs)
        for priority in (-5, 0, 5):
            await jobs.put(f"{priority}", priority=priority)
        assert await jobs.claim_ids() == []
        await resume(jobs)
        assert await jobs.claim_ids() == ["5", "0", "-5"]

    async def test_running_jobs_go_on_and_are_settled(self, jobs: Jobs) -> None:
        await jobs.put_all("abcd")
        runs = await jobs.claim(4)
        await pause(jobs)
        assert await jobs.extend(runs[0], b"half", saved=b"cursor") == "held"
        for run, action in zip(
            runs, (Action.COMPLETE, Action.FAIL, Action.RELEASE, Action.RETRY), strict=True
        ):
            assert await jobs.settle(run, action, b"data", delay=1_000) is SettleStatus.ACCEPTED
        assert [await jobs.state(id) for id in "abcd"] == ["completed", "failed", "queued", "failing"]
        assert await jobs.claim_ids() == []

    async def test_a_settlement_is_taken_by_the_call_that_claims_nothing(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        run = await jobs.claim_one()
        await pause(jobs)
        done = Settlement(run.id, run.fence, Action.COMPLETE, b"r", TTL, then=(job("next"),))
        answer = await jobs.exchange(done, limit=5)
        assert (answer.settled, answer.jobs, answer.paused) == ([SettleStatus.ACCEPTED], [], True)
        assert await jobs.ids_in(JobState.QUEUED) == ["b", "next"]

    async def test_jobs_become_due_while_the_queue_is_paused(self, jobs: Jobs) -> None:
        await pause(jobs)
        await jobs.put("a", delay=1_000)
        assert (await jobs.exchange(limit=1)).next_due == 1_000
        jobs.clock.move(1)
        answer = await jobs.exchange(limit=1)
        assert (answer.jobs, answer.next_due) == ([], None)
        assert await jobs.state("a") is JobState.QUEUED
        await resume(jobs)
        assert await jobs.claim_ids() == ["a"]

    async def test_stalled_jobs_are_recovered_while_the_queue_is_paused(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.claim_one()
        await pause(jobs)
        await jobs.stall()
        assert await jobs.state("a") is JobState.QUEUED
        assert await jobs.claim_ids() == []

    async def test_other_queues_go_on(self, jobs: Jobs) -> None:
        await pause(jobs)
        await jobs.at("other").put("a")
        assert await jobs.at("other").claim_ids() == ["a"]
        assert (await info(jobs.at("other"))).rules == Rules()

    async def test_rules_outlive_an_empty_queue(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        await jobs.complete(await jobs.claim_one())
        await pause(jobs)
        jobs.clock.move(TTL / 1000 + 3_600)
        while await jobs.storage.purge("q", 10):
            pass
        assert await jobs.storage.counts("q") == Counts()
        await jobs.put("b")
        assert (await other.exchange("q", "w", [], 1, LEASE)).jobs == []
        assert (await info(jobs, other)).rules == PAUSED

    async def test_where_a_queue_stands(self, jobs: Jobs, other: Storage) -> None:
        assert await info(jobs) == AdmissionInfo(Rules(), 0, 0, None)
        await jobs.put_all("abc")
        await jobs.put("high", priority=3)
        await jobs.put("later", delay=5_000)
        await jobs.claim(2)
        assert await info(jobs, other) == AdmissionInfo(Rules(), 2, 2, 5_000)
        await pause(jobs)
        jobs.clock.move(6)
        assert await info(jobs, other) == AdmissionInfo(PAUSED, 2, 2, 0)

    async def test_rules_are_compared_and_set(self, jobs: Jobs, other: Storage) -> None:
        store = admission(jobs.storage)
        assert not await store.set_rules("q", PAUSED, expected=PAUSED)
        assert (await info(jobs, other)).rules == Rules()
        assert await store.set_rules("q", PAUSED, expected=Rules())
        assert not await admission(other).set_rules("q", None, expected=Rules())
        assert (await info(jobs)).rules == PAUSED
        assert await store.set_rules("q", PAUSED, expected=PAUSED)
        assert await store.set_rules("q", Rules(), expected=PAUSED)
        assert await store.set_rules("q", None, expected=Rules())
        assert (await info(jobs, other)).rules == Rules()

    async def test_of_two_that_set_rules_one_did(self, jobs: Jobs, other: Storage) -> None:
        for _ in range(5):
            both = await asyncio.gather(
                admission(jobs.storage).set_rules("q", PAUSED, expected=Rules()),
                admission(other).set_rules("q", PAUSED, expected=Rules()),
            )
            assert sorted(both) == [False, True]
            await resume(jobs)

    async def test_setting_the_same_again_changes_nothing(self, jobs: Jobs) -> None:
        await jobs.put("a")
        for _ in range(2):
            await pause(jobs)
            assert await jobs.claim_ids() == []
        for _ in range(2):
            await resume(jobs)
        assert await jobs.claim_ids() == ["a"]

    # -- races ------------------------------------------------------------------------------------

    async def test_no_claim_is_made_after_the_pause_has_returned(self, jobs: Jobs, other: Storage) -> None:
        """Workers claim as fast as they can; what is leased when the pause returns is all there will be."""
        admission(jobs.storage)
        await jobs.put_all([f"{n}" for n in range(400)])
        for turn in range(10):
            over = asyncio.Event()

            async def work(store: Storage, name: str, over: asyncio.Event = over) -> None:
                while not over.is_set():
                    await store.exchange("q", name, [], 1, LEASE)
                    await asyncio.sleep(0)

            workers = [
                asyncio.create_task(work(store, f"w{n}"))
                for n, store in enumerate((jobs.storage, other, jobs.storage, other))
            ]
            for _ in range(turn):
                await asyncio.sleep(0)
            await within_limit(pause(jobs))
            running = (await info(jobs, other)).running
            for _ in range(3):
                assert (await jobs.exchange(limit=5)).jobs == []
            over.set()
            await within_limit(asyncio.gather(*workers))
            assert (await info(jobs)).running == running
            await resume(jobs)

    # -- waiting ----------------------------------------------------------------------------------

    async def test_jobs_of_a_paused_queue_end_no_wait(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        await pause(jobs)
        await jobs.exchange(limit=1)
        await ends_without_news(jobs)

    async def test_who_waits_for_work_is_woken_by_the_resume(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        await pause(jobs)
        for resumed in (jobs.storage, other):
            assert (await other.exchange("q", "idle", [], 1, LEASE)).jobs == []
            wait = asyncio.create_task(other.wait_for_work("q", "idle", WAIT))
            await jobs.clock.settle()
            await resume(jobs, resumed)
            assert await within_limit(wait) is True
            await pause(jobs)
        await resume(jobs)
        assert [run.id for run in (await other.exchange("q", "idle", [], 1, LEASE)).jobs] == ["a"]

    async def test_a_resume_just_before_the_wait_is_not_missed(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        await pause(jobs)
        assert (await other.exchange("q", "idle", [], 1, LEASE)).jobs == []
        await resume(jobs)
        assert await within_limit(other.wait_for_work("q", "idle", WAIT)) is True

    async def test_every_worker_that_waits_is_woken_by_the_resume(self, jobs: Jobs, other: Storage) -> None:
        await pause(jobs)
        waits: list[asyncio.Task[bool]] = []
        for n, store in enumerate((jobs.storage, other, jobs.storage, other)):
            await store.exchange("q", f"w{n}", [], 1, LEASE)
            waits.append(asyncio.create_task(store.wait_for_work("q", f"w{n}", WAIT)))
        await jobs.clock.settle()
        await jobs.put_all("abcd")
        await resume(jobs)
        assert await within_limit(asyncio.gather(*waits)) == [True] * 4

    async def test_claims_on_arrival_obey(self, jobs: Jobs) -> None:
        store = jobs.storage
        if not isinstance(store, ClaimsOnArrival):
            pytest.skip("this store does not claim on arrival")
        await jobs.put("a")
        await pause(jobs)
        answer = await within_limit(store.claim_on_arrival("q", "idle", 1, LEASE, 0.1))
        assert answer is None or (answer.jobs == [] and answer.paused)
        arrival = asyncio.create_task(store.claim_on_arrival("q", "idle", 1, LEASE, WAIT))
        await jobs.clock.settle()
        await resume(jobs)
        answer = await within_limit(arrival)
        assert await jobs.claim_ids() == (["a"] if answer is None or not answer.jobs else [])

    # -- arguments --------------------------------------------------------------------------------

    @pytest.mark.parametrize("argument", BAD)
    async def test_a_bad_argument_sets_no_rules(self, jobs: Jobs, argument: str) -> None:
        store = admission(jobs.storage)
        good: dict[str, Any] = {"queue": "q", "rules": PAUSED, "expected": Rules()}
        for value in BAD[argument]:
            with pytest.raises(InvalidArgumentError) as caught:
                await store.set_rules(**{**good, argument: value})
            assert caught.value.argument.startswith(argument), caught.value
        assert (await info(jobs)).rules == Rules()
        assert await store.set_rules(**good)

    @pytest.mark.parametrize("queue", QUEUES)
    async def test_a_bad_name_has_no_rules(self, jobs: Jobs, queue: Any) -> None:
        store = admission(jobs.storage)
        with pytest.raises(InvalidArgumentError):
            await store.get_rules(queue)
