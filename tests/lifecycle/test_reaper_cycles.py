"""Reapers that start and stop again and again, while jobs run."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

from jobqueue import Job, LeaderElection, Queue, Reaper, open_storage
from jobqueue.model.names import REAPER_LOCK
from tests.lifecycle.processes import eventually


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_two_hundred_starts_and_stops_under_load_leave_nothing_behind(shared: Any) -> None:
    storage = open_storage(shared.url)
    worker: Queue[Any, Any] = Queue(storage, "q", concurrency=4, result_ttl=0.05)
    ran = 0

    @worker.execute
    async def handler(job: Job[Any]) -> None:
        nonlocal ran
        ran += 1

    async def load() -> None:
        while True:
            await worker.enqueue_and_wait(None, None)

    async with worker:
        loading = asyncio.create_task(load())
        try:
            await cycle(storage, 5)  # what is opened once and kept is there now
            before = len(asyncio.all_tasks()), threading.active_count(), descriptors()
            acquired = await cycle(storage, 200)
            gc.collect()

            async def nothing_left() -> bool:
                now = len(asyncio.all_tasks()), threading.active_count(), descriptors()
                # One task and descriptor more may be of the load, which goes on.
                return all(new <= old + 2 for new, old in zip(now, before, strict=True))

            assert await eventually(nothing_left)
            assert acquired > 150  # most stopped after they had begun to lead
            assert await storage.lock_holder(REAPER_LOCK) is None
        finally:
            loading.cancel()
    assert ran > 0


async def cycle(storage: Any, times: int) -> int:
    """Start and stop as often; every tenth at once, the others when they lead."""
    acquired = 0
    election = LeaderElection(lock_ttl=60.0, renewal_interval=20.0, acquire_retry_interval=10.0)
    for number in range(times):
        reaper = Reaper(storage, sweep_interval=0.01, leader_election=election)
        leads = asyncio.Event()
        reaper.on("leadership_acquired", lambda _event, leads=leads: leads.set())
        await reaper.start()
        if number % 10:
            await asyncio.wait_for(leads.wait(), 30)
            acquired += 1
        await reaper.stop()
    return acquired
