"""The guard: what a ledger in PostgreSQL adds to an enqueue on Redis, and what comparing the two costs.

    python -m bench guard [--quick]

``enqueue``: callers in a loop of single enqueues, on Redis alone and on Redis with a guard, in turns.
``added`` is the difference of the medians; beside it, what PostgreSQL needs to commit one small row, which is
the least that it can be. ``memory``: what Python holds for 10,000 jobs that were enqueued
and claimed, by tracemalloc. ``compared``: `guard.reconcile` with 10,000 live jobs of which none is lost, then
with Redis wiped. Private servers: Redis without persistence, PostgreSQL with fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import asyncpg

from bench.measure import Series, machine, run, table
from bench.postgres_server import Database, Server
from bench.redis_server import RedisServer
from jobqueue import Queue
from jobqueue.model.numbers import percentile
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.redis import RedisStorage

PAYLOAD = "x" * 100
TRACKED = 10_000
UNKNOWN = """
update jobqueue_ledger.store set epoch = null, version = 0, lost_at = 0, doubt_until = 0, restored = 0
"""
"""Let the ledger know no store yet: it takes one that is empty for a new one, and not for a loss."""
TARGETS = (
    "added at 1 in flight, p50", "added at 100 in flight, p50", "rate at 100 with a guard, of Redis alone",
    "memory of 10,000 tracked jobs", "10,000 live jobs compared",
)  # fmt: skip


class Bench:
    """All measurements, on one pair of servers."""

    def __init__(self, redis: RedisServer, ledger: str, *, quick: bool) -> None:
        self.redis = redis
        self.ledger = ledger
        self.rounds = 2 if quick else 7
        self.jobs = {1: 300, 100: 3_000} if quick else {1: 2_000, 100: 20_000}
        self.found: dict[str, Series] = {}
        self.numbers = count()
        """Those of all jobs: an id that the ledger knows would be one that was lost, and comes back."""

    def note(self, name: str, unit: str, value: float) -> None:
        """Keep one result."""
        self.found.setdefault(name, Series(name, unit)).values.append(value)

    def guarded(self) -> GuardedStorage:
        """Return the store with a guard."""
        return GuardedStorage(RedisStorage(self.redis.url), PostgresLedger(self.ledger))

    @asynccontextmanager
    async def emptied(self, storage: Storage, *, lost: bool = False) -> AsyncGenerator[Queue[str, Any]]:
        """Lend a queue on an empty store that only produces. ``lost``: the ledger knows that it was wiped."""
        self.redis.command("FLUSHALL")
        if not lost:
            connection = await asyncpg.connect(self.ledger)
            await connection.execute(UNKNOWN)
            await connection.close()
        async with Queue[str, Any](storage, "bench") as queue:
            yield queue

    async def enqueue(self, storage: Storage, in_flight: int, *, lost: bool = False) -> tuple[float, float]:
        """Return the median in milliseconds, and jobs per second."""
        taken: list[float] = []

        async def caller(queue: Queue[str, Any], left: Iterator[int]) -> None:
            for _ in left:
                began = time.perf_counter()
                await queue.enqueue(f"job-{next(self.numbers)}", PAYLOAD)
                taken.append(time.perf_counter() - began)

        async with self.emptied(storage, lost=lost) as queue:
            for jobs in (in_flight * 5, self.jobs[in_flight]):  # the first ones warm up
                taken.clear()
                left, began = iter(range(jobs)), time.perf_counter()
                await asyncio.gather(*(caller(queue, left) for _ in range(in_flight)))
                seconds = time.perf_counter() - began
            return percentile(taken, 0.5) * 1e3, len(taken) / seconds

    async def commit(self) -> float:
        """Return the milliseconds of the median commit of one small row, without anything of ours."""
        connection = await asyncpg.connect(self.ledger)
        taken: list[float] = []
        await connection.execute("create table if not exists bare (at float8)")
        for _ in range(self.jobs[1]):
            began = time.perf_counter()
            await connection.execute("insert into bare values ($1)", began)
            taken.append(time.perf_counter() - began)
        await connection.close()
        return percentile(taken, 0.5) * 1e3

    async def round(self) -> None:
        """Measure enqueues once, of both."""
        self.note("a commit of PostgreSQL alone, p50", "ms", await self.commit())
        for in_flight in (1, 100):
            alone, rate = await self.enqueue(RedisStorage(self.redis.url), in_flight)
            with_guard, guarded_rate = await self.enqueue(self.guarded(), in_flight)
            self.note(f"enqueue at {in_flight} in flight, Redis alone, p50", "ms", alone)
            self.note(f"enqueue at {in_flight} in flight, with a guard, p50", "ms", with_guard)
            self.note(f"added at {in_flight} in flight, p50", "ms", with_guard - alone)
            self.note(f"rate at {in_flight}, Redis alone", "/s", rate)
            self.note(f"rate at {in_flight} with a guard", "/s", guarded_rate)
            self.note(f"rate at {in_flight} with a guard, of Redis alone", "", guarded_rate / rate)
            lost, lost_rate = await self.enqueue(self.guarded(), in_flight, lost=True)
            self.note(f"added at {in_flight} in flight after a loss, p50", "ms", lost - alone)
            self.note(f"rate at {in_flight} after a loss, of Redis alone", "", lost_rate / rate)

    async def tracked(self) -> None:
        """Measure memory and comparisons."""
        storage = self.guarded()
        async with self.emptied(storage) as queue:
            gc.collect()
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for first in range(0, TRACKED, 500):
                several = range(first, first + 500)
                await asyncio.gather(*(queue.enqueue(f"t-{number}", PAYLOAD) for number in several))
            for _ in range(TRACKED // 500):
                await storage.exchange("bench", "worker", [], 500, 600_000)
            gc.collect()
            after, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.note("memory of 10,000 tracked jobs", "MB", (after - before) / 1e6)
            self.note("memory of 10,000 tracked jobs, at its peak", "MB", (peak - before) / 1e6)
            while storage.guard.buffered:  # noqa: ASYNC110 - nothing tells its end
                await asyncio.sleep(0.05)
            self.note("10,000 live jobs compared", "s", await self._compare(storage))
            self.redis.command("FLUSHALL")
            self.note("10,000 lost jobs brought back", "s", await self._compare(storage))

    async def _compare(self, storage: GuardedStorage) -> float:
        began = time.perf_counter()
        await storage.guard.reconcile("bench")
        return time.perf_counter() - began


async def measure(bench: Bench, database: Database) -> None:
    """Measure everything."""
    await PostgresLedger(bench.ledger).apply_schema()
    for _ in range(bench.rounds):
        await bench.round()
    for _ in range(max(1, bench.rounds // 2)):
        await asyncio.to_thread(database.query, "truncate jobqueue_ledger.job")
        await bench.tracked()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("python -m bench guard")
    parser.add_argument("--quick", action="store_true", help="two rounds with a tenth of the jobs")
    options: Any = parser.parse_args(sys.argv[2:])
    with RedisServer() as redis, Server() as server, Database(server, "bench_guard").create() as database:
        bench = Bench(redis, database.url, quick=options.quick)
        run(lambda: measure(bench, database))
        told = (
            f"{machine()}, Redis {redis.version} without persistence, PostgreSQL {server.version} with fsync"
        )
    named = [bench.found[name] for name in TARGETS]
    others = [series for name, series in bench.found.items() if name not in TARGETS]
    print(told, table(named), table(others), sep="\n\n")
