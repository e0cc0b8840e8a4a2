"""Inserting: the meaning of an id, and its owner."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Inserted, InsertStatus, NewJob, Record, Reuse
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import TTL, Jobs, job

__all__ = ["InsertCases"]

CREATED, FOUND, FULL = InsertStatus.CREATED, InsertStatus.FOUND, InsertStatus.FULL
LIVE = (JobState.SCHEDULED, JobState.QUEUED, JobState.PROCESSING, JobState.FAILING)


class InsertCases(Cases):
    """Inserting."""

    async def test_insert_creates_a_job(self, jobs: Jobs) -> None:
        inserted = await jobs.put("a")
        assert inserted == Inserted(CREATED, inserted.seq, JobState.QUEUED, None, 0)
        assert inserted.seq > 0

    async def test_insert_writes_every_field(self, jobs: Jobs) -> None:
        now = jobs.clock.now_ms()
        new = NewJob("a", b"data", priority=-7, max_attempts=9, max_stalls=4, ttl=12_345)
        (inserted,) = await jobs.insert(new)
        assert await jobs.record("a", payload=True) == Record(
            "a", inserted.seq, JobState.QUEUED, -7, now, now, now, 0, 9, 0, 4, 12_345, 0,
            None, None, False, None, None, None, None, b"data",
        )  # fmt: skip

    async def test_insert_of_nothing(self, jobs: Jobs) -> None:
        assert await jobs.insert() == []
        assert await jobs.insert(reply_to="me", max_length=0) == []

    async def test_insert_keeps_the_order_of_a_large_batch(self, jobs: Jobs) -> None:
        ids = [f"job-{n}" for n in range(700)]
        answers = await jobs.insert(*(job(id) for id in ids))
        assert [answer.status for answer in answers] == [CREATED] * 700
        assert await jobs.claim_ids(700) == ids

    @pytest.mark.parametrize(
        ("fields", "state", "due"),
        [
            ({"delay": 0}, JobState.QUEUED, 0),
            ({"delay": 1}, JobState.SCHEDULED, 1),
            ({"delay": 90_000}, JobState.SCHEDULED, 90_000),
        ],
    )
    async def test_insert_with_delay(
        self, jobs: Jobs, fields: dict[str, int], state: JobState, due: int
    ) -> None:
        assert (await jobs.put("a", **fields)).state is state
        record = await jobs.record("a")
        assert (record.state, record.run_at) == (state, jobs.clock.now_ms() + due)

    @pytest.mark.parametrize(
        ("offset", "state"),
        [(-5_000, JobState.QUEUED), (0, JobState.QUEUED), (1, JobState.SCHEDULED), (9, JobState.SCHEDULED)],
    )
    async def test_insert_with_run_at(self, jobs: Jobs, offset: int, state: JobState) -> None:
        run_at = jobs.clock.now_ms() + offset
        # run_at overrides the delay, in both directions.
        assert (await jobs.put("a", run_at=run_at, delay=7_000)).state is state
        record = await jobs.record("a")
        assert (record.state, record.run_at) == (state, run_at)

    @pytest.mark.parametrize("state", LIVE)
    @pytest.mark.parametrize("reuse", list(Reuse))
    async def test_a_live_job_is_joined(self, jobs: Jobs, state: JobState, reuse: Reuse) -> None:
        run = await jobs.bring(state)
        before = await jobs.record("a", payload=True)
        again = await jobs.put("a", payload=b"second", priority=5, delay=9, reuse=reuse)
        assert again == Inserted(FOUND, before.seq, state, None, 1 if run else 0)
        assert await jobs.record("a", payload=True) == before
        assert before.payload == b"payload"

    @pytest.mark.parametrize(
        ("state", "reuse", "created"),
        [
            (JobState.COMPLETED, Reuse.RETURN, False),
            (JobState.COMPLETED, Reuse.RERUN_FAILED, False),
            (JobState.COMPLETED, Reuse.RERUN, True),
            (JobState.FAILED, Reuse.RETURN, False),
            (JobState.FAILED, Reuse.RERUN_FAILED, True),
            (JobState.FAILED, Reuse.RERUN, True),
            (JobState.CANCELLED, Reuse.RETURN, True),
            (JobState.CANCELLED, Reuse.RERUN_FAILED, True),
            (JobState.CANCELLED, Reuse.RERUN, True),
        ],
    )
    async def test_an_ended_job_is_reused_as_asked(
        self, jobs: Jobs, state: JobState, reuse: Reuse, created: bool
    ) -> None:
        await jobs.bring(state)
        old = await jobs.record("a")
        again = await jobs.put("a", payload=b"second", reuse=reuse)
        if created:
            assert again == Inserted(CREATED, again.seq, JobState.QUEUED, None, 0)
            assert again.seq > old.seq
            assert (await jobs.claim_one()).payload == b"second"
        else:
            data = b"result" if state is JobState.COMPLETED else b"error"
            assert again == Inserted(FOUND, old.seq, state, data, 1)
            assert await jobs.record("a") == old
            assert await jobs.claim() == []

    async def test_an_ended_job_waits_to_be_replaced_by_a_scheduled_one(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        assert (await jobs.put("a", reuse=Reuse.RERUN, delay=1_000)).state is JobState.SCHEDULED
        assert await jobs.claim() == []
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ["a"]

    async def test_a_replaced_job_starts_over_in_every_field(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=3)
        await jobs.claim()
        await jobs.stall()
        run = await jobs.claim_one()
        await jobs.extend(run, b"half")
        await jobs.settle(run, Action.FAIL, b"error")
        jobs.clock.move(1)
        new = NewJob("a", b"new", -3, max_attempts=5, max_stalls=6, ttl=777, reuse=Reuse.RERUN)
        (inserted,) = await jobs.insert(new)
        now = jobs.clock.now_ms()
        assert await jobs.record("a", payload=True) == Record(
            "a", inserted.seq, JobState.QUEUED, -3, now, now, now, 0, 5, 0, 6, 777, 0,
            None, None, False, None, None, None, None, b"new",
        )  # fmt: skip

    async def test_one_id_twice_in_a_batch_is_created_once(self, jobs: Jobs) -> None:
        first, second, third = await jobs.insert(job("a", b"1"), job("b"), job("a", b"2"))
        assert (first.status, second.status, third.status) == (CREATED, CREATED, FOUND)
        assert third.seq == first.seq < second.seq
        assert [(run.id, run.payload) for run in await jobs.claim(9)] == [("a", b"1"), ("b", b"payload")]

    async def test_one_id_twice_in_a_batch_that_reruns_is_replaced_once(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        first, second = await jobs.insert(
            job("a", b"1", reuse=Reuse.RERUN), job("a", b"2", reuse=Reuse.RERUN)
        )
        assert (first.status, second.status) == (CREATED, FOUND)
        assert (await jobs.claim_one()).payload == b"1"
        assert await jobs.claim() == []

    async def test_concurrent_inserts_of_one_id_create_one_job(self, jobs: Jobs, other: Storage) -> None:
        there = Jobs(other, jobs.clock)
        calls = [(jobs if n % 2 else there).put("a", payload=b"%d" % n) for n in range(24)]
        answers = await asyncio.gather(*calls)
        statuses = [answer.status for answer in answers]
        assert statuses.count(CREATED) == 1
        assert statuses.count(FOUND) == 23
        assert len({answer.seq for answer in answers}) == 1
        winner = statuses.index(CREATED)
        assert [run.payload for run in await jobs.claim(9)] == [b"%d" % winner]

    async def test_concurrent_overlapping_batches_create_each_id_once(
        self, jobs: Jobs, other: Storage
    ) -> None:
        ids = [f"{n}" for n in range(50)]
        batches = [[job(id) for id in ids[start:] + ids[:start]] for start in range(0, 50, 7)]
        handles = [jobs, Jobs(other, jobs.clock)]
        calls = [handles[n % 2].insert(*batch) for n, batch in enumerate(batches)]
        answers = [answer for batch in await asyncio.gather(*calls) for answer in batch]
        assert sum(answer.status is CREATED for answer in answers) == 50
        assert sorted(await jobs.claim_ids()) == sorted(ids)

    async def test_concurrent_reruns_replace_once(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.FAILED)
        answers = await asyncio.gather(*(jobs.put("a", reuse=Reuse.RERUN_FAILED) for _ in range(12)))
        assert [answer.status for answer in answers].count(CREATED) == 1
        assert await jobs.claim_ids() == ["a"]

    async def test_each_incarnation_has_a_larger_seq(self, jobs: Jobs) -> None:
        seqs = [(await jobs.put("a")).seq]
        await jobs.cancel("a")
        seqs.append((await jobs.put("a")).seq)
        await jobs.complete(await jobs.claim_one())
        seqs.append((await jobs.put("a", reuse=Reuse.RERUN)).seq)
        await jobs.complete(await jobs.claim_one())
        jobs.clock.move(TTL / 1000)
        seqs.append((await jobs.put("a")).seq)
        await jobs.storage.purge("q", 100)
        await jobs.cancel("a")
        jobs.clock.move(TTL / 1000)
        await jobs.storage.purge("q", 100)
        seqs.append((await jobs.put("a")).seq)
        assert seqs == sorted(set(seqs))

    # -- max_length -------------------------------------------------------------------------------

    async def test_a_full_queue_refuses_but_answers_for_what_it_has(self, jobs: Jobs) -> None:
        batch = (job("a"), job("b", delay=5), job("c"), job("a"), job("d"))
        answers = await jobs.insert(*batch, max_length=2)
        assert [answer.status for answer in answers] == [CREATED, CREATED, FULL, FOUND, FULL]
        assert (answers[2].seq, answers[2].data) == (0, None)
        assert await jobs.find("c") is None
        assert [answer.status for answer in await jobs.insert(job("b"), job("c"), max_length=2)] == [
            FOUND,
            FULL,
        ]

    async def test_only_waiting_jobs_fill_a_queue(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED, "ended")
        await jobs.bring(JobState.FAILED, "ended too")
        await jobs.bring(JobState.CANCELLED, "gone")
        await jobs.bring(JobState.PROCESSING, "runs")
        (answer,) = await jobs.insert(job("a"), max_length=1)
        assert answer.status is CREATED
        (answer,) = await jobs.insert(job("b"), max_length=1)
        assert answer.status is FULL

    @pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.QUEUED, JobState.FAILING])
    async def test_every_waiting_state_fills_a_queue(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state)
        (answer,) = await jobs.insert(job("b"), max_length=1)
        assert answer.status is FULL
        await jobs.cancel("a")
        (answer,) = await jobs.insert(job("b"), max_length=1)
        assert answer.status is CREATED

    async def test_a_claim_makes_room(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        assert (await jobs.insert(job("b"), max_length=1))[0].status is CREATED
        # What comes back comes back, room or not.
        await jobs.settle(run, Action.RELEASE)
        assert (await jobs.insert(job("c"), max_length=2))[0].status is FULL

    async def test_a_full_queue_does_not_replace(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        await jobs.put("b")
        (answer,) = await jobs.insert(job("a", reuse=Reuse.RERUN), max_length=1)
        assert answer.status is FULL
        record = await jobs.record("a")
        assert (record.state, record.result) == (JobState.COMPLETED, b"result")

    async def test_max_length_zero_refuses_everything_new(self, jobs: Jobs) -> None:
        assert (await jobs.insert(job("a"), max_length=0))[0].status is FULL
        assert await jobs.find("a") is None

    async def test_each_queue_is_filled_by_itself(self, jobs: Jobs) -> None:
        await jobs.put("a")
        (answer,) = await jobs.at("other").insert(job("a"), max_length=1)
        assert answer.status is CREATED

    async def test_concurrent_inserts_do_not_overfill(self, jobs: Jobs, other: Storage) -> None:
        handles = [jobs, Jobs(other, jobs.clock)]
        calls = [handles[n % 2].insert(job(f"{n}"), max_length=5) for n in range(20)]
        statuses = [answer.status for (answer,) in await asyncio.gather(*calls)]
        assert (statuses.count(CREATED), statuses.count(FULL)) == (5, 15)

    # -- queues -----------------------------------------------------------------------------------

    async def test_queues_share_nothing(self, jobs: Jobs) -> None:
        one, two = jobs.at("one"), jobs.at("two")
        await one.put("a", payload=b"1")
        assert (await two.put("a", payload=b"2", delay=5)).status is CREATED
        run = await one.claim_one()
        assert run.payload == b"1"
        assert await two.claim() == []
        assert await two.cancel("a") == "cancelled"
        await one.complete(run)
        await two.put("a", payload=b"3")
        assert (await two.claim_one()).payload == b"3"
        assert await one.claim() == []
        assert (await one.state("a"), await two.state("a")) == (JobState.COMPLETED, JobState.PROCESSING)

    @pytest.mark.parametrize("name", ["a", "A", "a.b", "a-b_c", "..", "x" * 64, "0"])
    async def test_queue_names(self, jobs: Jobs, name: str) -> None:
        here = jobs.at(name)
        await here.put("a", payload=name.encode())
        assert (await here.claim_one()).payload == name.encode()
        for neighbour in ("a", "A", "a.b", "ab", "b", ".", "x" * 63):
            if neighbour != name:
                assert await jobs.at(neighbour).find("a") is None
