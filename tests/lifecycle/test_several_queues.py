"""Processes of several queues: one of two is killed, the other is told to stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from jobqueue import Queue
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import BOUND, Process, Start, state_of

TARGETS = ("tasks:queue", "tasks:calm")


async def test_one_of_two_is_killed_and_the_other_takes_the_jobs_of_all_its_queues(
    shared: Any, storage: Storage, start: Start
) -> None:
    async with Queue[Any, Any](storage, "q") as one, Queue[Any, Any](storage, "calm") as two:
        doomed = await start.cli("worker", *TARGETS, STORE=shared.url, LEASE="2")
        await doomed.expect("queue calm started")
        for queue in (one, two):
            await queue.enqueue("a", {"sleep": 600, "once": True})
            await doomed.expect("^run a 1")
        other = await start.cli("worker", *TARGETS, STORE=shared.url, LEASE="60")
        await other.expect("queue calm started")
        await doomed.kill()
        for queue in (one, two):
            assert await queue.wait("a", timeout=BOUND) == other.pid
            assert await state_of(queue, "a") == ("completed", 2)
        await drained(other, one, two)


async def drained(worker: Process, *queues: Queue[Any, Any]) -> None:
    """Stop a worker with a job running in each of its queues: all end, and are handed in."""
    for queue in queues:
        await queue.enqueue("last", {"sleep": 0.5})
        await worker.expect("^run last 1")
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    for queue in queues:
        assert await state_of(queue, "last") == ("completed", 1)


async def test_a_process_with_ten_queues_has_one_thread_for_their_leases(shared: Any, start: Start) -> None:
    async def threads(name: str) -> int:
        process = await start.cli("worker", name, STORE=shared.url)
        await process.expect("queue .* started")
        await asyncio.sleep(0.5)
        return len(list(Path(f"/proc/{process.pid}/task").iterdir()))

    one, ten = await asyncio.gather(threads("tasks:queue"), threads("tasks:ten"))
    assert ten == one
