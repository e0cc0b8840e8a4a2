"""Workers that are stopped for a while, as by a debugger, a suspended machine or a stalled disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from jobqueue import Queue, Reaper
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import BOUND, Start, state_of


async def test_shorter_than_the_lease_harms_nothing(
    storage: Storage, queue: Queue[Any, Any], start: Start, reaper: Reaper, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    worker = await start.worker(lease=20.0)
    await queue.enqueue("a", {"until": str(go)})
    await worker.expect("^run a")
    await worker.freeze(storage)
    await asyncio.sleep(0.3)
    worker.thaw()
    go.touch()
    assert (await queue.wait("a", timeout=BOUND))["pid"] == worker.pid
    assert await state_of(queue, "a") == ("completed", 1)
    assert worker.count("^(aborted|stalled)") == 0


async def test_longer_than_the_lease_loses_the_job_and_nothing_else(
    storage: Storage, queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    frozen = await start.worker()
    await queue.enqueue("a", {"forever": 1})
    await frozen.expect("^run a 1")
    await frozen.freeze(storage)
    other = await start.worker(lease=60.0)
    result = await queue.wait("a", timeout=BOUND)
    assert result == {"pid": other.pid, "attempt": 2}
    frozen.thaw()
    # It distrusts itself by its own clock or hears it from the store, and its run changes nothing.
    await frozen.expect("^aborted a lease_lost")
    await frozen.expect("^stalled a")
    assert await queue.get_result("a") == result
    assert await state_of(queue, "a") == ("completed", 2)
    await other.kill()
    assert (await queue.enqueue_and_wait("b", None, timeout=BOUND))["pid"] == frozen.pid
