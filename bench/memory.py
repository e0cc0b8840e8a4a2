"""The memory store: request/response and drain, one process, uvloop.

``request/response``: `concurrency` callers, each in a loop of `enqueue_and_wait` with a new id.
``drain``: jobs are enqueued first; then a worker with no-op handlers starts, and the time until the
last one has ended counts.

With ``--peers``, the memory store of @platformatic/job-queue runs in turn with it, in processes of its own.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

from bench.measure import Rivals, Series, comparison, machine, run, table
from bench.peers import PEERS, install
from bench.runner import Runner
from jobqueue import MemoryStorage, Queue
from jobqueue.model.numbers import percentile

JOBS = 60_000
REPEATS = 5
PEER = PEERS["platformatic"]


async def noop(_job: object) -> None:
    """Do nothing."""


async def request_response(concurrency: int, jobs: int) -> float:
    """Return requests per second."""
    queue: Queue[int, None] = Queue(MemoryStorage(), concurrency=100)
    queue.execute(noop)

    async def caller() -> None:
        for number in range(jobs // concurrency):
            await queue.enqueue_and_wait(None, number)

    async with queue:
        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return jobs / (time.perf_counter() - started)


async def latencies(concurrency: int, jobs: int) -> list[float]:
    """Return the seconds that each request took."""
    queue: Queue[int, None] = Queue(MemoryStorage(), concurrency=100)
    queue.execute(noop)
    seconds: list[float] = []

    async def caller() -> None:
        for number in range(jobs // concurrency):
            started = time.perf_counter()
            await queue.enqueue_and_wait(None, number)
            seconds.append(time.perf_counter() - started)

    async with queue:
        await asyncio.gather(*(caller() for _ in range(concurrency)))
    return seconds


async def drain(concurrency: int, jobs: int) -> float:
    """Return jobs per second."""
    storage = MemoryStorage()
    ended = asyncio.Event()
    left = jobs

    async def handler(_job: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    worker: Queue[int, None] = Queue(storage, concurrency=concurrency)
    worker.execute(handler)
    async with Queue[int, None](storage) as producer:
        await producer.enqueue_many([(None, number) for number in range(jobs)])
        gc.collect()
        started = time.perf_counter()
        async with worker:
            await ended.wait()
        return jobs / (time.perf_counter() - started)


async def enqueue(jobs: int) -> float:
    """Return single enqueues per second, 100 in flight."""
    async with Queue[int, None](MemoryStorage()) as queue:

        async def caller() -> None:
            for number in range(jobs // 100):
                await queue.enqueue(None, number)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(100)))
        return jobs / (time.perf_counter() - started)


def peer(action: str, options: dict[str, float]) -> float:
    """Measure a rate of the other library once."""
    with Runner(PEER, action, {"port": 0, **options}, "memory") as runner:
        return runner.measure()["rate"]


async def measure() -> None:
    """Run everything and print the table."""
    with_peer = "--peers" in sys.argv
    if with_peer:
        install(PEER)
    their_requests = Series(f"{PEER.title}: request/response, concurrency 100", "/s")
    their_drains = Series(f"{PEER.title}: drain, concurrency 100", "/s")
    rr = {c: Series(f"request/response, concurrency {c}", "/s") for c in (1, 10, 100)}
    p50 = {c: Series(f"request/response, concurrency {c}, p50", "µs") for c in rr}
    p99 = {c: Series(f"request/response, concurrency {c}, p99", "µs") for c in rr}
    drains = {c: Series(f"drain, concurrency {c}", "/s") for c in (10, 100)}
    enqueues = Series("enqueue, 100 in flight", "/s")
    for _ in range(REPEATS):
        for concurrency, rates in rr.items():
            rates.values.append(await request_response(concurrency, JOBS))
            seconds = await latencies(concurrency, JOBS // 3)
            p50[concurrency].values.append(percentile(seconds, 0.5) * 1e6)
            p99[concurrency].values.append(percentile(seconds, 0.99) * 1e6)
        for concurrency, series in drains.items():
            series.values.append(await drain(concurrency, JOBS))
        enqueues.values.append(await enqueue(JOBS))
        if with_peer:
            their_requests.values.append(peer("request", {"warmup": 0.5, "seconds": 1.5, "in_flight": 100}))
            their_drains.values.append(peer("drain", {"warmup": 10_000, "jobs": 50_000, "concurrency": 100}))
    print(machine())
    theirs = [their_requests, their_drains] if with_peer else []
    print(table([*rr.values(), *p50.values(), *p99.values(), *drains.values(), enqueues, *theirs]))
    if with_peer:
        print()
        print(comparison([Rivals(rr[100], their_requests, 1.2), Rivals(drains[100], their_drains, 2)]))


def main() -> None:
    """Run the benchmark."""
    run(measure)
