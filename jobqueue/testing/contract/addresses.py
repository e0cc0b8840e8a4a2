"""Replies go to the address that waits, through every handle and to every sink that subscribed to it."""

from __future__ import annotations

import pytest

from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Reply
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, Box, Jobs, expect_only, job, waiting

__all__ = ["AddressCases"]


class AddressCases(Cases):
    """Addresses and sinks of replies."""

    async def test_replies_go_to_their_address_only(self, jobs: Jobs) -> None:
        mine, _ = await waiting(jobs, "a", address="me")
        yours, _ = await waiting(jobs, "b", address="you")
        for run in await jobs.claim(2):
            await jobs.complete(run)
        assert (await mine.reply()).id == "a"
        assert (await yours.reply()).id == "b"

    async def test_replies_come_from_every_queue_that_was_subscribed_to(self, jobs: Jobs) -> None:
        box = Box()
        for queue in ("q1", "q2"):
            await jobs.storage.subscribe(queue, "me", box)
        for queue in ("q1", "q2"):
            there = jobs.at(queue)
            await there.insert(job("a", wait=True), reply_to="me")
            await there.complete(await there.claim_one())
        await box.take(replies=2)
        assert sorted(reply.queue for reply in box.replies) == ["q1", "q2"]

    async def test_replies_come_from_the_queue_that_was_subscribed_to_only(self, jobs: Jobs) -> None:
        box, both = Box(), Box()
        for queue in ("q1", "q2"):
            await jobs.storage.subscribe(queue, "me", both)
        await jobs.storage.subscribe("q1", "me", box)
        await jobs.storage.unsubscribe("q2", "me", box)
        for queue in ("q2", "q1"):
            there = jobs.at(queue)
            await there.insert(job("a", wait=True), reply_to="me")
            run = await there.claim_one(worker="me")
            await there.cancel("a", running=True)
            await there.settle(run, Action.CANCEL)
        await both.take(replies=2, cancels=2)
        await box.take(replies=1, cancels=1)
        assert [reply.queue for reply in box.replies] == ["q1"]
        assert [cancel[0] for cancel in box.cancels] == ["q1"]

    async def test_replies_reach_another_handle(self, jobs: Jobs, other: Storage) -> None:
        box = Box()
        await other.subscribe("q", "me", box)
        await other.insert("q", [job("a", wait=True)], reply_to="me")
        await jobs.complete(await jobs.claim_one())
        assert (await box.reply()).data == b"result"

    async def test_an_address_may_have_several_sinks(self, jobs: Jobs) -> None:
        first, inserted = await waiting(jobs)
        second = Box()
        await jobs.storage.subscribe("q", "me", second)
        await jobs.complete(await jobs.claim_one())
        reply = Reply("q", "a", inserted.seq, JobState.COMPLETED, b"result", 1)
        assert await first.reply() == reply
        assert await second.reply() == reply

    async def test_a_sink_that_subscribes_twice_is_told_once(self, jobs: Jobs) -> None:
        box, _ = await waiting(jobs)
        await jobs.storage.subscribe("q", "me", box)
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, box, ["a"])

    async def test_after_unsubscribing_nothing_comes(self, jobs: Jobs) -> None:
        gone, _ = await waiting(jobs)
        stays = Box()
        await jobs.storage.subscribe("q", "me", stays)
        for _ in range(2):
            await jobs.storage.unsubscribe("q", "me", gone)
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, stays, ["a"])
        assert gone.replies == []

    async def test_of_two_who_wait_one_may_leave(self, jobs: Jobs) -> None:
        leaves, _ = await waiting(jobs, address="leaves")
        stays = Box()
        await jobs.storage.subscribe("q", "me", stays)
        await jobs.insert(job("a", wait=True), reply_to="me")
        await jobs.storage.unsubscribe("q", "leaves", leaves)
        await jobs.complete(await jobs.claim_one())
        await expect_only(jobs, stays, ["a"])
        assert leaves.replies == []

    async def test_unsubscribing_what_is_not_subscribed_is_harmless(self, jobs: Jobs) -> None:
        box, _ = await waiting(jobs)
        await jobs.storage.unsubscribe("q", "me", Box())
        await jobs.storage.unsubscribe("q", "never", box)
        await jobs.complete(await jobs.claim_one())
        assert (await box.reply()).id == "a"
        await jobs.storage.unsubscribe("q", "me", box)
        await jobs.storage.unsubscribe("q", "me", box)
        await jobs.storage.subscribe("q", "me", box)
        await jobs.insert(job("b", wait=True), reply_to="me")
        await jobs.complete(await jobs.claim_one())
        await box.take(replies=2)
        assert [reply.id for reply in box.replies] == ["a", "b"]

    @pytest.mark.parametrize("address", ["w:1", "a b", "{x}", "*", "../up", "naïve-☃", "h" * 200])
    async def test_any_address(self, jobs: Jobs, address: str) -> None:
        box, _ = await waiting(jobs, address=address)
        run = await jobs.claim_one(worker=address, lease=LEASE)
        await jobs.cancel("a", running=True)
        await jobs.settle(run, Action.CANCEL)
        await box.take(replies=1, cancels=1)
        assert set(box.cancels) == {("q", "a", run.fence)}
