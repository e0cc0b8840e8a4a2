"""Request/response between two processes: thousands of calls, none of which waits for a poll.

A wake-up or an answer that is lost costs seconds, and nothing fails: `block_timeout` and the polling of
waiters make it good. So every call is timed. With one or few calls in flight the worker falls asleep again
and again, which is when a wake-up can be lost.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jobqueue import Queue
from jobqueue.storage.contract import Storage
from tests.lifecycle.conftest import FULL, Shared
from tests.lifecycle.processes import BOUND, Start, within

CALLS = 10_000 if FULL else 1_500
LONGEST = 1.0
"""Seconds; what is lost costs four at least."""


async def call(queue: Queue[Any, Any], calls: int, in_flight: int) -> None:
    """Make calls; fail at the first that takes too long."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            started = time.perf_counter()
            assert await queue.enqueue_and_wait(None, number) == number
            took = time.perf_counter() - started
            assert took < LONGEST, f"call {number} took {took:.3f} s"

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())


@pytest.mark.parametrize("shared", ["file", "redis", "valkey"], indirect=True)
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_no_call_takes_a_second(shared: Shared, storage: Storage, start: Start, in_flight: int) -> None:
    await start.cli("worker", "answer:queue", STORE=shared.url)
    async with Queue[Any, Any](storage, "rpc") as queue:
        await within(queue.enqueue_and_wait(None, None, timeout=BOUND))
        await call(queue, CALLS, in_flight)
