"""Schedules: what 10,000 of them cost an idle leader, and how late their ticks are enqueued. On Redis.

    python -m bench schedules [--schedules 10000] [--seconds 120]

``idle``: none is due. Processor time of the process with the leading reaper, and of the server, by the
second; it includes that all schedules are read once a minute. ``late``: as many, each every 100 to 1000
seconds, and a hundred that are all due at the same second, every ten seconds. Milliseconds from a tick to the
creation of its job, by the server's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from typing import Any

from bench.measure import machine
from bench.redis_server import RedisServer
from jobqueue import LeaderElection, Queue, Reaper
from jobqueue.model.numbers import percentile
from jobqueue.model.states import JobState
from jobqueue.storage.redis import RedisStorage

QUEUE = "bench"
WARM_UP = 20.0
"""Seconds in which the schedules are read, before anything is measured."""
TOGETHER, TOGETHER_EVERY = 100, 10.0


async def add(url: str, every: list[float]) -> None:
    """Add a schedule for each interval."""
    async with Queue[Any, Any](RedisStorage(url), QUEUE) as queue:
        for begin in range(0, len(every), 100):
            await asyncio.gather(
                *(
                    queue.schedules.add(f"schedule-{number}", {"number": number}, every=interval)
                    for number, interval in enumerate(every[begin : begin + 100], begin)
                )
            )


async def lead(url: str, seconds: float) -> None:
    """Be the reaper; print when the warm-up is over, and the processor time of the ``seconds`` after it."""
    async with Reaper(RedisStorage(url), leader_election=LeaderElection()):
        await asyncio.sleep(WARM_UP)
        print("warm", flush=True)
        began = time.process_time()
        await asyncio.sleep(seconds)
        print(time.process_time() - began, flush=True)


def measure(server: RedisServer, seconds: float) -> tuple[float, float, float]:
    """Run a reaper in a process; return the share of a core that it and the server used, and since when."""
    command = [sys.executable, "-m", "bench", "schedules", "--seconds", str(seconds), "--lead", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before, warm = server.load(), time.time()
        used = float(process.stdout.readline())
        served = (server.load() - before).cpu
    return used / seconds, served / seconds, warm


async def lateness(url: str, since: float) -> list[float]:
    """Return the milliseconds from each tick to the creation of its job, rising."""
    storage = RedisStorage(url)
    await storage.open()
    late: list[float] = []
    cursor = None
    while True:
        page = await storage.scan(QUEUE, JobState.QUEUED, 500, cursor)
        ticks = [record for record in page.records if record.run_at > since * 1000]
        late += [float(record.created_at - record.run_at) for record in ticks]
        cursor = page.cursor
        if cursor is None:
            break
    await storage.close()
    return sorted(late)


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench schedules")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--lead", metavar="URL", help="be the process that is measured")
    arguments = parser.parse_args(sys.argv[2:])
    if arguments.lead is not None:
        asyncio.run(lead(arguments.lead, arguments.seconds))
        return
    print(machine())
    with RedisServer() as server:
        asyncio.run(add(server.url, [30 * 86_400.0 + number for number in range(arguments.schedules)]))
        used, served, _ = measure(server, arguments.seconds)
        print(f"idle, {arguments.schedules:,} schedules: leader {used:.2%} of a core, server {served:.2%}")
    with RedisServer() as server:
        intervals = [100.0 + 900 * number / arguments.schedules for number in range(arguments.schedules)]
        asyncio.run(add(server.url, [*intervals, *[TOGETHER_EVERY] * TOGETHER]))
        used, served, warm = measure(server, arguments.seconds)
        late = asyncio.run(lateness(server.url, warm))
        shown = ", ".join(f"p{share:g} {percentile(late, share / 100):.0f} ms" for share in (50, 99, 99.9))
        print(f"late, {len(late):,} ticks: {shown}, longest {late[-1]:.0f} ms; ", end="")
        print(f"leader {used:.2%} of a core, server {served:.2%}")
