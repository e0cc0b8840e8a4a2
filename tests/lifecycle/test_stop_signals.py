"""SIGTERM: with enough grace, with too little, twice, thrice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from jobqueue import Queue, Reaper
from tests.lifecycle.processes import BOUND, Start, state_of


async def test_enough_grace_lets_the_job_end(queue: Queue[Any, Any], start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    worker = await start.worker()
    await queue.enqueue("a", {"until": str(go)})
    await worker.expect("^run a")
    worker.signal(signal.SIGTERM)
    await queue.enqueue("b", None)
    go.touch()
    assert (await queue.wait("a", timeout=BOUND))["pid"] == worker.pid
    assert await worker.wait() == 0
    assert await state_of(queue, "b") == ("queued", 0)


async def test_too_little_grace_costs_the_lease_and_an_attempt(
    queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    worker = await start.worker()
    await queue.enqueue("a", {"forever": 1})
    await worker.expect("^run a 1")
    worker.signal(signal.SIGTERM)
    heir = await start.worker()
    await queue.enqueue("b", None)
    assert (await queue.wait("b", timeout=BOUND))["pid"] == heir.pid
    assert worker.process.returncode is None  # it drains, and renews its lease meanwhile
    await worker.kill()  # as process managers do when their patience ends
    assert await queue.wait("a", timeout=BOUND) == {"pid": heir.pid, "attempt": 2}


async def test_twice_gives_the_job_back_at_once(queue: Queue[Any, Any], start: Start) -> None:
    worker = await start.worker(lease=600.0)
    await queue.enqueue("a", {"forever": 1})
    await worker.expect("^run a 1")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    await worker.expect("^aborted a shutdown")
    await worker.expect("^requeued a")
    assert await worker.wait() == 0
    assert await state_of(queue, "a") == ("queued", 0)
    other = await start.worker()
    await other.expect("^run a 1")  # at once, as if it had never run


async def test_thrice_ends_even_a_process_whose_event_loop_is_blocked(
    queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    worker = await start.worker(job_timeout=0.5)
    await queue.enqueue("a", {"spin": 1})
    await worker.expect("^run a 1")
    sent = 0
    while worker.process.returncode is None:
        worker.signal(signal.SIGTERM)
        sent += 1
        # The next one only when this one has arrived: the kernel merges equal signals.
        await asyncio.wait([asyncio.ensure_future(worker.process.wait())], timeout=0.2)
    assert sent >= 3
    assert await worker.wait() == 128 + signal.SIGTERM
    heir = await start.worker()
    assert await queue.wait("a", timeout=BOUND) == {"pid": heir.pid, "attempt": 2}
