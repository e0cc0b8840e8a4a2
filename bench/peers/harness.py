"""What a Python peer's runner does: the same measurements, with its own library's calls.

A runner is a process of its own. Its argument is a JSON object: `port` of the server, `action`, and the
action's numbers. It prints "ready" when it is connected and warm, waits for a line on its standard input,
measures, and prints its result as one line of JSON. It imports nothing of this repository: it runs in the
environment that its library is installed in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import uvloop
from payload import PAYLOAD

__all__ = ["PAYLOAD", "POLL", "Peer", "Stop", "ending", "main"]

POLL = 0.01
"""Seconds between two looks, for libraries that ask for a result or for work again and again."""
SLOTS = 100
"""Of a worker that serves requests."""
BACKLOG = 1_000
"""Jobs that wait where nothing else limits how many are enqueued."""
LONGEST = 300.0
"""Seconds after which a measurement has failed."""

Stop = Callable[[], Awaitable[None]]


class Peer(Protocol):
    """A library, as far as it is measured."""

    async def open(self, port: int) -> None:
        """Connect a producer."""

    async def install(self) -> None:
        """Make the tables; only asked of libraries on PostgreSQL."""

    async def enqueue(self, number: int) -> None:
        """Put one job with `PAYLOAD` into the queue."""

    async def enqueue_many(self, count: int) -> None:
        """Put so many jobs into the queue with one call; only asked of libraries on PostgreSQL."""

    async def request(self, number: int) -> None:
        """Put one job into the queue and wait for its result."""

    async def close(self) -> None:
        """End the producer's connections."""

    async def work(self, port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        """Start a worker whose handler calls ``done``; return what stops it."""


def main(peer: Peer) -> None:
    """Run what the command line asks for."""
    options = json.loads(sys.argv[1])
    actions = {
        "install": install, "enqueue": enqueue, "bulk": bulk, "drain": drain, "serve": serve,
        "request": request, "steady": steady,
    }  # fmt: skip
    measure = actions[options.pop("action")]
    # As a long-lived service would: what is loaded is looked at no more, garbage is collected seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(asyncio.wait_for(measure(peer, **options), LONGEST))


def ready() -> None:
    """Say that the measurement can begin, and wait until it shall."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(**result: float) -> None:
    """Give the result."""
    print(json.dumps(result), flush=True)


async def enqueue(peer: Peer, port: int, warmup: int, jobs: int, in_flight: int) -> None:
    """Measure single enqueues per second."""
    numbers = iter(range(warmup + jobs))

    async def caller(share: int) -> None:
        for _ in range(share):
            await peer.enqueue(next(numbers))

    await peer.open(port)
    await asyncio.gather(*(caller(warmup // in_flight) for _ in range(in_flight)))
    ready()
    started = time.perf_counter()
    await asyncio.gather(*(caller(jobs // in_flight) for _ in range(in_flight)))
    report(rate=jobs / (time.perf_counter() - started))
    await peer.close()


async def install(peer: Peer, port: int) -> None:  # noqa: ARG001
    """Make the tables."""
    ready()
    await peer.install()
    report()


async def bulk(peer: Peer, port: int, warmup: int, jobs: int, batch: int) -> None:
    """Measure jobs per second that are enqueued many at once, one call after the other."""
    await peer.open(port)
    for _ in range(warmup // batch):
        await peer.enqueue_many(batch)
    ready()
    started = time.perf_counter()
    for _ in range(jobs // batch):
        await peer.enqueue_many(batch)
    report(rate=jobs / (time.perf_counter() - started))
    await peer.close()


async def drain(peer: Peer, port: int, warmup: int, jobs: int, concurrency: int) -> None:
    """Measure jobs per second, from the last of the warm-up to the last of all."""
    left, started, ended = warmup + jobs, 0.0, asyncio.Event()

    def done() -> None:
        nonlocal left, started
        left -= 1
        if left == jobs:
            started = time.perf_counter()
        elif not left:
            ended.set()

    ready()
    stop = await peer.work(port, concurrency, done)
    await ended.wait()
    rate = jobs / (time.perf_counter() - started)
    await asyncio.sleep(0.3)  # what ended last is stored meanwhile, and counts for the server
    report(rate=rate)
    await stop()


async def steady(peer: Peer, port: int, per_second: float, seconds: float, concurrency: int) -> None:
    """Enqueue at a steady rate and work in the same process; measure how long jobs take, by thirds.

    A job's time is from its turn to be enqueued to its end, taken in order: who falls behind takes longer.
    With 0 per second there are always `BACKLOG` jobs that wait, so that the worker is never idle.
    """
    thirds: list[list[float]] = [[], [], []]
    turns: deque[float] = deque()
    total = int(per_second * seconds) if per_second else 10**9
    enqueued = 0

    def done() -> None:
        if turns:
            turn = turns.popleft()
            third = min(2, int((turn - started) / seconds * 3))
            thirds[third].append(time.perf_counter() - turn)

    async def produce() -> None:
        nonlocal enqueued
        under_way: set[asyncio.Task[None]] = set()
        for number in range(total):
            turn = started + number / per_second if per_second else 0.0
            if (ahead := turn - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            while len(under_way) >= SLOTS:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            while not per_second and len(turns) >= BACKLOG:  # noqa: ASYNC110 - what is measured sets no event
                await asyncio.sleep(0.002)
            turns.append(turn or time.perf_counter())
            enqueued += 1
            task = asyncio.create_task(peer.enqueue(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            if time.perf_counter() > started + seconds:
                break
        if under_way:
            await asyncio.wait(under_way)

    started = time.perf_counter() + 1e9
    stop = await peer.work(port, concurrency, done)
    await peer.open(port)
    ready()
    started = time.perf_counter()
    await produce()
    deadline = time.perf_counter() + 5
    while turns and time.perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    result: dict[str, float] = {"undone": (total if per_second else enqueued) - sum(map(len, thirds))}
    for name, times in zip(("before", "pinned", "after"), thirds, strict=True):
        times.sort()
        result[f"{name} p95"] = times[int(len(times) * 0.95)] if times else 0.0
        result[f"{name} rate"] = len(times) / (seconds / 3)
    report(**result)
    await stop()


async def serve(peer: Peer, port: int) -> None:
    """Be the worker of requests that other processes make, until told to end."""
    stop = await peer.work(port, SLOTS, lambda: None)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await stop()
    report()


async def request(
    peer: Peer, port: int, warmup: float, seconds: float, in_flight: int, served: int = 0
) -> None:
    """Measure requests per second and their latencies; the worker is here too, unless they are `served`."""
    numbers = iter(range(10**9))
    latencies: list[float] = []

    async def caller(until: float) -> None:
        while (started := time.perf_counter()) < until:
            await peer.request(next(numbers))
            latencies.append(time.perf_counter() - started)

    async def run(seconds: float) -> float:
        latencies.clear()
        started = time.perf_counter()
        await asyncio.gather(*(caller(started + seconds) for _ in range(in_flight)))
        return len(latencies) / (time.perf_counter() - started)

    stop = None if served else await peer.work(port, SLOTS, lambda: None)
    await peer.open(port)
    await run(warmup)
    ready()
    rate = await run(seconds)
    latencies.sort()
    count = len(latencies)
    p50, p99, p999 = (latencies[min(count - 1, int(count * p))] for p in (0.5, 0.99, 0.999))
    report(rate=rate, calls=count, p50=p50, p99=p99, p999=p999, longest=latencies[-1])
    await peer.close()
    if stop is not None:
        await stop()


def ending(task: asyncio.Task[Any]) -> Stop:
    """Return what cancels a task and waits for it."""

    async def stop() -> None:
        task.cancel()
        await asyncio.wait([task], timeout=5)

    return stop
