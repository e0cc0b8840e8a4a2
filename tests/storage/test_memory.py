"""The memory store keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.contract import Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock, StorageContract, model_test


@asynccontextmanager
async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
    yield MemoryStorage(clock=clock)


class TestMemoryStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)


LEASE = 10_000


@asynccontextmanager
async def opened(clock: FakeClock) -> AsyncIterator[Storage]:
    store = MemoryStorage(clock=clock)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_setting_the_clock_leaves_a_waiting_job_its_time_to_start(step: float) -> None:
    clock = FakeClock()
    async with opened(clock) as store:
        await store.insert("q", [NewJob("a", b"", expires=LEASE)])
        clock.move(4)
        clock.step(step)
        clock.move(5)
        assert await store.sweep("q", 10) == []
        clock.move(1)
        assert [one.id for one in await store.sweep("q", 10)] == ["a"]


@pytest.mark.parametrize("step", [3600.0, -3600.0, 86_400.0 * 365, 0.4, -0.4])
async def test_setting_the_clock_neither_kills_nor_extends_what_lasts_for_a_time(step: float) -> None:
    clock = FakeClock()
    async with opened(clock) as store:
        await store.insert("q", [NewJob("a", b""), NewJob("b", b"", ttl=60_000)])
        _, run = (await store.exchange("q", "w", [], 2, LEASE)).jobs
        done = Settlement(run.id, run.fence, Action.COMPLETE, b"", 60_000)
        await store.exchange("q", "w", [done], 0, LEASE)
        assert await store.lock_acquire("l", "me", LEASE) is not None
        clock.step(step)
        clock.move(LEASE / 1000 - 1)
        assert await store.sweep("q", 10) == []
        assert await store.lock_acquire("l", "you", LEASE) is None
        assert [one.worker for one in await store.workers("q")] == ["w"]
        clock.move(2)
        assert [swept.id for swept in await store.sweep("q", 10)] == ["a"]
        assert await store.lock_acquire("l", "you", LEASE) is not None
        assert (await store.get("q", ["b"]))[0] is not None
        clock.move(30)
        assert (await store.get("q", ["b"]))[0] is not None
        clock.move(30)
        assert (await store.get("q", ["b"]))[0] is None


async def test_starting_times_follow_the_wall_clock() -> None:
    clock = FakeClock()
    async with opened(clock) as store:
        await store.insert("q", [NewJob("a", b"", run_at=clock.now_ms() + 3_600_000)])
        assert (await store.exchange("q", "w", [], 1, LEASE)).jobs == []
        clock.step(3601)
        assert [run.id for run in (await store.exchange("q", "w", [], 1, LEASE)).jobs] == ["a"]


TestMemoryStorageModel = model_test(make_storage)
