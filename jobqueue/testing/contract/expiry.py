"""Expiry: state, result, error and dedup mark live and end together."""

from __future__ import annotations

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import Counts, InsertStatus, Reuse, UpdateTtlStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import TTL, Jobs, job

__all__ = ["ExpiryCases"]

ENDED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
LIVE = (JobState.SCHEDULED, JobState.QUEUED, JobState.PROCESSING, JobState.FAILING)
UPDATED, NOT_FOUND = UpdateTtlStatus.UPDATED, UpdateTtlStatus.NOT_FOUND


class ExpiryCases(Cases):
    """Expiry."""

    @pytest.mark.parametrize("purge", [False, True])
    @pytest.mark.parametrize("state", ENDED)
    async def test_everything_of_a_job_expires_at_once(
        self, jobs: Jobs, state: JobState, purge: bool
    ) -> None:
        await jobs.bring(state, dead_letter_ttl=0)
        jobs.clock.move(TTL / 1000 - 0.001)
        if purge:
            assert await jobs.storage.purge("q", 10) == 0
        record = await jobs.record("a")
        assert (record.state, record.expires_at) == (state, jobs.clock.now_ms() + 1)
        assert await jobs.ids_in(state) == ["a"]
        jobs.clock.move(0.001)
        if purge:
            await jobs.storage.purge("q", 10)
        assert await jobs.find("a") is None
        assert await jobs.ids_in(state) == []
        assert await jobs.storage.counts("q") == Counts()
        assert await jobs.cancel("a") == "not_found"
        assert await jobs.storage.set_ttl("q", [("a", TTL)]) == [NOT_FOUND]
        again = await jobs.put("a", payload=b"new")
        assert (again.status, again.data, again.attempts) == (InsertStatus.CREATED, None, 0)
        assert [(run.payload, run.attempts) for run in await jobs.claim(9)] == [(b"new", 1)]

    @pytest.mark.parametrize("state", ENDED)
    async def test_the_id_is_free_at_the_instant_of_expiry(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state)
        jobs.clock.move(TTL / 1000)
        again = await jobs.put("a", reuse=Reuse.RETURN)
        assert (again.status, again.state) == (InsertStatus.CREATED, JobState.QUEUED)

    @pytest.mark.parametrize("batched", [False, True])
    async def test_many_ids_are_free_at_one_instant(self, jobs: Jobs, batched: bool) -> None:
        ids = [f"{n}" for n in range(40)]
        await jobs.put_all(ids)
        await jobs.exchange(
            *(Settlement(run.id, run.fence, Action.FAIL, b"e", TTL) for run in await jobs.claim(40))
        )
        jobs.clock.move(TTL / 1000)
        if batched:
            answers = await jobs.insert(*(job(id) for id in ids))
        else:
            answers = [await jobs.put(id) for id in ids]
        assert {answer.status for answer in answers} == {InsertStatus.CREATED}
        assert await jobs.claim_ids() == ids

    @pytest.mark.parametrize("state", LIVE)
    async def test_a_live_job_never_expires(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state, ttl=1)
        before = await jobs.record("a")
        assert before.expires_at is None
        jobs.clock.move(400 * 86_400)
        assert await jobs.storage.purge("q", 10) == 0
        assert await jobs.record("a") == before
        assert (await jobs.put("a")).status is InsertStatus.FOUND

    async def test_each_job_has_its_own_ttl(self, jobs: Jobs) -> None:
        for id, ttl in (("a", 3_000), ("b", 1_000), ("c", 2_000)):
            await jobs.put(id, ttl=9_000)
            await jobs.complete(await jobs.claim_one(), ttl=ttl)
        seen: list[str] = []
        for _ in range(4):
            seen.append("".join(await jobs.ids_in(JobState.COMPLETED)))
            jobs.clock.move(1)
        assert seen == ["abc", "ac", "a", ""]

    async def test_the_settlements_ttl_counts_from_the_end(self, jobs: Jobs) -> None:
        await jobs.put("a", ttl=1)
        run = await jobs.claim_one()
        jobs.clock.move(20)
        await jobs.settle(run, Action.FAIL, b"e", ttl=1_500)
        record = await jobs.record("a")
        assert (record.ttl, record.expires_at) == (1, jobs.clock.now_ms() + 1_500)

    async def test_of_two_ttls_in_one_call_the_later_one_counts(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        for first, last in ((9_000, 2_000), (2_000, 9_000)):
            assert await jobs.storage.set_ttl("q", [("a", first), ("a", last)]) == [UPDATED, UPDATED]
            assert (await jobs.record("a")).expires_at == jobs.clock.now_ms() + last
        jobs.clock.move(5)
        assert await jobs.storage.purge("q", 10) == 0
        assert await jobs.ids_in(JobState.COMPLETED) == ["a"]
        jobs.clock.move(4)
        assert await jobs.storage.purge("q", 10) == 1

    async def test_a_ttl_of_many_years(self, jobs: Jobs) -> None:
        ttl = 100 * 365 * 86_400 * 1000
        await jobs.put("a", ttl=ttl)
        await jobs.complete(await jobs.claim_one(), ttl=ttl)
        record = await jobs.record("a")
        assert record.expires_at == jobs.clock.now_ms() + ttl

    @pytest.mark.parametrize("kept", [False, True])
    async def test_a_ttl_of_nothing_makes_an_ended_job_absent_at_once(self, jobs: Jobs, kept: bool) -> None:
        await jobs.put("a")
        await jobs.complete(await jobs.claim_one(), ttl=TTL if kept else 0)
        if kept:
            assert await jobs.storage.set_ttl("q", [("a", 0)]) == [UPDATED]
        assert await jobs.find("a") is None
        assert await jobs.storage.counts("q") == Counts()
        assert (await jobs.put("a")).status is InsertStatus.CREATED

    # -- keep -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ENDED)
    @pytest.mark.parametrize("ttl", [1_000, TTL * 3])
    async def test_keep_sets_the_expiry_from_now(self, jobs: Jobs, state: JobState, ttl: int) -> None:
        await jobs.bring(state)
        jobs.clock.move(5)
        before = await jobs.record("a")
        assert await jobs.storage.set_ttl("q", [("a", ttl)]) == [UPDATED]
        after = await jobs.record("a")
        assert after == before._replace(expires_at=jobs.clock.now_ms() + ttl, updated_at=after.updated_at)
        jobs.clock.move(ttl / 1000 - 0.001)
        await jobs.storage.purge("q", 10)
        assert await jobs.state("a") is state
        jobs.clock.move(0.001)
        assert await jobs.find("a") is None
        assert (await jobs.put("a")).status is InsertStatus.CREATED

    async def test_the_last_keep_counts(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        for ttl in (9_000, 2_000, 5_000):
            assert await jobs.storage.set_ttl("q", [("a", ttl)]) == [UPDATED]
        jobs.clock.move(4.999)
        assert await jobs.storage.purge("q", 10) == 0
        assert (await jobs.record("a")).result == b"result"
        jobs.clock.move(0.001)
        assert await jobs.find("a") is None

    @pytest.mark.parametrize("state", LIVE)
    async def test_a_live_job_has_nothing_to_keep(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state)
        before = await jobs.record("a")
        assert await jobs.storage.set_ttl("q", [("a", 1)]) == [UpdateTtlStatus.NOT_TERMINAL]
        assert await jobs.record("a") == before
        jobs.clock.move(1)
        assert await jobs.state("a") is state

    async def test_keep_answers_in_order(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED, "done")
        await jobs.put("a")
        ttls = [("zz", 5), ("done", 5), ("a", 5), ("done", 7)]
        assert await jobs.storage.set_ttl("q", ttls) == [
            NOT_FOUND, UPDATED, UpdateTtlStatus.NOT_TERMINAL, UPDATED,
        ]  # fmt: skip
        assert (await jobs.record("done")).expires_at == jobs.clock.now_ms() + 7
        assert await jobs.storage.set_ttl("q", []) == []
        assert await jobs.storage.set_ttl("other", [("done", 5)]) == [NOT_FOUND]

    async def test_keep_does_not_raise_the_dead(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        jobs.clock.move(TTL / 1000)
        assert await jobs.storage.set_ttl("q", [("a", TTL)]) == [NOT_FOUND]
        assert await jobs.find("a") is None

    async def test_a_kept_expiry_ends_with_its_record(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        await jobs.storage.set_ttl("q", [("a", 1_000)])
        await jobs.put("a", reuse=Reuse.RERUN, payload=b"new")
        jobs.clock.move(2)
        await jobs.storage.purge("q", 10)
        assert (await jobs.claim_one()).payload == b"new"
        jobs.clock.move(TTL / 1000)
        await jobs.storage.purge("q", 10)
        assert await jobs.state("a") is JobState.PROCESSING

    # -- purge ------------------------------------------------------------------------------------

    async def test_purge_deletes_only_what_expired(self, jobs: Jobs) -> None:
        for n, state in enumerate([*LIVE, *ENDED]):
            delay = 10**9 if state is JobState.SCHEDULED else 0
            await jobs.bring(state, f"{state}-{n}", priority=n, delay=delay, ttl=10, dead_letter_ttl=0)
        await jobs.bring(JobState.COMPLETED, "kept", priority=9)
        await jobs.storage.set_ttl("q", [("kept", 2 * TTL)])
        jobs.clock.move(TTL / 1000)
        # What a store has dropped by itself before is not counted.
        assert 0 <= await jobs.storage.purge("q", 100) <= 3
        assert await jobs.storage.purge("q", 100) == 0
        for n, state in enumerate(LIVE):
            assert await jobs.state(f"{state}-{n}") is state
        assert await jobs.state("kept") is JobState.COMPLETED
        counts = await jobs.storage.counts("q")
        assert (counts.completed, counts.failed, counts.cancelled) == (1, 0, 0)

    async def test_purge_is_limited(self, jobs: Jobs) -> None:
        ids = [f"{n}" for n in range(20)]
        await jobs.put_all(ids)
        await jobs.storage.cancel("q", ids)
        jobs.clock.move(TTL / 1000)
        dropped = [await jobs.storage.purge("q", limit) for limit in (0, 5, 100, 100)]
        assert dropped[0] == dropped[3] == 0
        assert dropped[1] <= 5
        assert sum(dropped) <= 20
        assert await jobs.storage.get("q", ids) == [None] * 20

    @pytest.mark.parametrize("action", [Action.COMPLETE, Action.FAIL])
    async def test_jobs_that_ended_together_part_one_by_one(self, jobs: Jobs, action: Action) -> None:
        """A store may index them as one: then each has to leave it alone."""
        ids = [f"{n:03}" for n in range(150)]
        state = JobState.COMPLETED if action is Action.COMPLETE else JobState.FAILED
        await jobs.put_all(ids, dead_letter_ttl=0)
        await jobs.exchange(
            *(Settlement(run.id, run.fence, action, b"d", TTL) for run in await jobs.claim(150))
        )
        assert await jobs.ids_in(state) == ids
        kept = [("003", 2 * TTL), ("000", TTL // 2), ("149", TTL), ("003", 3 * TTL), ("077", TTL + 1)]
        assert await jobs.storage.set_ttl("q", kept) == [UPDATED] * 5
        for id in ("001", "148"):
            assert (await jobs.put(id, reuse=Reuse.RERUN)).status is InsertStatus.CREATED
        assert await jobs.ids_in(state) == [id for id in ids if id not in {"001", "148"}]
        assert (await jobs.storage.counts("q"))[4:7] == (
            (148, 0) if state is JobState.COMPLETED else (0, 148)
        ) + (0,)

        jobs.clock.move(TTL / 2000)
        assert await jobs.ids_in(state) == [id for id in ids if id not in {"000", "001", "148"}]
        jobs.clock.move(TTL / 2000)
        assert await jobs.ids_in(state) == ["003", "077"]
        counts = await jobs.storage.counts("q")
        assert (counts.queued, counts.completed + counts.failed) == (2, 2)
        dropped = [await jobs.storage.purge("q", 7) for _ in range(30)]
        assert max(dropped) <= 7
        assert dropped[-1] == 0
        assert await jobs.ids_in(state) == ["003", "077"]
        assert await jobs.storage.counts("q") == counts
        jobs.clock.move(2 * TTL / 1000)
        assert await jobs.storage.purge("q", 100) <= 2
        assert await jobs.ids_in(state) == []
        assert await jobs.claim_ids() == ["001", "148"]

    async def test_purge_of_nothing(self, jobs: Jobs) -> None:
        assert await jobs.storage.purge("q", 10) == 0
        await jobs.put("a")
        assert await jobs.storage.purge("q", 10) == 0
        assert await jobs.storage.purge("other", 10) == 0
        assert await jobs.claim_ids() == ["a"]

    async def test_a_purged_store_is_as_new(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        run = await jobs.bring(JobState.FAILED, "b", dead_letter_ttl=0)
        jobs.clock.move(TTL / 1000 + 60)
        await jobs.storage.purge("q", 10)
        assert await jobs.storage.queues() in ([], ["q"])
        assert await jobs.storage.counts("q") == Counts()
        assert await jobs.storage.workers("q") == []
        assert run is not None
        assert await jobs.complete(run) == "lost"
        await jobs.put_all("ab")
        assert await jobs.claim_ids() == ["a", "b"]
