"""Pause against the claims of real processes: once it has returned, no job is started, until it is resumed.

Workers in two processes claim as fast as they can, while this one pauses and resumes the queue. A job that
was queued after the pause had returned has to be queued, and untried, a little later: nobody has claimed it,
not even by a call that was on its way.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jobqueue import JobState, Queue
from jobqueue.storage.contract import Storage
from tests.lifecycle.conftest import FULL, Shared
from tests.lifecycle.processes import Start, within

TRIES = 2_000 if FULL else 200
LINE = 200
"""Jobs that wait at each try at least: the workers are never idle."""
STAYS = 0.02
"""Seconds for which a pause is held: longer than a call of a store that is not busy."""
WOKEN = 3.0
"""Seconds until workers that wait for the resume go on: `block_timeout` is five."""


async def waiting(storage: Storage) -> list[str]:
    page = await storage.scan("rpc", JobState.QUEUED, 1_000)
    return [record.id for record in page.records]


async def refill(queue: Queue[Any, Any], number: int) -> None:
    missing = LINE - (await queue.stats()).counts[JobState.QUEUED]
    if missing > 0:
        await queue.enqueue_many([(f"{number}.{n}", n) for n in range(2 * missing)])


@pytest.mark.parametrize("shared", ["file", "redis", "valkey", "postgres"], indirect=True)
async def test_nothing_starts_after_the_pause_has_returned(
    shared: Shared, storage: Storage, start: Start
) -> None:
    for _ in range(2):
        await start.cli("worker", "answer:queue", "--concurrency", "5", STORE=shared.url)
    async with Queue[Any, Any](storage, "rpc").producer() as queue:
        met = 0
        for number in range(TRIES):
            await refill(queue, number)
            await asyncio.sleep(0.001 * (number % 7))
            await within(queue.pause())
            before = await waiting(storage)
            met += bool(before)
            await asyncio.sleep(STAYS)
            records = await storage.get("rpc", before)
            begun = [
                record.id if record is not None else None
                for record in records
                if record is None or record.state is not JobState.QUEUED or record.attempts > 0
            ]
            assert not begun, f"in try {number} jobs were started during a pause: {begun}"
            await within(queue.resume())
        assert await within(queue.drain())
        assert met >= TRIES // 10, f"only {met} pauses have met jobs: the workers are too fast for this test"


@pytest.mark.parametrize("shared", ["file", "redis", "valkey", "postgres"], indirect=True)
async def test_workers_go_on_at_the_resume(shared: Shared, storage: Storage, start: Start) -> None:
    await start.cli("worker", "answer:queue", STORE=shared.url)
    async with Queue[Any, Any](storage, "rpc").producer() as queue:
        await within(queue.enqueue_and_wait(None, 0, timeout=30.0))
        for number in range(3):
            await queue.pause()
            ticket = await queue.enqueue(None, number)
            await asyncio.sleep(0.5)
            started = time.perf_counter()
            await queue.resume()
            assert await within(ticket.wait()) == number
            took = time.perf_counter() - started
            assert took < WOKEN, f"the worker went on after {took:.3f} s"
