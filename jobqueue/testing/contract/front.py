"""Jobs that were given back or recovered go first."""

from __future__ import annotations

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.values import Claimed
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, Jobs, job

__all__ = ["FrontCases"]


class FrontCases(Cases):
    """The front of the line."""

    async def test_recovered_jobs_go_to_the_front_in_fence_order(self, jobs: Jobs) -> None:
        await jobs.put_all("abcde")
        await jobs.claim(3)
        await jobs.stall()
        assert await jobs.claim_ids() == list("abcde")

    async def test_released_jobs_go_to_the_front_in_fence_order(self, jobs: Jobs) -> None:
        await jobs.put_all("abcdef")
        runs = {run.id: run for run in await jobs.claim(4)}
        await jobs.storage.exchange("q", "w", [released(runs[id]) for id in "cadb"], 0, LEASE)
        assert await jobs.claim_ids() == list("abcdef")

    async def test_what_is_released_later_comes_first(self, jobs: Jobs) -> None:
        await jobs.put_all("abcd")
        a, b, _ = await jobs.claim(3)
        await jobs.settle(a, Action.RELEASE)
        await jobs.settle(b, Action.RELEASE)
        assert await jobs.claim_ids() == list("bad")

    async def test_the_front_is_that_of_the_priority(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(id, priority=1) for id in "ab"), *(job(id) for id in "xyz"))
        runs = {run.id: run for run in await jobs.claim(3)}
        assert list(runs) == ["a", "b", "x"]
        await jobs.put("c", priority=1)
        await jobs.exchange(released(runs["x"]), released(runs["b"]))
        assert await jobs.claim_ids() == ["b", "c", "x", "y", "z"]

    async def test_recovered_jobs_keep_their_priority(self, jobs: Jobs) -> None:
        await jobs.insert(job("low", priority=-1), job("high", priority=1), job("low2", priority=-1))
        await jobs.claim(2)
        await jobs.put_all(["mid"])
        await jobs.stall()
        assert await jobs.claim_ids() == ["high", "mid", "low", "low2"]


def released(run: Claimed) -> Settlement:
    return Settlement(run.id, run.fence, Action.RELEASE)
