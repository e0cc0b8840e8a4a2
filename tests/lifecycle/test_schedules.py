"""Each tick of a schedule is enqueued once, whatever befalls those who enqueue: with real processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import Queue, Storage, StorageUnavailableError, open_storage
from tests.lifecycle.processes import BOUND, Process, Start, eventually
from tests.services import BINARIES, Server

NAMES = tuple(f"s{number}" for number in range(5))


async def scheduler(start: Start, url: str, **options: Any) -> Process:
    process = await start.script("scheduling.py", json.dumps({"store": url, **options}))
    await process.expect("^schedules")
    return process


async def add(queue: Queue[Any, Any]) -> None:
    """Add schedules that tick every second."""
    for name in NAMES:
        await queue.schedules.add(name, {"of": name}, every=1.0, catch_up="all")


async def ticked(queue: Queue[Any, Any], more: int) -> None:
    """Wait until every schedule has gone on by that many ticks, from now."""
    begun = {schedule.name: schedule.last_at for schedule in await queue.schedules.list()}

    async def gone_on() -> bool:
        for schedule in await queue.schedules.list():
            first = begun[schedule.name]
            if schedule.last_at is None:
                return False
            if first is None:
                begun[schedule.name] = schedule.last_at
                return False
            if (schedule.last_at - first).total_seconds() < more:
                return False
        return True

    await eventually(gone_on)


async def judge(queue: Queue[Any, Any], *processes: Process) -> None:
    """End the schedules; check that each tick until then is there, and that nobody has created one twice."""
    for name in NAMES:
        await queue.schedules.pause(name)
    for process in processes:
        if process.process.returncode is None:
            process.signal(signal.SIGTERM)
        assert await process.wait() in {0, -signal.SIGKILL}
    page = await queue.jobs.list(limit=1000)
    assert page.cursor is None
    for name in NAMES:
        ids = [status.id for status in page.jobs if status.id.startswith(f"{name}@")]
        ticks = sorted(datetime.fromisoformat(id.partition("@")[2]).timestamp() for id in ids)
        assert ticks == [ticks[0] + place for place in range(len(ticks))], "some were left out"
    lines = Counter(line for process in processes for line in process.lines if line.startswith("created "))
    assert lines
    assert max(lines.values()) == 1, "created twice"


@pytest.mark.parametrize("step", ["before insert", "after insert", "after write"])
async def test_a_scheduler_that_dies_at_a_tick(
    shared: Any, start: Start, queue: Queue[Any, Any], step: str
) -> None:
    await add(queue)
    dying = [await scheduler(start, shared.url, die_at=step) for _ in range(2)]
    for process in dying:
        assert await process.wait() == -signal.SIGKILL
    heir = await scheduler(start, shared.url)
    await ticked(queue, 3)
    await judge(queue, *dying, heir)


async def test_schedulers_at_the_same_ticks(shared: Any, start: Start, queue: Queue[Any, Any]) -> None:
    await add(queue)
    both = [await scheduler(start, shared.url) for _ in range(2)]
    await ticked(queue, 3)
    await judge(queue, *both)


async def test_one_is_frozen_over_three_ticks_and_the_other_goes_on(
    shared: Any, start: Start, queue: Queue[Any, Any], storage: Storage
) -> None:
    await add(queue)
    frozen, other = [await scheduler(start, shared.url) for _ in range(2)]
    await ticked(queue, 1)
    await frozen.freeze(storage)
    await ticked(queue, 3)
    frozen.thaw()
    await ticked(queue, 2)
    await judge(queue, frozen, other)


async def test_the_only_one_is_frozen_over_three_ticks(
    shared: Any, start: Start, queue: Queue[Any, Any], storage: Storage
) -> None:
    await add(queue)
    only = await scheduler(start, shared.url)
    await ticked(queue, 1)
    await only.freeze(storage)
    await asyncio.sleep(3.2)
    only.thaw()
    await ticked(queue, 5)
    await judge(queue, only)


async def test_a_store_that_is_silent_over_three_ticks(
    shared: Any, start: Start, queue: Queue[Any, Any]
) -> None:
    await add(queue)
    both = [await scheduler(start, shared.url) for _ in range(2)]
    await ticked(queue, 1)
    shared.freeze()
    await asyncio.sleep(3.2)
    shared.thaw()
    await ticked(queue, 2)
    await judge(queue, *both)


@pytest.fixture
def durable(flavour: str) -> Iterator[Server]:
    server = Server(BINARIES[flavour](), "--appendonly", "yes", "--appendfsync", "always").start()
    yield server
    server.remove()


@pytest_asyncio.fixture
async def starter(durable: Server) -> AsyncIterator[Start]:
    made = Start(durable.url)
    yield made
    await made.end()


@pytest.mark.parametrize("crash", [True, False], ids=["killed", "stopped"])
async def test_a_server_that_restarts_over_a_tick(durable: Server, starter: Start, crash: bool) -> None:
    async with Queue[Any, Any](open_storage(durable.url), "q") as queue:
        await add(queue)
        both = [await scheduler(starter, durable.url) for _ in range(2)]
        await ticked(queue, 1)
        await asyncio.to_thread(durable.kill if crash else durable.stop)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(durable.start)
        await ticked_again(queue)
        await judge(queue, *both)


async def ticked_again(queue: Queue[Any, Any]) -> None:
    """Wait until the schedules go on, over calls that fail while the server comes back."""
    async with asyncio.timeout(BOUND):
        while True:
            try:
                return await ticked(queue, 2)
            except StorageUnavailableError:
                await asyncio.sleep(0.1)
