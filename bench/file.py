"""The file store, fsync on: enqueue, drain and request/response through `Queue`, and the event loop's lag.

With ``--peers``, the file store of @platformatic/job-queue runs in turn with it, in processes of its own, on
the same disk and with the same payload.

``enqueue``: 32 callers, each in a loop of `enqueue` with a new id. ``drain``: jobs are enqueued first; then
a worker with 100 no-op handlers starts, and the time until the last one has ended counts. ``lag``: how
much later than asked a 1 ms timer of the same loop comes, meanwhile. ``request/response``: see
`bench.requests`.

The directory is made below the current one (``BENCH_DIR`` names another): it has to be on a real disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path

from bench.chart import number
from bench.measure import machine, run
from bench.peers import PEERS, Peer, install
from bench.peers.payload import PAYLOAD
from bench.requests import ONE, TWO, measure_requests, request_tables
from bench.results import Results, Target, judge, table
from bench.runner import Runner
from jobqueue import Queue
from jobqueue.model.numbers import percentile
from jobqueue.storage.file import FileStorage

JOBS = 20_000
OURS, THEIRS = PEERS["ours"], PEERS["platformatic"]
REQUESTS = {"port": 0, "warmup": 0.3, "seconds": 1.5}
COLUMNS = {"enqueue, 32 in flight (/s)": "enqueue", "drain, 100 slots (/s)": "drain"}
LAGS = {"while enqueuing": "enqueue lag", "while draining": "drain lag"}
TARGETS = (
    Target(what="enqueue, 32 in flight", name="enqueue", peer=THEIRS.name, factor=60),
    Target(what="drain, 100 slots", name="drain", peer=THEIRS.name, factor=200),
    Target(
        what="request/response, two processes, 1, p50 (ms)",
        name=f"{TWO} 1 p50", peer=THEIRS.name, factor=10, less_is_better=True,
    ),
)  # fmt: skip


@contextlib.contextmanager
def directory() -> Generator[Path]:
    """Provide an empty directory on the disk."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=os.environ.get("BENCH_DIR", ".")) as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def store() -> AsyncIterator[FileStorage]:
    """Provide an empty store, fsync on."""
    with directory() as path:
        yield FileStorage(path / "store")


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


async def measure_ours(jobs: int) -> dict[str, float]:
    """Measure enqueue and drain of ours once."""
    lags: tuple[list[float], list[float]] = ([], [])
    rates = {"enqueue": await enqueue(jobs, lags[0]), "drain": await drain(jobs, lags[1])}
    return rates | {
        f"{what} lag": percentile(late, 0.99) * 1e3 for what, late in zip(rates, lags, strict=True)
    }


def measure_theirs() -> dict[str, float]:
    """Measure enqueue and drain of the other library once."""
    sizes = {"port": 0, "warmup": 96, "jobs": 992}
    with directory() as path:
        with Runner(THEIRS, "enqueue", sizes | {"in_flight": 32}, str(path / "jobs")) as runner:
            enqueued = runner.measure()["rate"]
        with Runner(THEIRS, "drain", sizes | {"concurrency": 100}, str(path / "jobs")) as runner:
            return {"enqueue": enqueued, "drain": runner.measure()["rate"]}


def measure_calls(peer: Peer, seconds: float) -> dict[str, float]:
    """Measure request/response of a library once, in two processes and in one."""
    measured: dict[str, float] = {}
    for topology in (TWO, ONE):
        with directory() as path:
            options = REQUESTS | {"seconds": seconds}
            measured |= measure_requests(peer, topology, options, str(path / "store"))
    return measured


def report(results: Results, peers: Sequence[Peer]) -> str:
    """Write everything as Markdown."""

    def cell(peer: Peer, name: str) -> str:
        values = results.of(peer.name, name)
        return f"{number(results.get(peer.name, name))} ({number(min(values))} to {number(max(values))})"

    return "\n\n".join(
        [
            "Jobs per second:",
            table(peers, list(COLUMNS), [[cell(peer, name) for name in COLUMNS.values()] for peer in peers]),
            "Loop lag, p99, in milliseconds:",
            table([OURS], list(LAGS), [[cell(OURS, name) for name in LAGS.values()]]),
            request_tables(results, peers),
            "Targets:",
            judge(results, peers, TARGETS),
        ]
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m bench file")
    parser.add_argument("--peers", action="store_true", help="measure the other library too")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the jobs")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(sys.argv[2:])


async def measure() -> None:
    """Run everything and print the tables."""
    options = arguments()
    peers = [OURS, THEIRS] if options.peers else [OURS]
    rounds, scale = (1, 10) if options.quick else (options.rounds, 1)
    for peer in peers:
        install(peer)
    results = Results()
    for place in range(rounds):
        for peer in peers:
            results.note(peer, await measure_ours(JOBS // scale) if peer is OURS else measure_theirs())
            results.note(peer, measure_calls(peer, 0.5 if options.quick else 1.5))
        print(f"round {place + 1} of {rounds}", file=sys.stderr)
    print(f"{machine()}, medians of {rounds}", report(results, peers), sep="\n\n")


def main() -> None:
    """Run the benchmark."""
    run(measure)
