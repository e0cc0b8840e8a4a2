"""Looking: records, pages, numbers, names."""

from __future__ import annotations

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import WORKER_SEEN_FOR, Counts, LeaseStatus, WorkerInfo
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs, job

__all__ = ["ListingCases"]

STATES = tuple(JobState)


class ListingCases(Cases):
    """Looking."""

    async def test_get_answers_in_order(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        records = await jobs.storage.get("q", ["b", "zz", "a", "b"])
        assert [record and record.id for record in records] == ["b", None, "a", "b"]
        assert await jobs.storage.get("q", []) == []
        assert await jobs.storage.get("other", ["a"]) == [None]

    async def test_payloads_come_only_when_asked_for(self, jobs: Jobs) -> None:
        await jobs.put("a", payload=b"data")
        assert (await jobs.record("a")).payload is None
        assert (await jobs.record("a", payload=True)).payload == b"data"
        page = await jobs.storage.scan("q", JobState.QUEUED, 10)
        assert [record.payload for record in page.records] == [None]

    @pytest.mark.parametrize("state", STATES)
    async def test_payloads_of_ended_jobs_are_dropped(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state, payload=b"data")
        payload = (await jobs.record("a", payload=True)).payload
        if state in {JobState.COMPLETED, JobState.CANCELLED}:
            assert payload is None
        else:
            assert payload == b"data"

    # -- pages ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", STATES)
    async def test_scan_lists_one_state(self, jobs: Jobs, state: JobState) -> None:
        for n, one in enumerate(STATES):
            await jobs.bring(one, one.value, priority=n)
        page = await jobs.storage.scan("q", state, 100)
        assert page.cursor is None
        record = await jobs.record(state.value)
        assert page.records == [record._replace(result=None, headers=b"", history=())]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 20, 21])
    async def test_pages_hold_every_job_once(self, jobs: Jobs, limit: int) -> None:
        ids = [f"{n}" for n in range(20)]
        await jobs.insert(*(job(id, priority=n % 3, delay=10 + n % 2) for n, id in enumerate(ids)))
        listed: list[str] = []
        cursor = None
        for _ in range(22):
            page = await jobs.storage.scan("q", JobState.SCHEDULED, limit, cursor)
            listed += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
        assert cursor is None
        assert sorted(listed) == sorted(ids)

    @pytest.mark.parametrize("state", STATES)
    async def test_jobs_that_stay_are_listed_once_whatever_others_do(
        self, jobs: Jobs, state: JobState
    ) -> None:
        stay = [f"stay-{n}" for n in range(12)]
        come = [f"come-{n}" for n in range(12)]
        for n, id in enumerate(stay):
            await jobs.bring(state, id, priority=n)
            await jobs.bring(JobState.SCHEDULED, f"leave-{n}", priority=n, delay=1_000)
        listed: list[str] = []
        cursor = None
        for step in range(40):
            page = await jobs.storage.scan("q", state, 3, cursor)
            listed += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
            if step < 12:
                await jobs.cancel(f"leave-{step}")
                await jobs.bring(state, come[step], priority=500 + step)
        assert cursor is None
        assert sorted(id for id in listed if id in stay) == sorted(stay)
        assert len(set(listed)) == len(listed)

    async def test_pages_while_listed_jobs_leave(self, jobs: Jobs) -> None:
        ids = [f"{n}" for n in range(9)]
        await jobs.put_all(ids)
        first = await jobs.storage.scan("q", JobState.QUEUED, 4)
        gone = [record.id for record in first.records[:2]]
        await jobs.storage.cancel("q", gone)
        listed = [record.id for record in first.records]
        cursor = first.cursor
        while cursor is not None:
            page = await jobs.storage.scan("q", JobState.QUEUED, 4, cursor)
            listed += [record.id for record in page.records]
            cursor = page.cursor
        assert sorted(listed) == ids

    async def test_scan_of_nothing(self, jobs: Jobs) -> None:
        for state in STATES:
            assert await jobs.storage.scan("q", state, 10) == ([], None)

    @pytest.mark.parametrize(
        "cursor",
        ["", "nonsense", "-1", "1 OR 1=1", "\x00", "💥", "٣", "x" * 10_000, "9" * 5_000],
        ids=["empty", "word", "negative", "sql", "nul", "emoji", "arabic", "long", "digits"],
    )
    @pytest.mark.parametrize("filled", [False, True])
    async def test_a_foreign_cursor_is_refused(self, jobs: Jobs, cursor: str, filled: bool) -> None:
        if filled:
            await jobs.put_all("abc")
        with pytest.raises(InvalidArgumentError, match="cursor"):
            await jobs.storage.scan("q", JobState.QUEUED, 2, cursor)

    # -- numbers ----------------------------------------------------------------------------------

    async def test_counts(self, jobs: Jobs) -> None:
        assert await jobs.storage.counts("q") == Counts()
        created_at = jobs.clock.now_ms()
        priority = 0
        for number, state in enumerate(STATES, start=1):
            for _ in range(number):
                priority += 1
                await jobs.bring(state, f"{priority}", priority=priority)
        numbers = dict(zip((state.value for state in STATES), range(1, 8), strict=True))
        assert await jobs.storage.counts("q") == Counts(**numbers, oldest=created_at)
        assert await jobs.storage.counts("other") == Counts()

    async def test_counts_follow_a_job(self, jobs: Jobs) -> None:
        async def count(state: JobState) -> None:
            counts = await jobs.storage.counts("q")
            assert counts._replace(oldest=None) == Counts(**{state.value: 1})

        await jobs.put("a", delay=10)
        await count(JobState.SCHEDULED)
        jobs.clock.move(1)
        run = await jobs.claim_one()
        await count(JobState.PROCESSING)
        await jobs.settle(run, Action.RETRY, b"e", delay=10)
        await count(JobState.FAILING)
        jobs.clock.move(1)
        run = await jobs.claim_one()
        await jobs.settle(run, Action.RELEASE)
        await count(JobState.QUEUED)
        await jobs.claim()
        await jobs.stall()
        await count(JobState.QUEUED)
        await jobs.complete(await jobs.claim_one())
        await count(JobState.COMPLETED)
        jobs.clock.move(TTL / 1000)
        assert await jobs.storage.counts("q") == Counts()

    async def test_oldest_is_of_the_ready(self, jobs: Jobs) -> None:
        async def oldest() -> int | None:
            return (await jobs.storage.counts("q")).oldest

        start = jobs.clock.now_ms()
        await jobs.put("later", delay=3_600_000)
        assert await oldest() is None
        jobs.clock.move(1)
        await jobs.put("a", priority=1)
        jobs.clock.move(1)
        await jobs.put("b", priority=2)
        jobs.clock.move(1)
        await jobs.put("c", priority=1)
        assert await oldest() == start + 1_000
        b = await jobs.claim_one()
        a = await jobs.claim_one()
        assert (a.id, b.id) == ("a", "b")
        assert await oldest() == start + 3_000
        await jobs.exchange(Settlement("b", b.fence, Action.RELEASE))
        assert await oldest() == start + 2_000
        await jobs.claim(9)
        assert await oldest() is None

    # -- names ------------------------------------------------------------------------------------

    async def test_queues_are_named_sorted(self, jobs: Jobs) -> None:
        assert await jobs.storage.queues() == []
        for name in ("b", "a", "B", "a.1", "a-1"):
            await jobs.at(name).put("x", delay=5 if name == "b" else 0)
        assert await jobs.storage.queues() == ["B", "a", "a-1", "a.1", "b"]

    async def test_a_queue_is_named_while_it_holds_a_record(self, jobs: Jobs) -> None:
        await jobs.bring(JobState.COMPLETED)
        assert await jobs.storage.queues() == ["q"]
        await jobs.at("r").bring(JobState.PROCESSING)
        assert await jobs.storage.queues() == ["q", "r"]

    # -- workers ----------------------------------------------------------------------------------

    async def test_workers_are_listed_by_name_with_their_leases(self, jobs: Jobs) -> None:
        assert await jobs.storage.workers("q") == []
        start = jobs.clock.now_ms()
        await jobs.put_all("abc")
        await jobs.claim(2, worker="w2")
        jobs.clock.move(1)
        (run,) = await jobs.claim(1, worker="w1")
        await jobs.exchange(worker="w3")
        expected = [
            WorkerInfo("w1", start + 1_000, 1),
            WorkerInfo("w2", start, 2),
            WorkerInfo("w3", start + 1_000, 0),
        ]
        assert await jobs.storage.workers("q") == expected
        assert await jobs.storage.workers("other") == []
        jobs.clock.move(1)
        await jobs.settle(run, Action.COMPLETE, b"")
        listed = await jobs.storage.workers("q")
        assert [(one.worker, one.running) for one in listed] == [("w", 0), ("w1", 0), ("w2", 2), ("w3", 0)]

    async def test_a_worker_is_seen_for_a_while(self, jobs: Jobs) -> None:
        await jobs.exchange(worker="w1")
        jobs.clock.move(1)
        await jobs.storage.extend("q", "w2", [], LEASE)
        jobs.clock.move(WORKER_SEEN_FOR / 1000 - 1.001)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w1", "w2"]
        jobs.clock.move(0.001)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w2"]
        await jobs.storage.purge("q", 10)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w2"]
        await jobs.storage.extend("q", "w1", [], LEASE)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w1", "w2"]
        jobs.clock.move(WORKER_SEEN_FOR / 1000)
        await jobs.storage.purge("q", 10)
        assert await jobs.storage.workers("q") == []

    async def test_a_worker_that_leaves_is_no_longer_listed(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one(worker="w1")
        await jobs.exchange(worker="w2")
        await jobs.storage.extend("q", "w1", [], 0)
        await jobs.storage.extend("q", "nobody", [], 0)
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w2"]
        assert await jobs.extend(run, worker="w1", lease=0) is LeaseStatus.HELD
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w1", "w2"]
        await jobs.storage.extend("q", "w1", [], 0)
        await jobs.exchange(worker="w1")
        assert [one.worker for one in await jobs.storage.workers("q")] == ["w1", "w2"]

    async def test_workers_alone_do_not_name_a_queue(self, jobs: Jobs) -> None:
        await jobs.storage.extend("q", "w1", [], LEASE)
        assert await jobs.storage.queues() == []

    async def test_a_sweep_takes_the_lease_off_its_worker(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.claim_one(worker="w1")
        await jobs.stall()
        assert [(one.worker, one.running) for one in await jobs.storage.workers("q")] == [("w1", 0)]
