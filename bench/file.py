"""The file store, fsync on: enqueue, drain and request/response through `Queue`, and the event loop's lag.

With ``--peers``, the file store of @platformatic/job-queue runs in turn with it, in processes of its own, on
the same disk and with the same payload.

``enqueue``: 32 callers, each in a loop of `enqueue` with a new id. ``drain``: jobs are enqueued first; then
a worker with 100 no-op handlers starts, and the time until the last one has ended counts.
``request/response``: one caller in a loop of `enqueue_and_wait`, worker in the same process. ``lag``: how
much later than asked a 1 ms timer of the same loop comes, meanwhile.

The directory is made below the current one (``BENCH_DIR`` names another): it has to be on a real disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.measure import Rivals, Series, comparison, machine, percentile, run, table
from bench.peers import PEERS, install
from bench.peers.payload import PAYLOAD
from bench.runner import Runner
from jobqueue import Queue
from jobqueue.storage.file import FileStorage

JOBS = 20_000
REQUESTS = 1_000
REPEATS = 5
PEER = PEERS["platformatic"]


@contextlib.asynccontextmanager
async def store() -> AsyncIterator[FileStorage]:
    """Provide an empty store on the disk, fsync on."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=os.environ.get("BENCH_DIR", ".")) as directory:
        yield FileStorage(Path(directory) / "store")


@contextlib.asynccontextmanager
async def lag_into(lags: list[float]) -> AsyncIterator[None]:
    """Note how late a timer comes."""

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(max(0.0, time.perf_counter() - started - 0.001))

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()


async def enqueue(jobs: int, lags: list[float]) -> float:
    """Return single enqueues per second, 32 in flight."""
    async with store() as storage, Queue[object, None](storage) as queue, lag_into(lags):

        async def caller() -> None:
            for _ in range(jobs // 32):
                await queue.enqueue(None, PAYLOAD)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(32)))
        return jobs / (time.perf_counter() - started)


async def drain(jobs: int, lags: list[float]) -> float:
    """Return jobs per second."""
    left, ended = jobs, asyncio.Event()

    async def handler(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    async with store() as storage, Queue[object, None](storage) as producer:
        await producer.enqueue_many([(None, PAYLOAD)] * jobs)
        worker: Queue[object, None] = Queue(storage, concurrency=100)
        worker.execute(handler)
        gc.collect()
        async with lag_into(lags):
            started = time.perf_counter()
            async with worker:
                await ended.wait()
            return jobs / (time.perf_counter() - started)


async def request_response(requests: int) -> list[float]:
    """Return every latency in seconds."""

    async def noop(job: object) -> None:
        pass

    latencies: list[float] = []
    async with store() as storage:
        queue: Queue[object, None] = Queue(storage)
        queue.execute(noop)
        async with queue:
            for _ in range(requests):
                started = time.perf_counter()
                await queue.enqueue_and_wait(None, PAYLOAD)
                latencies.append(time.perf_counter() - started)
    return latencies


def peer(action: str, options: dict[str, float], directory: str) -> dict[str, float]:
    """Measure the other library once."""
    with Runner(PEER, action, {"port": 0, **options}, directory) as runner:
        return runner.measure()


def measure_peer() -> dict[str, float]:
    """Measure all of the other library once."""
    sizes = {"warmup": 96.0, "jobs": 992.0}
    at_one = {"warmup": 0.5, "seconds": 3.0, "in_flight": 1.0}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=os.environ.get("BENCH_DIR", ".")) as directory:
        enqueued = peer("enqueue", sizes | {"in_flight": 32}, f"{directory}/jobs")
        drained = peer("drain", sizes | {"concurrency": 100}, f"{directory}/jobs")
        requested = peer("request", at_one, f"{directory}/requests")
    return {"enqueue": enqueued["rate"], "drain": drained["rate"], "p50": requested["p50"] * 1e3}


async def measure() -> None:
    """Run everything and print the table."""
    with_peer = "--peers" in sys.argv
    if with_peer:
        install(PEER)
    theirs = {
        "enqueue": Series(f"{PEER.title}: enqueue, 32 in flight", "/s"),
        "drain": Series(f"{PEER.title}: drain, concurrency 100", "/s"),
        "p50": Series(f"{PEER.title}: request/response, concurrency 1, p50", "ms"),
    }
    enqueues, drains = Series("enqueue, 32 in flight", "/s"), Series("drain, concurrency 100", "/s")
    p50, p99 = (Series(f"request/response, concurrency 1, p{n}", "ms") for n in (50, 99))
    enqueue_lag, drain_lag = (
        Series(f"loop lag while {what}, p99", "ms") for what in ("enqueuing", "draining")
    )
    for _ in range(REPEATS):
        lags: list[float] = []
        enqueues.values.append(await enqueue(JOBS, lags))
        enqueue_lag.values.append(percentile(lags, 99) * 1e3)
        lags = []
        drains.values.append(await drain(JOBS, lags))
        drain_lag.values.append(percentile(lags, 99) * 1e3)
        latencies = await request_response(REQUESTS)
        p50.values.append(percentile(latencies, 50) * 1e3)
        p99.values.append(percentile(latencies, 99) * 1e3)
        if with_peer:
            for name, value in measure_peer().items():
                theirs[name].values.append(value)
    print(machine())
    print(
        table([enqueues, enqueue_lag, drains, drain_lag, p50, p99, *(theirs.values() if with_peer else ())])
    )
    if with_peer:
        print()
        print(
            comparison(
                [
                    Rivals(enqueues, theirs["enqueue"], 20),
                    Rivals(drains, theirs["drain"], 50),
                    Rivals(p50, theirs["p50"], 2, less_is_better=True),
                ]
            )
        )


def main() -> None:
    """Run the benchmark."""
    run(measure)
