"""Limits and turns: what they cost a worker that drains a queue, against one without groups.

    python -m bench limits [--postgres] [--jobs 20000] [--groups 1000] [--rounds 9]

On Redis, or on PostgreSQL with fsync.

``plain``: jobs without a group, no rules. ``groups``: as many groups as given, in turn. ``limits``: the same,
with limits of the queue and of each group that are checked and not reached. Jobs per second of a worker with
100 slots and a handler that does nothing, in a process of its own, and microseconds of the server for each
job; medians of rounds that take turns. What is compared are the two of one round, which are seconds apart: a
machine that is shared changes its pace from minute to minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

from bench.measure import machine
from bench.postgres_server import Database, Server
from bench.redis_server import RedisServer
from jobqueue import EnqueueRequest, Job, Limits, Queue, Rate, Storage, open_storage

QUEUE, SLOTS, WARM_UP = "bench", 100, 1_000
LIMITS = Limits(running=10_000, rate=Rate(1_000_000, burst=100_000), group_running=1_000)
KINDS = ("plain", "groups", "limits")


class Store(AbstractContextManager["Store"], Protocol):
    """A server of its own."""

    url: str

    def empty(self) -> None:
        """Delete all that is stored."""

    def used(self) -> float:
        """Return the seconds of a processor that it has used."""
        ...


class OnRedis:
    """A Redis server."""

    def __enter__(self) -> Self:
        self._server = RedisServer().__enter__()
        self.url = self._server.url
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)

    def empty(self) -> None:
        """Delete all that is stored."""
        self._server.empty()

    def used(self) -> float:
        """Return the seconds of a processor that it has used."""
        return self._server.load().cpu


class OnPostgres:
    """A PostgreSQL server."""

    def __enter__(self) -> Self:
        self._server = Server().__enter__()
        self._database = Database(self._server, QUEUE)
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)

    def empty(self) -> None:
        """Make the database and its schema anew."""
        self.url = self._database.create().url
        asyncio.run(storage_at(self.url).apply_schema())

    def used(self) -> float:
        """Return the seconds of a processor that it has used."""
        return self._server.load().cpu


def storage_at(url: str) -> Any:
    """Return the store at a URL."""
    store: Storage = open_storage(url)
    return store


def queue_of(url: str, kind: str) -> Queue[int, None]:
    """Return the queue of a measurement."""
    limits = LIMITS if kind == "limits" else None
    return Queue(storage_at(url), QUEUE, concurrency=SLOTS, limits=limits)


async def fill(url: str, kind: str, jobs: int, groups: int) -> None:
    """Enqueue what is to be drained."""
    async with queue_of(url, kind).producer() as queue:
        for begin in range(0, jobs, 500):
            named = range(begin, min(jobs, begin + 500))
            group = "" if kind == "plain" else "group:"
            await queue.enqueue_many(
                [EnqueueRequest(f"{n}", n, group=group and f"{group}{n % groups}") for n in named]
            )


async def drain(url: str, kind: str, jobs: int) -> None:
    """Be the worker; print the seconds from the end of its warm-up to the end of all."""
    queue, left, began = queue_of(url, kind), jobs, 0.0
    done = asyncio.Event()

    @queue.execute
    async def handler(_job: Job[Any]) -> None:
        nonlocal left, began
        left -= 1
        if left == jobs - WARM_UP:
            began = time.perf_counter()
        elif not left:
            done.set()

    async with queue:
        await done.wait()
        print(json.dumps(time.perf_counter() - began), flush=True)


def measure(store: Store, kind: str, jobs: int, groups: int) -> tuple[float, float]:
    """Return the jobs per second, and the microseconds of the server for each."""
    store.empty()
    asyncio.run(fill(store.url, kind, jobs, groups))
    before = store.used()
    command = [sys.executable, "-m", "bench", "limits", "--drain", kind, store.url, "--jobs", str(jobs)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    served = store.used() - before
    return (jobs - WARM_UP) / float(out.splitlines()[-1]), served / jobs * 1e6


def main() -> None:
    """Measure all kinds in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench limits")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL instead of Redis")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--groups", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--drain", nargs=2, metavar=("KIND", "URL"), help="be the worker that is measured")
    arguments = parser.parse_args(sys.argv[2:])
    if arguments.drain:
        kind, url = arguments.drain
        asyncio.run(drain(url, kind, arguments.jobs))
        return
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with OnPostgres() if arguments.postgres else OnRedis() as store:
        for _ in range(arguments.rounds):
            for kind in KINDS:
                found[kind].append(measure(store, kind, arguments.jobs, arguments.groups))
    print(machine())
    print(f"\n{arguments.jobs:,} jobs, {arguments.groups:,} groups\n")
    print("| | jobs/s | of plain | in the rounds | server, µs/job |\n|---|---|---|---|---|")
    for kind in KINDS:
        speed = statistics.median(speed for speed, _ in found[kind])
        served = statistics.median(served for _, served in found[kind])
        ratios = [one / plain for (one, _), (plain, _) in zip(found[kind], found["plain"], strict=True)]
        span = f"{min(ratios):.0%} to {max(ratios):.0%}"
        print(f"| {kind} | {speed:,.0f} | {statistics.median(ratios):.0%} | {span} | {served:.1f} |")


if __name__ == "__main__":
    main()
