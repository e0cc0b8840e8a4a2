"""Jobs that come with a settlement."""

from __future__ import annotations

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Claimed, InsertStatus, Reuse, SettleStatus
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, TTL, WAIT, Box, Jobs, job, within_limit

__all__ = ["ThenCases"]


def done(run: Claimed, *then: str, action: Action = Action.COMPLETE) -> Settlement:
    return Settlement(run.id, run.fence, action, b"x", TTL, 0, b"", tuple(job(id) for id in then))


class ThenCases(Cases):
    """Jobs that come with a settlement."""

    @pytest.mark.parametrize("action", [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE])
    async def test_an_accepted_settlement_inserts_its_jobs(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        later = job("later", delay=5_000)
        whole = job("whole", ALL_BYTES, priority=7, headers=ALL_BYTES, task="t", group="g", max_attempts=9)
        status = await jobs.settle(run, action, b"x", then=[whole, later])
        assert status is SettleStatus.ACCEPTED
        assert await jobs.state("later") is JobState.SCHEDULED
        claimed = await jobs.claim_one()
        assert (claimed.id, claimed.payload, claimed.max_attempts) == ("whole", ALL_BYTES, 9)
        assert (claimed.headers, claimed.task, claimed.group) == (ALL_BYTES, "t", "g")

    async def test_they_can_be_claimed_by_the_same_exchange(self, jobs: Jobs) -> None:
        await jobs.put("a")
        answer = await jobs.exchange(done(await jobs.claim_one(), "b", "c"), limit=9)
        assert [run.id for run in answer.jobs] == ["b", "c"]

    async def test_a_repeat_inserts_nothing_more(self, jobs: Jobs) -> None:
        await jobs.put("a")
        settlement = done(await jobs.claim_one(), "b")
        assert (await jobs.exchange(settlement)).settled == [SettleStatus.ACCEPTED]
        await jobs.complete(await jobs.claim_one(), ttl=1)
        jobs.clock.move(1)
        assert (await jobs.exchange(settlement)).settled == [SettleStatus.ACCEPTED]
        assert await jobs.find("b") is None

    async def test_a_lost_settlement_inserts_nothing(self, jobs: Jobs) -> None:
        await jobs.put("a", max_stalls=9)
        run = await jobs.claim_one()
        await jobs.stall()
        assert (await jobs.exchange(done(run, "b"))).settled == [SettleStatus.LOST]
        unknown = run._replace(id="unknown")
        assert (await jobs.exchange(done(unknown, "b"))).settled == [SettleStatus.LOST]
        assert await jobs.find("b") is None

    @pytest.mark.parametrize("requested", [False, True])
    async def test_a_cancelled_settlement_inserts_nothing(self, jobs: Jobs, requested: bool) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        if requested:
            await jobs.cancel("a", running=True)
        action = Action.COMPLETE if requested else Action.CANCEL
        assert (await jobs.exchange(done(run, "b", action=action))).settled == [SettleStatus.CANCELLED]
        assert await jobs.find("b") is None

    async def test_one_settlement_of_a_call_does_not_touch_the_others(self, jobs: Jobs) -> None:
        await jobs.put_all("abc")
        a, b, c = await jobs.claim(3)
        lost = b._replace(fence=b.fence + 1000)
        answer = await jobs.exchange(done(a, "a2"), done(lost, "b2"), done(c, "c2"))
        assert answer.settled == [SettleStatus.ACCEPTED, SettleStatus.LOST, SettleStatus.ACCEPTED]
        assert await jobs.claim_ids() == ["a2", "c2"]

    async def test_jobs_that_exist_are_found_and_stay(self, jobs: Jobs) -> None:
        before = await jobs.put("b", payload=b"old")
        await jobs.put("a", priority=1)
        run = await jobs.claim_one()
        await jobs.settle(run, Action.COMPLETE, then=[job("b", b"new"), job("c"), job("c", b"twice")])
        record = await jobs.record("b", payload=True)
        assert (record.seq, record.payload) == (before.seq, b"old")
        assert [(one.id, one.payload) for one in await jobs.claim(9)] == [("b", b"old"), ("c", b"payload")]

    async def test_settlements_and_their_jobs_are_written_in_order(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        a, b = await jobs.claim(2)
        again = (job("b", reuse=Reuse.RERUN), job("a", b"next", reuse=Reuse.RERUN))
        one = Settlement("a", a.fence, Action.COMPLETE, b"r", TTL, then=again)
        await jobs.exchange(one, Settlement("b", b.fence, Action.COMPLETE, b"r", TTL))
        assert await jobs.state("b") is JobState.COMPLETED  # it ran when "a" was settled
        record = await jobs.record("a", payload=True)
        assert (record.state, record.payload) == (JobState.QUEUED, b"next")
        assert (await jobs.put("a")).status is InsertStatus.FOUND

    async def test_a_run_that_is_settled_twice_in_one_call(self, jobs: Jobs) -> None:
        """The second time it is answered by what is there by then: perhaps a newer job of its id."""
        await jobs.put_all("abcd")
        a, b, c, d = await jobs.claim(4)
        again = (job("a", b"next", reuse=Reuse.RERUN), job("c", b"next", reuse=Reuse.RERUN))
        twice = Settlement("c", c.fence, Action.COMPLETE, b"r", TTL)
        answer = await jobs.exchange(
            twice,
            twice,
            Settlement("a", a.fence, Action.COMPLETE, b"r", TTL, then=again),
            done(a, "other"),
            Settlement("a", a.fence, Action.RELEASE),
            Settlement("b", b.fence, Action.RELEASE),
            done(b, "other"),
            Settlement("d", d.fence, Action.COMPLETE, b"r", TTL),
            Settlement("d", d.fence, Action.RELEASE),
            twice,
        )
        accepted, lost = SettleStatus.ACCEPTED, SettleStatus.LOST
        assert answer.settled == [
            accepted, accepted, accepted, lost, lost, accepted, accepted, accepted, accepted, lost
        ]  # fmt: skip
        assert await jobs.claim_ids(9) == ["b", "a", "c"]
        assert await jobs.state("d") is JobState.COMPLETED

    async def test_waiters_of_a_job_that_follows_itself_have_the_outcome(self, jobs: Jobs) -> None:
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        await jobs.insert(job("a", wait=True), reply_to="me")
        run = await jobs.claim_one()
        await jobs.settle(run, Action.COMPLETE, b"r", then=[job("a", reuse=Reuse.RERUN)])
        reply = await box.reply()
        assert (reply.state, reply.data, reply.seq) == (JobState.COMPLETED, b"r", run.seq)
        assert (await jobs.record("a")).seq > run.seq

    async def test_a_waiting_worker_is_woken(self, jobs: Jobs, other: Storage) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        woken = within_limit(other.wait_for_work("q", "idle", WAIT))
        await jobs.settle(run, Action.COMPLETE, then=[job("b")])
        assert await woken is True

    async def test_many_jobs_come_with_one_settlement(self, jobs: Jobs) -> None:
        ids = [f"job-{n}" for n in range(1_200)]
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.settle(run, Action.COMPLETE, then=[job(id, bytes(1_000)) for id in ids])
        assert await jobs.claim_ids(2_000) == ids
