"""Turns, for stores that have limits: groups share a queue fairly."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.capabilities import Revival
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Conflict, Counts, Limit, NewJob, Rules, Usage
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.limits import limit, limiting, put_in
from jobqueue.testing.contract.support import LEASE, TTL, Jobs, job
from jobqueue.testing.reference import Reference

__all__ = ["TurnCases"]

RULES = (
    None,
    *(Rules(group=Limit(running=most)) for most in (1, 2, 3, 5)),
    Rules(queue=Limit(running=8), group=Limit(running=3)),
)


def _batches(draw: random.Random, weights: tuple[int, ...]) -> Iterator[list[NewJob]]:
    """Yield jobs of a few groups, of some without one, and of one or two priorities."""
    groups = "abcdef"[: draw.choice((1, 2, 3, 6))] + draw.choice(("", "--"))
    priorities = draw.choice(((0,), (0, 1)))
    number = 0
    while True:
        batch: list[NewJob] = []
        for _ in range(draw.choice((1, 2, 5))):
            group = draw.choice(groups).strip("-")
            weight = draw.choice(weights) if group else 1
            batch.append(job(f"{number}", group=group, weight=weight, priority=draw.choice(priorities)))
            number += 1
        yield batch


class TurnCases(Cases):
    """Turns."""

    async def test_groups_take_turns(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "abcd")
        await put_in(jobs, "h", "xy")
        await put_in(jobs, "i", "1")
        assert await jobs.claim_ids() == ["a", "x", "1", "b", "y", "c", "d"]

    async def test_turns_go_on_from_claim_to_claim(self, jobs: Jobs, other: Storage) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "abcd")
        await put_in(jobs, "h", "xyz")
        claimed: list[str] = []
        for n in range(7):
            store = (jobs.storage, other)[n % 2]
            claimed += [run.id for run in (await store.exchange("q", "w", [], 1, LEASE)).jobs]
        assert claimed == ["a", "x", "b", "y", "c", "z", "d"]

    async def test_jobs_without_a_group_take_turns_as_one(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "abc")
        await jobs.put_all("123")
        await put_in(jobs, "h", "x")
        assert await jobs.claim_ids() == ["1", "a", "x", "2", "b", "3", "c"]

    async def test_who_comes_later_waits_one_turn_of_each(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await jobs.insert(*(job(f"g{n}", group="g") for n in range(50)))
        await put_in(jobs, "h", "xy")
        assert len(await jobs.claim(3)) == 3
        await put_in(jobs, "i", "1")
        assert "1" in [run.id for run in await jobs.claim(3)]

    async def test_priorities_come_before_turns(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "ab")
        await put_in(jobs, "h", "xy")
        await put_in(jobs, "g", "AB", priority=5)
        await jobs.put("0", priority=-5)
        await put_in(jobs, "h", "Z", priority=-5)
        assert await jobs.claim_ids() == ["A", "B", "a", "x", "b", "y", "0", "Z"]

    async def test_a_group_at_its_limit_lets_lower_priorities_pass(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "ABC", priority=5)
        await put_in(jobs, "h", "x")
        assert await jobs.claim_ids() == ["A", "x"]

    async def test_a_weight_is_a_number_of_jobs_in_a_turn(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "paying", "abcdef", weight=2)
        await put_in(jobs, "g", "xyz")
        assert await jobs.claim_ids(4) == ["a", "b", "x", "c"]
        assert await jobs.claim_ids() == ["d", "y", "e", "f", "z"]

    @pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (1, 3)])
    @pytest.mark.parametrize("seed", range(8))
    async def test_turns_are_those_of_the_reference(
        self, jobs: Jobs, seed: int, weights: tuple[int, ...]
    ) -> None:
        """Small claims, since what a claim cannot see of the lines behind must not matter."""
        store, reference = limiting(jobs.storage), Reference()
        reference.limiting = True
        draw = random.Random(f"{seed} {weights}")  # noqa: S311 - to be repeatable
        batches, runs, started = _batches(draw, weights), list[Settlement](), 0
        for step in range(60):
            now = int(jobs.clock.time() * 1000)
            match draw.choices(("insert", "claim", "end", "limit"), (8, 8, 2, 1))[0]:
                case "insert":
                    batch = next(batches)
                    await jobs.insert(*batch)
                    reference.insert(jobs.queue, batch, now, None, None)
                case "claim":
                    most = draw.choice((1, 1, 2, 3, 5))
                    known = [run.id for run in reference.exchange(jobs.queue, "w", [], most, LEASE, now).jobs]
                    claimed = await jobs.claim(most)
                    assert [run.id for run in claimed] == known, f"step {step}"
                    action = draw.choice((Action.COMPLETE, Action.RELEASE))
                    runs += [Settlement(run.id, run.fence, action, b"", TTL) for run in claimed]
                    started += len(claimed)
                case "end" if runs:
                    run = runs.pop(draw.randrange(len(runs)))
                    (entry,) = (one for one in reference.jobs if one.new.id == run.id)
                    await jobs.exchange(run)
                    reference.exchange(jobs.queue, "w", [run._replace(fence=entry.fence)], 0, LEASE, now)
                case _:
                    rules = draw.choice(RULES)
                    await store.set_rules(jobs.queue, rules)
                    reference.set_rules(jobs.queue, rules, None)
        assert started

    async def test_it_is_no_turn_if_nobody_else_could_take_one(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "ab")
        await jobs.put_all("1234")
        assert await jobs.claim_ids(1) == ["1"]
        (run,) = await jobs.claim(1)
        assert run.id == "a"
        assert [await jobs.claim_ids(1) for _ in "23"] == [["2"], ["3"]]
        await jobs.complete(run)
        assert await jobs.claim_ids() == ["4", "b"]

    async def test_jobs_that_come_in_the_middle_of_a_turn_go_on_with_it(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "paying", "a", weight=3)
        await put_in(jobs, "g", "wxyz")
        await put_in(jobs, "paying", "b")
        assert await jobs.claim_ids(1) == ["a"]
        await put_in(jobs, "paying", "cdef")
        claimed = [id for _ in range(9) for id in await jobs.claim_ids(1)]
        assert claimed == ["b", "c", "w", "d", "x", "e", "y", "f", "z"]

    async def test_a_turn_that_has_ended_leaves_nothing_for_the_next(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "paying", "ab", weight=2)
        await put_in(jobs, "g", "vwxyz")
        assert await jobs.claim_ids(1) == ["a"]
        await put_in(jobs, "paying", "cdef", weight=3)
        claimed = [id for many in (1, 1, 1, 3, 3) for id in await jobs.claim_ids(many)]
        assert claimed == ["b", "v", "c", "d", "e", "w", "f", "x", "y"]

    @pytest.mark.parametrize("weight", [1, 7])
    @pytest.mark.parametrize("limit", [1, 10])
    async def test_long_lines_are_worked_off_to_their_end(self, jobs: Jobs, weight: int, limit: int) -> None:
        limiting(jobs.storage)
        lines = {group: [f"{group}{n:02}" for n in range(40)] for group in "gh"}
        for group, ids in lines.items():
            await jobs.insert(*(job(id, group=group, weight=weight) for id in ids))
        claimed: list[str] = []
        while some := await jobs.claim_ids(limit):
            claimed += some
        turns = range(0, 40, weight)
        assert claimed == [id for n in turns for ids in lines.values() for id in ids[n : n + weight]]

    async def test_a_weight_is_worth_nothing_beyond_the_limit(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "paying", "abc", weight=3)
        await put_in(jobs, "g", "x")
        assert await jobs.claim_ids() == ["a", "x"]

    async def test_a_group_keeps_its_turn_while_it_is_at_its_limit(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "ab")
        await put_in(jobs, "h", "x")
        run, _ = await jobs.claim(5)
        await put_in(jobs, "i", "1")
        await jobs.complete(run)
        assert await jobs.claim_ids() == ["b", "1"]

    async def test_within_a_group_jobs_keep_their_order(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "abcd")
        first, second = await jobs.claim(2)
        for run in (second, first):
            assert await jobs.settle(run, Action.RELEASE) == "accepted"
        assert await jobs.claim_ids() == ["a", "b", "c", "d"]
        await jobs.stall()
        assert await jobs.claim_ids() == ["a", "b", "c", "d"]

    async def test_jobs_join_their_group_when_they_are_due(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "a", delay=1_000)
        await put_in(jobs, "h", "xy")
        await put_in(jobs, "g", "b")
        jobs.clock.move(1)
        assert await jobs.claim_ids() == ["x", "b", "y", "a"]

    async def test_a_replaced_job_moves_to_its_new_group(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "ab")
        assert await jobs.claim_ids() == ["a"]
        await jobs.put("b", group="h", conflict=Conflict.REPLACE)
        assert await jobs.claim_ids() == ["b"]
        record = await jobs.record("b")
        assert record.group == "h"

    async def test_a_replaced_job_has_the_weight_of_the_new_one(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "abc")
        await put_in(jobs, "h", "xyz")
        assert await jobs.claim_ids(1) == ["a"]
        await jobs.put("b", group="g", weight=2, conflict=Conflict.REPLACE)
        assert await jobs.claim_ids(1) == ["x"]
        await jobs.put("y", group="h", weight=3, conflict=Conflict.REPLACE)
        assert await jobs.claim_ids() == ["b", "c", "y", "z"]
        assert await jobs.ids_in(JobState.QUEUED) == []

    async def test_revived_jobs_count_in_their_group(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        await put_in(jobs, "g", "ab")
        await jobs.settle(await jobs.claim_one(), Action.FAIL)
        if not isinstance(jobs.storage, Revival):
            pytest.skip("this store cannot run failed jobs again")
        assert await jobs.storage.revive("q", ["a"]) == [True]
        assert await jobs.claim_ids() == ["b"]
        await jobs.stall()
        assert await jobs.storage.forget("q", ["b"]) == [True]
        assert await jobs.claim_ids() == ["a"]

    async def test_queues_have_turns_of_their_own(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        other = jobs.at("other")
        await put_in(jobs, "g", "ab")
        await put_in(other, "g", "ab")
        assert await jobs.claim_ids() == ["a"]
        assert await other.claim_ids() == ["a", "b"]

    async def test_nothing_is_left_of_groups_that_are_done(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        for n in range(20):
            await jobs.put(f"{n}", group=f"g{n}", ttl=0)
        await jobs.cancel("0")
        runs = await jobs.claim(30)
        assert len(runs) == 19
        for run in runs:
            await jobs.complete(run, ttl=0)
        assert await limiting(jobs.storage).set_rules("q", None)
        jobs.clock.move(TTL / 1000 + 3_600)
        while await jobs.storage.purge("q", 100):
            pass
        assert await jobs.storage.counts("q") == Counts()
        assert await jobs.storage.queues() == []
        usage = await limiting(jobs.storage).usage("q", [f"g{n}" for n in range(20)])
        assert usage == [Usage(0, 0)] * 20

    async def test_groups_may_have_any_name(self, jobs: Jobs) -> None:
        await limit(jobs, group=Limit(running=1))
        names = ["a", "aa", "a:b", "a{b}", "ä", "日本", "x" * 256, " ", "'; drop", "%41", "a/../b"]
        for n, name in enumerate(names):
            await jobs.insert(*(job(f"{n}-{m}", group=name) for m in range(2)))
        claimed = await jobs.claim(100)
        assert [run.group for run in claimed] == names
        assert [run.id for run in claimed] == [f"{n}-0" for n in range(len(names))]

    async def test_a_cleared_line_ends_its_turn(self, jobs: Jobs) -> None:
        limiting(jobs.storage)
        await put_in(jobs, "g", "ab")
        await put_in(jobs, "h", "x")
        for id in "ab":
            await jobs.cancel(id)
        await put_in(jobs, "g", "c")
        assert await jobs.claim_ids() == ["x", "c"]
        assert await jobs.ids_in(JobState.QUEUED) == []

    async def test_pause_holds_for_groups(self, jobs: Jobs) -> None:
        await put_in(jobs, "g", "ab")
        assert await limiting(jobs.storage).set_rules("q", Rules(paused=True))
        assert (await jobs.exchange(limit=5)).paused
        assert await limiting(jobs.storage).set_rules("q", None)
        assert await jobs.claim_ids() == ["a", "b"]
