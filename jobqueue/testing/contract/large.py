"""Batches of many megabytes: a store may carry them in parts, and answers them whole and in order."""

from __future__ import annotations

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import CancelStatus, InsertStatus, SettleStatus, UpdateTtlStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs, job

__all__ = ["LargeCases"]

COUNT, SIZE = 20, 200_000
IDS = [f"{n:02}" for n in range(COUNT)]
CONTENTS = [bytes([n]) * SIZE for n in range(COUNT)]


async def put_all(jobs: Jobs) -> None:
    await jobs.insert(*(job(id, payload) for id, payload in zip(IDS, CONTENTS, strict=True)))


async def listed(jobs: Jobs, state: JobState) -> list[str]:
    """List all jobs in a state, and check that every page has one at least."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await jobs.storage.scan("q", state, COUNT, cursor)
        ids += [record.id for record in page.records]
        if page.cursor is None:
            return ids
        assert page.records
        cursor = page.cursor


class LargeCases(Cases):
    """Each batch is of some megabytes, or of more jobs than a worker hands in at once."""

    async def test_large_payloads(self, jobs: Jobs) -> None:
        await put_all(jobs)
        records = await jobs.storage.get("q", [*IDS, "none"], payload=True)
        assert [record and record.payload for record in records] == [*CONTENTS, None]
        assert [run.payload for run in await jobs.claim(COUNT)] == CONTENTS

    async def test_claims_are_kept_small_or_not_but_never_empty(self, jobs: Jobs) -> None:
        await put_all(jobs)
        claimed: list[str] = []
        while len(claimed) < COUNT:
            answer = await jobs.exchange(limit=COUNT)
            claimed += [run.id for run in answer.jobs]
            assert answer.jobs
            assert answer.more is (len(claimed) < COUNT)
        assert claimed == IDS
        assert (await jobs.exchange(limit=COUNT)).more is False

    async def test_claims_of_large_payloads_after_many_small_ones(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(f"small-{n}") for n in range(100)))
        assert len(await jobs.claim(100)) == 100
        await put_all(jobs)
        claimed: list[str] = []
        while len(claimed) < COUNT:
            answer = await jobs.exchange(limit=100)
            assert answer.jobs
            assert answer.more is (len(claimed) + len(answer.jobs) < COUNT)
            claimed += [run.id for run in answer.jobs]
        assert claimed == IDS

    async def test_large_payloads_of_several_priorities(self, jobs: Jobs) -> None:
        await jobs.insert(*(job(id, CONTENTS[0], priority=n % 3 - 1) for n, id in enumerate(IDS)))
        await jobs.insert(job("small", priority=1))
        ids = [run.id for run in await jobs.claim(COUNT + 1)]
        assert ids == [*IDS[2::3], "small", *IDS[1::3], *IDS[0::3]]
        assert (await jobs.storage.counts("q")).processing == COUNT + 1

    async def test_large_results(self, jobs: Jobs) -> None:
        await put_all(jobs)
        done = [
            Settlement(run.id, run.fence, Action.COMPLETE, result, TTL)
            for run, result in zip(await jobs.claim(COUNT), CONTENTS, strict=True)
        ]
        assert (await jobs.exchange(*done)).settled == [SettleStatus.ACCEPTED] * COUNT
        records = await jobs.storage.get("q", [*IDS, "none"])
        assert [record and record.result for record in records] == [*CONTENTS, None]
        assert await listed(jobs, JobState.COMPLETED) == IDS

    async def test_large_results_that_insertions_find(self, jobs: Jobs) -> None:
        await put_all(jobs)
        for run, result in zip(await jobs.claim(COUNT), CONTENTS, strict=True):
            await jobs.complete(run, result)
        answers = await jobs.insert(job("new"), *(job(id, b"x" * SIZE) for id in IDS), job("last"))
        assert [answer.data for answer in answers] == [None, *CONTENTS, None]
        created, found = InsertStatus.CREATED, InsertStatus.FOUND
        assert [answer.status for answer in answers] == [created, *[found] * COUNT, created]
        assert await jobs.claim_ids() == ["new", "last"]

    async def test_large_errors(self, jobs: Jobs) -> None:
        await put_all(jobs)
        for run, error in zip(await jobs.claim(COUNT), CONTENTS, strict=True):
            await jobs.settle(run, Action.FAIL, error)
        assert sorted(await listed(jobs, JobState.FAILED)) == IDS
        assert await jobs.storage.set_ttl("q", [(id, 5) for id in IDS]) == [UpdateTtlStatus.UPDATED] * COUNT
        jobs.clock.move(1)
        assert await jobs.storage.get("q", IDS) == [None] * COUNT

    async def test_large_jobs_are_recovered_and_cancelled(self, jobs: Jobs) -> None:
        await put_all(jobs)
        await jobs.claim(COUNT)
        jobs.clock.move(LEASE / 1000)
        assert [one.id for one in await jobs.storage.sweep("q", COUNT)] == IDS
        assert await listed(jobs, JobState.QUEUED) == IDS
        assert await jobs.storage.cancel("q", IDS) == [CancelStatus.CANCELLED] * COUNT

    async def test_many_released_jobs_go_to_the_front_in_their_order(self, jobs: Jobs) -> None:
        ids = [f"{n:04}" for n in range(1_300)]
        await jobs.put_all([*ids, "last"])
        runs = await jobs.claim(1_300)
        ended = [
            Settlement(run.id, run.fence, Action.RELEASE if n % 100 else Action.COMPLETE, b"", TTL)
            for n, run in enumerate(runs)
        ]
        assert set((await jobs.exchange(*ended)).settled) == {SettleStatus.ACCEPTED}
        assert await jobs.claim_ids(1_300) == [*(id for n, id in enumerate(ids) if n % 100), "last"]

    async def test_many_recovered_jobs_go_to_the_front_in_their_order(self, jobs: Jobs) -> None:
        ids = [f"{n:04}" for n in range(1_300)]
        await jobs.put_all([*ids, "last"])
        await jobs.claim(1_300)
        jobs.clock.move(LEASE / 1000)
        assert [swept.id for swept in await jobs.storage.sweep("q", 1_300)] == ids
        assert await jobs.claim_ids(1_301) == [*ids, "last"]
