"""Leases that are kept by a thread, given up in time, and cancelled from another process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jobqueue import Queue, Reaper
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import BOUND, Start, state_of


async def test_a_blocked_event_loop_keeps_its_lease_and_is_told_of(
    queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    lease = 2.0
    blocked = await start.worker(concurrency=1, lease=lease)
    other = await start.worker(concurrency=1, lease=lease)
    await queue.enqueue("a", {"block": 3 * lease})
    result = await queue.wait("a", timeout=BOUND)
    assert result["attempt"] == 1
    if result["pid"] != blocked.pid:
        blocked, other = other, blocked
    assert blocked.count("^run a") == 1
    assert other.count("^run a") == 0
    await blocked.expect("WARNING .* the event loop turns again")
    assert blocked.count("WARNING .* event loop has been blocked") == 1
    assert blocked.count(r"host\.py.* in block") == 1
    assert blocked.count(r"time\.sleep\(seconds\)") == 1
    # Once per blockage: a second one is told of again.
    await queue.enqueue_and_wait("b", {"block": lease}, timeout=BOUND)
    told = await asyncio.wait(
        [asyncio.ensure_future(worker.expect("event loop has been blocked")) for worker in (blocked, other)],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for task in told[1]:
        task.cancel()
    assert await state_of(queue, "b") == ("completed", 1)


async def test_an_endless_loop_is_recovered_elsewhere_at_its_job_timeout(
    queue: Queue[Any, Any], start: Start, reaper: Reaper
) -> None:
    hung = await start.worker(job_timeout=1.5, concurrency=1)
    began = time.monotonic()
    await queue.enqueue("a", {"spin": 1})
    await hung.expect("^run a 1")
    other = await start.worker(job_timeout=1.5, concurrency=1)
    assert await queue.wait("a", timeout=BOUND) == {"pid": other.pid, "attempt": 2}
    assert time.monotonic() - began > 1.5  # renewed until then, though nothing else went on there
    await hung.expect("event loop has been blocked")
    await queue.enqueue_and_wait("b", None, timeout=BOUND)
    assert hung.process.returncode is None


async def test_a_cancel_takes_effect_in_another_process_within_a_second(
    queue: Queue[Any, Any], start: Start
) -> None:
    # Renewals come every ten minutes: only the push can be so fast.
    worker = await start.worker(lease=1800.0)
    took: list[float] = []
    for number in range(3):
        await queue.enqueue(f"a{number}", {"forever": 1})
        await worker.expect(f"^run a{number}")
        began = time.monotonic()
        assert await queue.cancel(f"a{number}", running=True) == "cancelling"
        await worker.expect(f"^aborted a{number} cancelled")
        took.append(time.monotonic() - began)
        await worker.expect(f"^cancelled a{number}")
    assert min(took) < 1.0  # the best of three: the machine may be busy with something else


async def test_a_cancel_travels_with_the_renewal_when_the_push_is_lost(
    storage: Storage, queue: Queue[Any, Any], start: Start
) -> None:
    worker = await start.worker(lease=1.5, deaf=True)
    await queue.enqueue("a", {"forever": 1})
    await worker.expect("^run a")
    assert await queue.cancel("a", running=True) == "cancelling"
    await worker.expect("^aborted a cancelled")
    await worker.expect("^cancelled a")


async def test_a_worker_that_cannot_renew_distrusts_itself_first(
    shared: Any, storage: Storage, queue: Queue[Any, Any], start: Start
) -> None:
    worker = await start.worker(lease=3.0)
    await queue.enqueue("a", {"forever": 1})
    await worker.expect("^run a 1")
    shared.freeze()
    began = time.monotonic()
    await worker.expect("^aborted a lease_lost")  # while the store still answers nobody
    took = time.monotonic() - began
    shared.thaw()
    assert took > 0.5  # not at the first renewal that failed
    # It knows before anybody else can: without a reaper nobody has taken the job, and it works again.
    await queue.enqueue("b", None)
    assert (await queue.wait("b", timeout=BOUND))["pid"] == worker.pid
    async with Reaper(storage, sweep_interval=0.2):
        assert await queue.wait("a", timeout=BOUND) == {"pid": worker.pid, "attempt": 2}
