"""Waiting for work: a wake-up may come early or not at all, but no wait is endless."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from jobqueue.model.states import Action
from jobqueue.storage.contract import Storage
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, LIMIT, WAIT, Jobs, job, run_out, within_limit

__all__ = ["WakeupCases"]


class WakeupCases(Cases):
    """Waiting for work."""

    async def woken_by(self, jobs: Jobs, *changes: Awaitable[object], store: Storage | None = None) -> bool:
        """Start to wait, make the changes, and return whether they ended the wait."""
        wait = asyncio.create_task((store or jobs.storage).wait_for_work("q", "idle", WAIT))
        await jobs.clock.settle()
        for change in changes:
            await change
        return await within_limit(wait)

    async def test_ready_work_is_reported_at_once(self, jobs: Jobs) -> None:
        await jobs.put("a")
        assert await within_limit(jobs.storage.wait_for_work("q", "idle", WAIT)) is True
        assert await jobs.claim_ids() == ["a"]

    async def test_work_that_nobody_has_claimed_is_reported_again(self, jobs: Jobs) -> None:
        await jobs.put("a")
        for _ in range(3):
            assert await within_limit(jobs.storage.wait_for_work("q", "idle", WAIT)) is True
        assert await self.woken_by(jobs)
        assert await jobs.claim_ids() == ["a"]

    async def test_an_insert_wakes(self, jobs: Jobs) -> None:
        assert await self.woken_by(jobs, jobs.put("a"))
        assert await jobs.claim_ids() == ["a"]

    @pytest.mark.parametrize("priority", [-1000, -1, 1, 1000])
    async def test_an_insert_of_any_priority_wakes(self, jobs: Jobs, priority: int) -> None:
        assert await self.woken_by(jobs, jobs.put("a", priority=priority))
        assert await jobs.claim_ids() == ["a"]

    async def test_an_insert_on_another_handle_wakes(self, jobs: Jobs, other: Storage) -> None:
        assert await self.woken_by(jobs, jobs.put("a"), store=other)
        assert [run.id for run in (await other.exchange("q", "idle", [], 1, LEASE)).jobs] == ["a"]

    async def test_a_second_wait_is_woken_too(self, jobs: Jobs) -> None:
        for id in "abc":
            assert await self.woken_by(jobs, jobs.put(id))
            assert await jobs.claim_ids() == [id]

    async def test_a_release_wakes(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        assert await self.woken_by(jobs, jobs.settle(run, Action.RELEASE))
        assert await jobs.claim_ids() == ["a"]

    async def test_a_recovery_wakes(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.claim()
        jobs.clock.move(LEASE / 1000)
        assert await self.woken_by(jobs, jobs.storage.sweep("q", 10))
        assert await jobs.claim_ids() == ["a"]

    async def test_a_rerun_wakes(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.cancel("a")
        assert await self.woken_by(jobs, jobs.put("a"))
        assert await jobs.claim_ids() == ["a"]

    async def test_the_first_schedule_wakes(self, jobs: Jobs) -> None:
        assert await self.woken_by(jobs, jobs.put("a", delay=60_000))
        assert (await jobs.exchange(limit=1)).next_due == 60_000

    async def test_an_earlier_schedule_wakes(self, jobs: Jobs) -> None:
        await jobs.put("late", delay=60_000)
        assert await self.woken_by(jobs, jobs.put("early", delay=5_000))
        assert (await jobs.exchange(limit=1)).next_due == 5_000

    async def test_an_earlier_retry_wakes(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.put("late", delay=60_000)
        assert await self.woken_by(jobs, jobs.settle(run, Action.RETRY, b"e", delay=5_000))
        assert (await jobs.exchange(limit=1)).next_due == 5_000

    async def test_a_schedule_just_before_the_wait_is_not_missed(self, jobs: Jobs, clock: FakeClock) -> None:
        assert (await jobs.exchange(limit=1)).next_due is None
        await jobs.put("a", delay=1_000)
        wait = asyncio.create_task(jobs.storage.wait_for_work("q", "idle", WAIT))
        await clock.settle()
        await clock.advance(1)
        assert await within_limit(wait) is True
        assert await jobs.claim_ids() == ["a"]

    async def test_work_for_many_wakes_somebody(self, jobs: Jobs, other: Storage) -> None:
        stores = [jobs.storage, other, jobs.storage, other]
        waits = [
            asyncio.create_task(store.wait_for_work("q", f"w{n}", WAIT)) for n, store in enumerate(stores)
        ]
        await jobs.clock.settle()
        await jobs.insert(*(job(id) for id in "abcd"))
        async with asyncio.timeout(LIMIT):
            done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert all(wait.result() is True for wait in done)
        for wait in rest:
            wait.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        # However many were woken, and whatever became of them: nothing is lost.
        assert await jobs.claim_ids() == list("abcd")

    async def test_one_wait_serves_one_queue(self, jobs: Jobs) -> None:
        wait = asyncio.create_task(jobs.storage.wait_for_work("other", "idle", WAIT))
        await jobs.clock.settle()
        await jobs.put("a")
        await jobs.at("other").put("b")
        assert await within_limit(wait)
        assert await jobs.at("other").claim_ids() == ["b"]
        assert await jobs.claim_ids() == ["a"]

    @pytest.mark.parametrize("timeout", [0, 0.001, 0.05])
    async def test_without_work_the_wait_ends_by_its_timeout(
        self, jobs: Jobs, clock: FakeClock, timeout: float
    ) -> None:
        # False alarms are allowed, but not for ever.
        for _ in range(20):
            if not await run_out(clock, jobs.storage.wait_for_work("q", "idle", timeout), timeout):
                break
        else:
            pytest.fail("20 waits for work that does not exist all said that it may")

    async def test_a_wait_that_ran_out_leaves_nothing_behind(self, jobs: Jobs, clock: FakeClock) -> None:
        for _ in range(3):
            await run_out(clock, jobs.storage.wait_for_work("q", "idle", 0.01), 0.01)
        await jobs.put_all("ab")
        assert await jobs.claim_ids() == ["a", "b"]
        assert await self.woken_by(jobs, jobs.put("c"))

    async def test_a_wait_can_be_cancelled(self, jobs: Jobs) -> None:
        for _ in range(3):
            wait = asyncio.create_task(jobs.storage.wait_for_work("q", "idle", WAIT))
            await jobs.clock.settle()
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
        assert await self.woken_by(jobs, jobs.put("a"))
        assert await jobs.claim_ids() == ["a"]

    async def test_a_wait_cancelled_as_work_comes_loses_nothing(self, jobs: Jobs) -> None:
        for turn in range(6):
            wait = asyncio.create_task(jobs.storage.wait_for_work("q", "idle", WAIT))
            await jobs.clock.settle()
            put = asyncio.create_task(jobs.put(f"{turn}"))
            for _ in range(turn):
                await asyncio.sleep(0)
            wait.cancel()
            await asyncio.gather(wait, return_exceptions=True)
            await within_limit(put)
            assert await jobs.claim_ids() == [f"{turn}"]
