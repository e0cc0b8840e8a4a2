"""The model test finds what is wrong with stores that are wrong in one thing."""

from __future__ import annotations

import unittest
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import Phase, settings

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import (
    CancelStatus,
    Counts,
    Exchanged,
    LeaseStatus,
    Page,
    Renewal,
    UpdateTtlStatus,
)
from jobqueue.testing import FakeClock, model_test


class TrustsEveryFence(MemoryStorage):
    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        records = await self.get(queue, [one.id for one in settlements])
        current = [
            one._replace(fence=record.fence) if record else one
            for one, record in zip(settlements, records, strict=True)
        ]
        return await super().exchange(queue, worker, current, limit, lease)


class CountsReleasedAttempts(MemoryStorage):
    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        retried = [
            one._replace(action=Action.RETRY, delay=0) if one.action is Action.RELEASE else one
            for one in settlements
        ]
        return await super().exchange(queue, worker, retried, limit, lease)


class ClaimsTooMany(MemoryStorage):
    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        return await super().exchange(queue, worker, settlements, limit and limit + 1, lease)


class HidesCancelRequests(MemoryStorage):
    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        statuses = await super().extend(queue, worker, leases, lease)
        return [LeaseStatus.HELD if one is LeaseStatus.CANCELLING else one for one in statuses]


class CancelsRunningJobsUnasked(MemoryStorage):
    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        return await super().cancel(queue, ids, running=True)


class KeepsNothing(MemoryStorage):
    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        statuses = await super().set_ttl(queue, [])
        records = await self.get(queue, [id for id, _ in ttls])
        for record in records:
            if record is None:
                statuses.append(UpdateTtlStatus.NOT_FOUND)
            elif record.expires_at is None:
                statuses.append(UpdateTtlStatus.NOT_TERMINAL)
            else:
                statuses.append(UpdateTtlStatus.UPDATED)
        return statuses


class ListsOnePage(MemoryStorage):
    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        return (await super().scan(queue, state, limit, cursor))._replace(cursor=None)


class CountsRetriesAsScheduled(MemoryStorage):
    async def counts(self, queue: str) -> Counts:
        counts = await super().counts(queue)
        return counts._replace(scheduled=counts.scheduled + counts.failing, failing=0)


WRONG = [
    TrustsEveryFence,
    CountsReleasedAttempts,
    ClaimsTooMany,
    HidesCancelRequests,
    CancelsRunningJobsUnasked,
    KeepsNothing,
    ListsOnePage,
    CountsRetriesAsScheduled,
]


def outcome(store: type[MemoryStorage], **options: Any) -> unittest.TestResult:
    @asynccontextmanager
    async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
        yield store(clock=clock)

    case: Any = model_test(make_storage, **options)
    # To find is enough: the shortest program is for those who have to mend the store.
    case.settings = settings(
        case.settings, phases=[Phase.generate], report_multiple_bugs=False, derandomize=True, database=None
    )
    result = unittest.TestResult()
    case("runTest").run(result)
    return result


@pytest.mark.timeout(300)  # some are wrong in what few programs do
@pytest.mark.parametrize("store", WRONG)
def test_a_wrong_store_is_found_out(store: type[MemoryStorage]) -> None:
    assert not outcome(store, max_examples=120, steps=150).wasSuccessful()


def test_a_right_store_passes() -> None:
    result = outcome(MemoryStorage, max_examples=5, steps=20)
    assert result.wasSuccessful(), result
    assert result.testsRun == 1
