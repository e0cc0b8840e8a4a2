"""Claiming on arrival, for stores that can: jobs that come with a wake-up are claimed once, or given back."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import ClaimsOnArrival
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Exchanged
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, WAIT, Jobs, job, within_limit

__all__ = ["ArrivalCases"]


async def arrival(
    store: Storage, limit: int = 1, *, worker: str = "idle", timeout: float = WAIT
) -> Exchanged | None:
    """Claim on arrival; skip the test of a store that cannot."""
    if not isinstance(store, ClaimsOnArrival):
        pytest.skip("this store does not claim on arrival")
    return await within_limit(store.claim_on_arrival("q", worker, limit, LEASE, timeout))


async def ids_of(jobs: Jobs, answer: Exchanged | None) -> list[str]:
    """Return what was claimed; by an exchange, if the answer says that one is needed."""
    if answer is None:
        return await jobs.claim_ids()
    return [claimed.id for claimed in answer.jobs]


async def claimed_in_the_end(jobs: Jobs, id: str) -> None:
    """Claim a job that may have to be given back first."""
    async with asyncio.timeout(WAIT):
        while not (claimed := await jobs.claim()):  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)
    assert [(one.id, one.attempts) for one in claimed] == [(id, 1)]


class ArrivalCases(Cases):
    """Claiming on arrival."""

    async def test_ready_work_is_claimed_at_once(self, jobs: Jobs) -> None:
        await jobs.put("a")
        assert await ids_of(jobs, await arrival(jobs.storage)) == ["a"]
        record = await jobs.record("a")
        assert (record.state, record.attempts) == (JobState.PROCESSING, 1)
        assert record.lease_until == record.updated_at + LEASE

    async def test_what_arrives_is_claimed(self, jobs: Jobs, other: Storage) -> None:
        waiting = asyncio.create_task(arrival(other))
        await jobs.clock.settle()
        await jobs.put("a")
        answer = await within_limit(waiting)
        assert answer is not None
        assert [claimed.id for claimed in answer.jobs] == ["a"]
        assert not answer.more
        assert (await jobs.record("a")).worker == "idle"
        assert await jobs.complete(answer.jobs[0]) == "accepted"

    async def test_no_more_than_the_limit_is_claimed(self, jobs: Jobs, other: Storage) -> None:
        waiting = asyncio.create_task(arrival(other, 2))
        await jobs.clock.settle()
        await jobs.insert(*(job(id) for id in "abc"))
        answer = await within_limit(waiting)
        assert answer is not None
        assert [claimed.id for claimed in answer.jobs] == ["a", "b"]
        assert answer.more
        assert await jobs.claim_ids() == ["c"]

    @pytest.mark.parametrize("priority", [-1, 1])
    async def test_a_job_of_any_priority_is_claimed(self, jobs: Jobs, other: Storage, priority: int) -> None:
        waiting = asyncio.create_task(arrival(other))
        await jobs.clock.settle()
        await jobs.put("a", priority=priority)
        assert await ids_of(jobs, await within_limit(waiting)) == ["a"]

    async def test_a_released_job_is_claimed(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        waiting = asyncio.create_task(arrival(other))
        await jobs.clock.settle()
        await jobs.settle(run, Action.RELEASE)
        assert await ids_of(jobs, await within_limit(waiting)) == ["a"]

    async def test_two_that_wait_never_claim_one_job(self, jobs: Jobs, other: Storage) -> None:
        stores = [jobs.storage, other, jobs.storage, other]
        waits = [asyncio.create_task(arrival(store, worker=f"w{n}")) for n, store in enumerate(stores)]
        await jobs.clock.settle()
        await jobs.insert(*(job(id) for id in "abcd"))
        answers = [await within_limit(wait) for wait in waits]
        claimed = [one.id for answer in answers if answer is not None for one in answer.jobs]
        assert sorted(claimed + await jobs.claim_ids()) == list("abcd")

    @pytest.mark.parametrize("timeout", [0, 0.05])
    async def test_without_work_it_ends_by_its_timeout(self, jobs: Jobs, timeout: float) -> None:
        waiting = asyncio.create_task(arrival(jobs.storage, timeout=timeout))
        await jobs.clock.settle()
        await jobs.clock.advance(timeout)
        answer = await within_limit(waiting)
        assert answer is None or not answer.jobs
        await jobs.put("a")
        assert await jobs.claim_ids() == ["a"]

    async def test_one_that_was_cancelled_keeps_no_job(self, jobs: Jobs, other: Storage) -> None:
        for turn in range(3):
            waiting = asyncio.create_task(arrival(other))
            await jobs.clock.settle()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await jobs.put(f"{turn}")
            await claimed_in_the_end(jobs, f"{turn}")

    async def test_one_that_is_cancelled_as_work_comes_keeps_no_job(self, jobs: Jobs) -> None:
        for turn in range(8):
            waiting = asyncio.create_task(arrival(jobs.storage))
            await jobs.clock.settle()
            put = asyncio.create_task(jobs.put(f"{turn}"))
            for _ in range(turn):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await within_limit(put)
            if waiting.cancelled():
                await claimed_in_the_end(jobs, f"{turn}")
            else:
                assert await ids_of(jobs, waiting.result()) == [f"{turn}"]

    async def test_it_serves_one_queue(self, jobs: Jobs, other: Storage) -> None:
        waiting = asyncio.create_task(arrival(other))
        await jobs.clock.settle()
        await jobs.at("other").put("b")
        await jobs.put("a")
        assert await ids_of(jobs, await within_limit(waiting)) == ["a"]
        assert await jobs.at("other").claim_ids() == ["b"]
