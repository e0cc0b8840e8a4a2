"""Opening, closing, handles and cut-off calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jobqueue.errors import StorageError
from jobqueue.model.states import JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import InsertStatus
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Box, Jobs, job

__all__ = ["LifecycleCases"]

CALLS: dict[str, Callable[[Storage], Awaitable[object]]] = {
    "insert": lambda store: store.insert("q", [job()]),
    "get": lambda store: store.get("q", ["a"]),
    "exchange": lambda store: store.exchange("q", "w", [], 1, LEASE),
    "extend": lambda store: store.extend("q", "w", [], LEASE),
    "sweep": lambda store: store.sweep("q", 10),
    "cancel": lambda store: store.cancel("q", ["a"]),
    "set_ttl": lambda store: store.set_ttl("q", [("a", TTL)]),
    "purge": lambda store: store.purge("q", 10),
    "scan": lambda store: store.scan("q", JobState.QUEUED, 10),
    "counts": lambda store: store.counts("q"),
    "queues": lambda store: store.queues(),
    "workers": lambda store: store.workers("q"),
    "wait_for_work": lambda store: store.wait_for_work("q", "w", 0.01),
    "subscribe": lambda store: store.subscribe("q", "me", Box()),
    "lock_acquire": lambda store: store.lock_acquire("lock", "me", TTL),
    "lock_renew": lambda store: store.lock_renew("lock", "me", TTL),
    "lock_release": lambda store: store.lock_release("lock", "me"),
    "lock_holder": lambda store: store.lock_holder("lock"),
    "wait_for_lock": lambda store: store.wait_for_lock("lock", 0.01),
}


class LifecycleCases(Cases):
    """The life of a store."""

    async def test_a_store_is_a_storage(self, unopened: Storage, clock: FakeClock) -> None:
        assert isinstance(unopened, Storage)
        assert unopened.clock is clock
        assert type(unopened.batched) is type(unopened.shared) is bool

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_an_unopened_store_refuses(
        self, unopened: Storage, call: Callable[[Storage], Awaitable[object]]
    ) -> None:
        with pytest.raises(StorageError, match="open"):
            await call(unopened)

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_closed_store_refuses(
        self, unopened: Storage, call: Callable[[Storage], Awaitable[object]]
    ) -> None:
        await unopened.open()
        await unopened.close()
        with pytest.raises(StorageError, match="open"):
            await call(unopened)

    async def test_open_is_counted(self, unopened: Storage) -> None:
        for _ in range(3):
            await unopened.open()
        for _ in range(2):
            await unopened.close()
            assert (await unopened.insert("q", [job()]))[0].state is JobState.QUEUED
        await unopened.close()
        with pytest.raises(StorageError):
            await unopened.queues()

    async def test_closing_too_often_is_harmless(self, unopened: Storage) -> None:
        for _ in range(3):
            await unopened.close()
            await unopened.close()
            await unopened.open()
            assert await unopened.queues() == []
            await unopened.close()
            with pytest.raises(StorageError):
                await unopened.queues()

    async def test_concurrent_opens_and_closes(self, unopened: Storage) -> None:
        await asyncio.gather(*(unopened.open() for _ in range(5)))
        await asyncio.gather(*(unopened.close() for _ in range(4)))
        assert await unopened.queues() == []
        await unopened.close()
        with pytest.raises(StorageError):
            await unopened.queues()

    async def test_jobs_stay_when_a_store_is_closed_and_opened(
        self, unopened: Storage, clock: FakeClock
    ) -> None:
        jobs = Jobs(unopened, clock)
        await unopened.open()
        await jobs.put("ready", payload=b"data")
        await jobs.bring(JobState.COMPLETED, "done", priority=1)
        await jobs.put("later", delay=1_000)
        run = await jobs.bring(JobState.PROCESSING, "runs", priority=1)
        ids = ["ready", "done", "later", "runs"]
        before = await unopened.get("q", ids, payload=True)
        await unopened.close()
        await unopened.open()
        assert await unopened.get("q", ids, payload=True) == before
        assert run is not None
        assert await jobs.complete(run) == "accepted"
        clock.move(1)
        assert await jobs.claim_ids() == ["ready", "later"]
        assert (await jobs.put("new")).seq > max(record.seq for record in before if record)
        assert (await jobs.claim_one()).fence > run.fence
        await unopened.close()

    async def test_a_clone_is_a_handle_on_the_same_jobs(self, storage: Storage, jobs: Jobs) -> None:
        clone = storage.clone()
        await clone.open()
        there = Jobs(clone, jobs.clock)
        first = await jobs.put("a")
        assert (await there.put("a")).status is InsertStatus.FOUND
        run = await there.claim_one()
        assert await jobs.claim() == []
        second = await there.put("b")
        assert second.seq > first.seq
        assert (await jobs.claim_one()).fence > run.fence
        assert await jobs.complete(run) == "accepted"
        assert (await there.record("a")).result == b"result"
        await clone.close()
        assert await jobs.state("a") is JobState.COMPLETED

    @pytest.mark.parametrize("turns", range(5))
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_call_that_is_cut_off_leaves_the_store_usable(
        self, jobs: Jobs, call: Callable[[Storage], Awaitable[object]], turns: int
    ) -> None:
        async def one() -> None:
            await call(jobs.storage)

        calls = [asyncio.create_task(one()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        # The step happened or did not, perhaps later; either way the next ones do.
        await jobs.put("b")
        assert await jobs.state("b") in {JobState.QUEUED, JobState.PROCESSING}
        counts = await jobs.storage.counts("q")
        assert counts.queued + counts.processing in {1, 2}
        await jobs.stall()
        assert await jobs.claim_ids() in (["b"], ["a", "b"], ["b", "a"])
