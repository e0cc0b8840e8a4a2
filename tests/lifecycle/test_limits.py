"""Limits hold whatever workers there are and however they die: with real processes."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import pytest

from jobqueue import EnqueueRequest, Queue, Rate, Reaper, Storage
from jobqueue.storage.capabilities import Limiting
from tests.lifecycle.processes import BOUND, Process, Start, eventually

LATE = 0.25
"""Seconds that a handler may begin after its job was claimed, on a busy machine."""


class Run(NamedTuple):
    group: str
    begin: float
    end: float


@pytest.fixture(autouse=True)
def _limiting(storage: Storage) -> None:
    if not isinstance(storage, Limiting):
        pytest.skip("this store has no limits")


async def worker(start: Start, url: str, take: float) -> Process:
    process = await start.script("limited.py", json.dumps({"store": url, "take": take}))
    await process.expect("^works")
    return process


def runs_of(process: Process, killed: float | None) -> list[Run]:
    """Return the runs that a process has told; one that was cut off ended at the latest when it was
    killed."""
    begun: dict[str, tuple[str, float]] = {}
    runs: list[Run] = []
    for line in process.lines:
        word, *rest = line.split()
        if word == "begin":
            begun[rest[0]] = rest[1], float(rest[2])
        elif word == "end":
            group, begin = begun.pop(rest[0])
            runs.append(Run(group, begin, float(rest[2])))
    assert not begun or killed is not None
    return runs + [Run(group, begin, killed or begin) for group, begin in begun.values()]


def most_at_once(runs: list[Run]) -> int:
    changes = sorted([(run.begin, 1) for run in runs] + [(run.end, -1) for run in runs])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


async def test_workers_that_are_killed_exceed_no_limit(
    shared: Any, start: Start, queue: Queue[Any, Any], reaper: Reaper
) -> None:
    await queue.limits.set(running=3, group_running=1)
    workers = [await worker(start, shared.url, 0.03) for _ in range(4)]
    await queue.enqueue_many([EnqueueRequest(f"{n}", n, group=f"g{n % 6}") for n in range(90)])
    killed: dict[int, float] = {}

    async def busy() -> Process | None:
        alive = (process for process in workers if process.pid not in killed)
        return next((one for one in alive if one.count("^begin") > one.count("^end")), None)

    for _ in range(2):
        victim = await eventually(busy)
        assert victim is not None
        killed[victim.pid] = time.monotonic()
        await victim.kill()
    assert await queue.drain(BOUND)
    assert reaper.id
    runs = [run for process in workers for run in runs_of(process, killed.get(process.pid))]
    assert len(runs) >= 90
    assert most_at_once(runs) <= 3
    for group in {run.group for run in runs}:
        assert most_at_once([run for run in runs if run.group == group]) == 1
    stats = await queue.stats()
    assert (stats.counts["completed"], stats.total) == (90, 90)


async def test_limits_that_are_changed_under_load_hold_from_then_on(
    shared: Any, start: Start, queue: Queue[Any, Any]
) -> None:
    await queue.limits.set(running=8)
    workers = [await worker(start, shared.url, 0.02) for _ in range(3)]
    await queue.enqueue_many([EnqueueRequest(f"{n}", n, group=f"g{n % 5}") for n in range(300)])

    async def ended(count: int) -> None:
        async def enough() -> bool:
            return sum(process.count("^end") for process in workers) >= count

        assert await eventually(enough)

    await ended(20)
    await queue.limits.set(running=3, group_running=1)
    tight = time.monotonic()
    await ended(140)
    loose = time.monotonic()
    await queue.limits.set(running=10, group_running=2)
    assert await queue.drain(BOUND)
    runs = [run for process in workers for run in runs_of(process, None)]
    assert len(runs) == 300
    # Those that were claimed before go on; a handler may begin late.
    after = max([run.end for run in runs if run.begin < tight + LATE], default=tight)
    between = [run for run in runs if after <= run.begin and run.end <= loose]
    assert len(between) >= 10
    assert most_at_once(between) <= 3
    for group in {run.group for run in between}:
        assert most_at_once([run for run in between if run.group == group]) == 1
    assert most_at_once(runs) <= 10


async def test_a_rate_holds_over_all_workers(shared: Any, start: Start, queue: Queue[Any, Any]) -> None:
    rate = Rate(50, burst=5)
    await queue.limits.set(rate=rate)
    workers = [await worker(start, shared.url, 0.0) for _ in range(3)]
    await queue.enqueue_many([(f"{n}", n) for n in range(105)])
    assert await queue.drain(BOUND)
    begins = sorted(run.begin for process in workers for run in runs_of(process, None))
    assert len(begins) == 105
    assert begins[-1] - begins[0] >= 2.0 - LATE
    for first, begin in enumerate(begins):
        for last in range(first, 105):
            span = begins[last] - begin + LATE
            assert last - first + 1 <= rate.burst + 1 + span * 50
