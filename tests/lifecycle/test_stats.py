"""stats: what the fleet of other processes does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jobqueue import Queue
from jobqueue.model.names import REAPER_LOCK
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import Start, eventually


async def test_stats_shows_workers_rate_and_the_leader(
    shared: Any, storage: Storage, queue: Queue[Any, Any], start: Start
) -> None:
    worker = await start.worker(concurrency=3, lease=10.0)
    leader = await start.reaper("--leader-election")
    await leader.expect("leads")
    await queue.enqueue_many([("a", {"forever": 1}), ("b", {"forever": 1})])
    await worker.expect("^run [ab]")
    await worker.expect("^run [ab]")

    async def load() -> None:
        while True:
            await queue.enqueue_and_wait(None, None)

    loading = asyncio.create_task(load())
    try:
        watching = await start.cli("stats", "-s", shared.url, "-o", "json", "--watch", "--interval", "0.3")
        for _ in range(3):
            await watching.expect("queues")
        await watching.end()
    finally:
        loading.cancel()
    found = json.loads(watching.lines[2])
    (stats,) = found["queues"]
    assert stats["queue"] == "q"
    assert stats["rate"] > 0
    assert stats["processing"] in {2, 3}
    (known,) = stats["workers"]
    assert known["running"] in {2, 3}
    assert known["seen"] < 10
    holder = await storage.lock_holder(REAPER_LOCK)
    assert holder is not None
    assert (found["reaper"]["leader"], found["reaper"]["term"]) == (holder.owner, holder.term)


async def test_the_rate_does_not_fall_when_records_expire(storage: Storage, queue: Queue[Any, Any]) -> None:
    before = await storage.ended("q")  # type: ignore[attr-defined]
    await queue.enqueue_many([(f"job-{number}", None) for number in range(10)])
    for number in range(10):
        await queue.cancel(f"job-{number}")
    assert await storage.ended("q") - before == 10  # type: ignore[attr-defined]
    await storage.set_ttl("q", [(f"job-{number}", 1) for number in range(10)])

    async def gone() -> bool:
        return sum((await storage.counts("q"))[:-1]) == 0

    assert await eventually(gone)
    assert await storage.ended("q") - before == 10  # type: ignore[attr-defined]
