"""Limits, for stores that have them: no claim hands out more than the rules of the queue allow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError, UnsupportedError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import Admission, Limiting
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Conflict, Limit, Rate, Rules, Usage
from jobqueue.testing.contract.arguments import TEXTS
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, WAIT, Box, Jobs, job, run_out, within_limit

__all__ = ["LimitCases", "limit", "limiting", "put_in"]

ONE_A_SECOND = Rate(1)
_BAD_FIELDS: list[tuple[Any, ...]] = [(0,), (-1,), (True,), (1.5,), ("3",), (None, 1), (None, (1, 1.0, 1))]
BAD_LIMITS: list[Any] = [None, (1, None), {"running": 1}, *(Limit(*fields) for fields in _BAD_FIELDS)]


def limiting(store: Storage) -> Limiting:
    """Return the store as one that has limits; skip the test of a store that has none."""
    if not isinstance(store, Limiting):
        pytest.skip("this store has no limits")
    return store


async def limit(jobs: Jobs, *, queue: Limit | None = None, group: Limit | None = None) -> None:
    """Set the limits of the queue and of each group."""
    rules = Rules(queue=queue or Limit(), group=group or Limit())
    assert await limiting(jobs.storage).set_rules(jobs.queue, rules)


async def use(jobs: Jobs, *groups: str) -> list[Usage]:
    return await limiting(jobs.storage).usage(jobs.queue, groups)


async def put_in(jobs: Jobs, group: str, ids: str, **fields: Any) -> None:
    """Insert jobs of a group, one for each character of ``ids``."""
    await jobs.put_all(ids, group=group, **fields)


class LimitCases(Cases):
    """Limits."""

    # -- running ----------------------------------------------------------------------------------

    async def test_no_more_jobs_run_than_the_queue_may(self, jobs: Jobs, other: Storage) -> None:
        await limit(jobs, queue=Limit(running=3))
        await jobs.put_all("abcde")
        assert await jobs.claim_ids() == ["a", "b", "c"]
        assert (await other.exchange("q", "v", [], 5, LEASE)).jobs == []
        assert await jobs.ids_in(JobState.QUEUED) == ["d", "e"]
        assert await use(jobs, "") == [Usage(3, None)]

    @pytest.mark.parametrize(
        "action", [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL]
    )
    @pytest.mark.parametrize("group", ["", "g"])
    async def test_a_run_that_ends_makes_room(self, jobs: Jobs, action: Action, group: str) -> None:
        await limit(jobs, queue=Limit(running=1), group=Limit(running=1))
        await put_in(jobs, group, "ab")
        run = await jobs.claim_one()
        assert await jobs.claim_ids() == []
        settlement = Settlement(run.id, run.fence, action, b"data", TTL, 1_000)
        (claimed,) = (await jobs.exchange(settlement, limit=5)).jobs
        assert claimed.id == ("a" if action is Action.RELEASE else "b")
        assert await jobs.claim_ids() == []
        assert await use(jobs, "", group) == [Usage(1, None)] * 2

    @pytest.mark.parametrize("action", [Action.COMPLETE, Action.FAIL, Action.CANCEL])
    async def test_a_run_that_is_waited_for_makes_room(self, jobs: Jobs, action: Action) -> None:
        await limit(jobs, group=Limit(running=1))
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        await jobs.insert(*(job(id, group="g", wait=True) for id in "ab"), reply_to="me")
        run = await jobs.claim_one()
        assert await jobs.claim_ids() == []
        await jobs.settle(run, action)
        assert await jobs.claim_ids() == ["b"]
        assert (await box.reply()).id == "a"
        assert await use(jobs, "g") == [Usage(1, None)]

    @pytest.mark.parametrize("group", ["", "g"])
    async def test_lost_leases_make_room_when_they_are_swept(self, jobs: Jobs, group: str) -> None:
        await limit(jobs, queue=Limit(running=2), group=Limit(running=2))
        await put_in(jobs, group, "ab", max_stalls=0)
        await put_in(jobs, group, "cd")
        assert await jobs.claim_ids() == ["a", "b"]
        await jobs.stall()
        assert await jobs.claim_ids() == ["c", "d"]
        await jobs.stall()
        assert await jobs.claim_ids() == ["c", "d"]
        assert await use(jobs, group) == [Usage(2, None)]

    async def test_a_late_settlement_makes_no_room_twice(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "abc")
        lost = await jobs.claim_one()
        await jobs.stall()
        await jobs.claim_one()
        assert await jobs.complete(lost) == "lost"
        assert await jobs.claim_ids() == []
        assert await use(jobs, "g") == [Usage(1, None)]

    async def test_a_running_job_that_is_asked_to_end_counts_until_it_does(self, jobs: Jobs) -> None:
        await limit(jobs, queue=Limit(running=1), group=Limit(running=1))
        await put_in(jobs, "g", "ab")
        run = await jobs.claim_one()
        await jobs.cancel("a", running=True)
        assert await jobs.claim_ids() == []
        assert await jobs.complete(run) == "cancelled"
        assert await jobs.claim_ids() == ["b"]

    @pytest.mark.parametrize("running", [1, 3, 4, 6, 7, 12, 13, 14])
    async def test_a_claim_of_many_starts_of_a_group_what_it_may(self, jobs: Jobs, running: int) -> None:
        await limit(jobs, group=Limit(running=running))
        for n in range(15):
            for group in "gh":
                await jobs.put(f"{group}{n}", group=group)
        started = ""
        for many in (1, 3, 6, 4, 20, 20):
            started += "".join(run.group for run in await jobs.claim(many))
            assert len(started) <= 2 * running
            assert abs(started.count("g") - started.count("h")) <= 1
        assert sorted(started) == ["g"] * running + ["h"] * running

    async def test_a_group_at_its_limit_holds_nobody_up(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "abc")
        await put_in(jobs, "h", "xy")
        await jobs.put_all("12")
        assert await jobs.claim_ids() == ["1", "a", "x", "2"]
        assert await use(jobs, "g", "h", "none", "") == [
            Usage(1, None), Usage(1, None), Usage(0, 0), Usage(4, 0),
        ]  # fmt: skip

    async def test_jobs_that_are_kept_back_are_queued_as_others(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "abcde")
        (run,) = await jobs.claim(5)
        assert await jobs.ids_in(JobState.QUEUED) == ["b", "c", "d", "e"]
        counts = await jobs.storage.counts("q")
        assert (counts.queued, counts.processing) == (4, 1)
        assert counts.oldest is not None
        assert await jobs.cancel("b") == "cancelled"
        (full,) = await jobs.insert(job("f"), max_length=3)
        assert full.status == "full"
        await jobs.complete(run)
        assert await jobs.claim_ids() == ["c"]

    async def test_the_limit_of_the_queue_holds_for_groups_too(self, jobs: Jobs) -> None:
        await limit(jobs, queue=Limit(running=3), group=Limit(running=2))
        await put_in(jobs, "g", "abc")
        await put_in(jobs, "h", "xyz")
        assert await jobs.claim_ids() == ["a", "x", "b"]
        assert await jobs.claim_ids() == []

    # -- rates ------------------------------------------------------------------------------------

    async def test_a_rate_spreads_starts(self, jobs: Jobs, other: Storage) -> None:
        await limit(jobs, queue=Limit(rate=Rate(2, per=1.0)))
        await jobs.put_all("abcd")
        answer = await jobs.exchange(limit=5)
        assert ([run.id for run in answer.jobs], answer.next_due) == (["a"], 500)
        assert await use(jobs, "") == [Usage(1, 500)]
        jobs.clock.move(0.499)
        answer = await other.exchange("q", "v", [], 5, LEASE)
        assert (answer.jobs, answer.next_due) == ([], 1)
        jobs.clock.move(0.001)
        assert await jobs.claim_ids() == ["b"]
        jobs.clock.move(10)
        assert await jobs.claim_ids() == ["c"]

    async def test_a_burst_may_follow_a_pause(self, jobs: Jobs) -> None:
        await limit(jobs, queue=Limit(rate=Rate(1, per=1.0, burst=3)))
        await jobs.put_all("abcdefg")
        assert await jobs.claim_ids() == ["a", "b", "c"]
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ["d"]
        jobs.clock.move(100)
        assert await jobs.claim_ids() == ["e", "f", "g"]

    async def test_a_claim_uses_up_what_it_starts_and_no_more(self, jobs: Jobs) -> None:
        await limit(jobs, queue=Limit(rate=Rate(1, burst=3)), group=Limit(running=1))
        await jobs.put("a", group="g")
        await jobs.put("b", group="g")
        assert await jobs.claim_ids() == ["a"]
        await jobs.put_all("cd")
        assert await jobs.claim_ids() == ["c", "d"]

    @pytest.mark.parametrize("delay", [0, 1_000])
    async def test_a_job_that_gets_a_group_while_it_waits_counts_in_it(self, jobs: Jobs, delay: int) -> None:
        limiting(jobs.storage)
        await jobs.put("a", delay=delay)
        await jobs.put("a", delay=delay, group="g", conflict=Conflict.REPLACE)
        jobs.clock.move(delay / 1000)
        assert await jobs.claim_ids() == ["a"]
        assert await use(jobs, "g") == [Usage(1, 0)]

    async def test_each_group_has_a_rate_of_its_own(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(rate=ONE_A_SECOND))
        await put_in(jobs, "g", "abc")
        await put_in(jobs, "h", "xy")
        answer = await jobs.exchange(limit=5)
        assert ([run.id for run in answer.jobs], answer.next_due) == (["a", "x"], 1_000)
        jobs.clock.move(0.4)
        await put_in(jobs, "i", "12")
        answer = await jobs.exchange(limit=5)
        assert ([run.id for run in answer.jobs], answer.next_due) == (["1"], 600)
        jobs.clock.move(0.6)
        answer = await jobs.exchange(limit=5)
        assert ([run.id for run in answer.jobs], answer.next_due) == (["b", "y"], 400)

    async def test_a_group_remembers_its_rate_when_it_is_empty(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(rate=ONE_A_SECOND))
        await put_in(jobs, "g", "a")
        await jobs.complete(await jobs.claim_one())
        await put_in(jobs, "g", "b")
        answer = await jobs.exchange(limit=1)
        assert (answer.jobs, answer.next_due) == ([], 1_000)
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ["b"]

    async def test_the_next_due_job_may_come_before_the_rate_opens(self, jobs: Jobs) -> None:
        await limit(jobs, queue=Limit(rate=Rate(1, per=5.0)))
        await jobs.put("a")
        await jobs.put("later", delay=2_000)
        assert (await jobs.exchange(limit=5)).next_due == 2_000
        await jobs.put("b")
        assert (await jobs.exchange(limit=5)).next_due == 2_000
        jobs.clock.move(3)
        answer = await jobs.exchange(limit=5)
        assert (answer.jobs, answer.next_due) == ([], 2_000)

    async def test_a_released_job_has_used_up_its_start(self, jobs: Jobs) -> None:
        await limit(jobs, queue=Limit(rate=ONE_A_SECOND))
        await jobs.put("a")
        run = await jobs.claim_one()
        assert await jobs.settle(run, Action.RELEASE) == "accepted"
        assert await jobs.claim_ids() == []
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ["a"]

    # -- changing them ----------------------------------------------------------------------------

    async def test_limits_take_effect_at_the_next_claim(self, jobs: Jobs) -> None:
        await jobs.put_all("abcdef")
        await put_in(jobs, "g", "tuvwxyz")
        assert len(await jobs.claim(4)) == 4
        await limit(jobs, queue=Limit(running=5))
        assert len(await jobs.claim_ids()) == 1
        await limit(jobs, queue=Limit(running=2))
        assert await jobs.claim_ids() == []
        await limit(jobs, group=Limit(running=4))
        assert len(await jobs.claim_ids()) == 5
        await limit(jobs, group=Limit(running=5))
        assert len(await jobs.claim_ids()) == 1
        assert await limiting(jobs.storage).set_rules("q", None)
        assert len(await jobs.claim_ids()) == 2

    async def test_a_faster_rate_is_not_waited_for(self, jobs: Jobs) -> None:
        await jobs.put_all("abc")
        await put_in(jobs, "g", "xyz")
        slow = Limit(rate=Rate(1, per=86_400.0))
        await limit(jobs, queue=slow, group=slow)
        assert await jobs.claim_ids() == ["a"]
        fast = Limit(rate=Rate(1, per=1.0, burst=1))
        await limit(jobs, queue=fast, group=fast)
        for _ in range(3):
            jobs.clock.move(2)
            await jobs.claim_ids()
        assert len(await jobs.ids_in(JobState.PROCESSING)) >= 3

    async def test_jobs_with_a_group_need_no_limit(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "ab")
        assert await jobs.claim_ids() == ["a", "b"]
        await limit(jobs, group=Limit(running=3))
        await put_in(jobs, "g", "cd")
        assert await jobs.claim_ids() == ["c"]

    async def test_rules_come_back_as_they_were_set(self, jobs: Jobs, other: Storage) -> None:
        store = limiting(jobs.storage)
        rules = Rules(
            queue=Limit(running=7, rate=Rate(100, per=60.0, burst=5)),
            group=Limit(rate=Rate(1_000, per=0.5)),
            operator=True,
        )
        assert await store.set_rules("q", rules, expected=Rules())
        assert (await limiting(other).get_rules("q")).rules == rules
        assert not await store.set_rules("q", None, expected=rules._replace(operator=False))
        assert await store.set_rules("q", rules._replace(paused=True), expected=rules)
        assert (await jobs.exchange(limit=1)).paused

    async def test_a_store_without_limits_refuses_them(self, jobs: Jobs) -> None:
        store = jobs.storage
        if isinstance(store, Limiting) or not isinstance(store, Admission):
            pytest.skip("this store has limits, or no rules at all")
        for rules in (Rules(queue=Limit(running=1)), Rules(paused=True, group=Limit(rate=ONE_A_SECOND))):
            with pytest.raises(UnsupportedError, match="limits"):
                await store.set_rules("q", rules)
        assert (await store.get_rules("q")).rules == Rules()

    # -- races ------------------------------------------------------------------------------------

    async def test_workers_that_claim_at_once_keep_the_limits(self, jobs: Jobs, other: Storage) -> None:
        await limit(jobs, queue=Limit(running=5), group=Limit(running=2))
        for n in range(20):
            await jobs.put(f"{n}", group=f"g{n % 3}")
        stores = (jobs.storage, other) * 3
        for _ in range(4):
            claims = await within_limit(
                asyncio.gather(
                    *(store.exchange("q", f"w{n}", [], 3, LEASE) for n, store in enumerate(stores))
                )
            )
            runs = [run for claim in claims for run in claim.jobs]
            assert len(runs) == 5
            groups = [run.group for run in runs]
            assert max(groups.count(group) for group in groups) <= 2
            done = [Settlement(run.id, run.fence, Action.COMPLETE, b"", TTL) for run in runs]
            await other.exchange("q", "w", done, 0, LEASE)

    # -- waiting ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("group", ["", "g"])
    async def test_jobs_that_may_not_start_end_no_wait(self, jobs: Jobs, group: str) -> None:
        await limit(jobs, queue=Limit(running=1), group=Limit(running=1))
        await put_in(jobs, group, "abc")
        await jobs.claim_one()
        await jobs.exchange(limit=1)
        for _ in range(20):
            wait = jobs.storage.wait_for_work(jobs.queue, "w", 0.01)
            if not await run_out(jobs.clock, wait, 0.01):
                return
        pytest.fail("20 waits for work that may not start all said that there may be some")

    @pytest.mark.parametrize("group", ["", "g"])
    async def test_who_waits_is_woken_when_a_run_ends(self, jobs: Jobs, other: Storage, group: str) -> None:
        await limit(jobs, queue=Limit(running=1), group=Limit(running=1))
        await put_in(jobs, group, "ab")
        run = await jobs.claim_one()
        assert (await other.exchange("q", "idle", [], 1, LEASE)).jobs == []
        wait = asyncio.create_task(other.wait_for_work("q", "idle", WAIT))
        await jobs.clock.settle()
        await jobs.complete(run)
        assert await within_limit(wait) is True
        assert [run.id for run in (await other.exchange("q", "idle", [], 1, LEASE)).jobs] == ["b"]

    async def test_who_waits_is_woken_when_a_lost_lease_is_swept(self, jobs: Jobs, other: Storage) -> None:
        await limit(jobs, queue=Limit(running=1))
        await jobs.put("a", max_stalls=0)
        await jobs.put("b")
        await jobs.claim_one(lease=1_000)
        assert (await other.exchange("q", "idle", [], 1, LEASE)).jobs == []
        wait = asyncio.create_task(other.wait_for_work("q", "idle", WAIT))
        await jobs.clock.settle()
        await jobs.stall(1_000)
        assert await within_limit(wait) is True

    async def test_who_waits_is_woken_when_limits_are_lifted(self, jobs: Jobs, other: Storage) -> None:
        await limit(jobs, queue=Limit(running=1), group=Limit(running=1))
        await put_in(jobs, "g", "ab")
        await jobs.claim_one()
        assert (await other.exchange("q", "idle", [], 1, LEASE)).jobs == []
        wait = asyncio.create_task(other.wait_for_work("q", "idle", WAIT))
        await jobs.clock.settle()
        await limiting(jobs.storage).set_rules("q", None)
        assert await within_limit(wait) is True

    # -- arguments --------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", ["queue", "group"])
    async def test_a_bad_limit_is_refused(self, jobs: Jobs, name: str) -> None:
        store = limiting(jobs.storage)
        for value in BAD_LIMITS:
            with pytest.raises(InvalidArgumentError) as caught:
                await store.set_rules("q", Rules()._replace(**{name: value}))
            assert caught.value.argument.startswith(f"rules.{name}"), value
        assert (await store.get_rules("q")).rules == Rules()

    async def test_a_bad_weight_is_refused(self, jobs: Jobs) -> None:
        for weight in (0, -1, 101, True, 1.5, None, "2"):
            with pytest.raises(InvalidArgumentError, match="weight"):
                await jobs.put("a", group="g", weight=weight)
        assert await jobs.find("a") is None

    @pytest.mark.parametrize("bad", [*(text for text in TEXTS if text != ""), 5])
    async def test_a_bad_group_has_no_usage(self, jobs: Jobs, bad: Any) -> None:
        store = limiting(jobs.storage)
        with pytest.raises(InvalidArgumentError):
            await store.usage("q", [bad])
        with pytest.raises(InvalidArgumentError):
            await store.usage("a b", ["g"])
