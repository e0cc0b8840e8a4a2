"""Leases: renewing them, and losing them."""

from __future__ import annotations

import pytest

from jobqueue.model.states import Action
from jobqueue.storage.values import LeaseStatus, Renewal
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, Jobs

__all__ = ["LeaseCases"]

HELD, CANCELLING, LOST = LeaseStatus.HELD, LeaseStatus.CANCELLING, LeaseStatus.LOST


class LeaseCases(Cases):
    """Leases."""

    async def test_extend(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        before = await jobs.record("a")
        jobs.clock.move(20)
        assert await jobs.extend(run, lease=5_000) is HELD
        record = await jobs.record("a")
        assert record.lease_until == jobs.clock.now_ms() + 5_000
        assert record == before._replace(lease_until=record.lease_until, updated_at=record.updated_at)

    async def test_an_extended_lease_outlives_its_first_end(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        jobs.clock.move(LEASE / 1000 - 1)
        await jobs.extend(run)
        jobs.clock.move(LEASE / 1000 - 0.001)
        assert await jobs.storage.sweep("q", 10) == []
        jobs.clock.move(0.001)
        assert [swept.id for swept in await jobs.storage.sweep("q", 10)] == ["a"]

    async def test_a_shortened_lease_ends_early(self, jobs: Jobs) -> None:
        await jobs.put("a")
        await jobs.extend(await jobs.claim_one(), lease=10)
        jobs.clock.move(0.010)
        assert len(await jobs.storage.sweep("q", 10)) == 1

    async def test_extend_writes_progress(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        seen: list[bytes | None] = []
        for progress in (None, b"10%", None, b"", b"\x00\xff", None):
            assert await jobs.extend(run, progress) is HELD
            seen.append((await jobs.record("a")).progress)
        assert seen == [None, b"10%", b"10%", b"", b"\x00\xff", b"\x00\xff"]

    @pytest.mark.parametrize("action", [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE])
    async def test_a_settled_lease_is_lost(self, jobs: Jobs, action: Action) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        await jobs.settle(run, action, b"x", delay=1_000)
        before = await jobs.record("a", payload=True)
        assert await jobs.extend(run, b"late") is LOST
        assert await jobs.record("a", payload=True) == before

    async def test_a_swept_lease_is_lost(self, jobs: Jobs) -> None:
        await jobs.put("a")
        old = await jobs.claim_one(worker="w1")
        await jobs.stall()
        assert await jobs.extend(old, b"late", worker="w1") is LOST
        new = await jobs.claim_one(worker="w2")
        before = await jobs.record("a")
        assert await jobs.extend(old, b"late", worker="w1", lease=99_000) is LOST
        assert await jobs.record("a") == before
        assert await jobs.extend(new) is HELD

    async def test_foreign_fences_and_ids_are_lost(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        a, b = await jobs.claim(2)
        renewals = [
            Renewal("b", a.fence),
            Renewal("a", a.fence),
            Renewal("zz", a.fence),
            Renewal("a", a.fence + 100),
            Renewal("b", b.fence),
        ]
        assert await jobs.storage.extend("q", "w", renewals, LEASE) == [LOST, HELD, LOST, LOST, HELD]
        assert await jobs.storage.extend("other", "w", renewals, LEASE) == [LOST] * 5

    async def test_extend_of_nothing(self, jobs: Jobs) -> None:
        assert await jobs.storage.extend("q", "w", [], LEASE) == []

    async def test_extend_reports_a_cancel_request(self, jobs: Jobs) -> None:
        await jobs.put_all("ab")
        a, b = await jobs.claim(2)
        await jobs.cancel("a", running=True)
        assert [await jobs.extend(a), await jobs.extend(b), await jobs.extend(a)] == [
            CANCELLING, HELD, CANCELLING,
        ]  # fmt: skip
        assert (await jobs.record("a")).lease_until == jobs.clock.now_ms() + LEASE

    async def test_a_lease_that_ran_out_unswept_is_still_held(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        jobs.clock.move(2 * LEASE / 1000)
        assert await jobs.extend(run) is HELD
        assert await jobs.storage.sweep("q", 10) == []
        assert await jobs.complete(run) == "accepted"
