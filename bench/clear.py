"""What others feel while a queue of a million jobs is cleared.

    python -m bench clear [--jobs 1000000]

A second process, or for the memory store a second coroutine, enqueues one job after the other in another
queue of the same store, each as soon as the one before is answered, before the clear and during it. The
longest of them is what a clear, or one with ``ended``, takes from others at a time. On PostgreSQL a third
process commits bare inserts into another database meanwhile: what these wait, the disk takes from everybody.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import asyncpg

from bench.measure import machine, run
from bench.postgres_server import Database, Server
from bench.redis_server import RedisServer
from jobqueue import Queue, Storage
from jobqueue.model.numbers import percentile
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.urls import open_storage

BATCH = 1_000
PAUSE = 0.001
"""Seconds between two calls of the other."""
QUIET = 2.0
"""Seconds for which the other is watched alone."""
LONGEST = 50.0
"""Target in milliseconds."""


async def _others(storage: Storage, begun: Callable[[], Any], stopped: Callable[[], bool]) -> list[float]:
    """Enqueue until told to stop; return the milliseconds of each, from when it was due."""
    taken: list[float] = []
    async with Queue[int, Any](storage, "other") as queue:
        await queue.enqueue(None, 1)
        begun()
        while not stopped():
            due = time.perf_counter() + PAUSE
            await asyncio.sleep(PAUSE)
            await queue.enqueue(None, 1)
            taken.append((time.perf_counter() - due) * 1e3)
    return taken


async def _elsewhere(url: str) -> None:
    """Be the other, in a process of its own, until a line comes; print what it saw."""
    line = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    taken = await _others(open_storage(url), lambda: print(flush=True), line.done)
    print(" ".join(f"{ms:.3f}" for ms in taken))


async def _commits(url: str) -> None:
    """Be the third: commit one row after the other until a line comes; print what it saw."""
    line = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    taken: list[float] = []
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("create table if not exists bare (n int)")
        print(flush=True)
        while not line.done():
            due = time.perf_counter() + PAUSE
            await asyncio.sleep(PAUSE)
            await connection.execute("insert into bare values (1)")
            taken.append((time.perf_counter() - due) * 1e3)
    finally:
        await connection.close()
    print(" ".join(f"{ms:.3f}" for ms in taken))


class _Other:
    """Works from its making until it is asked what it saw; ``role``: how its process is called."""

    def __init__(self, storage: Storage, url: str, role: str = "--watch") -> None:
        self._storage = storage
        self._url = url
        self._role = role
        self._over = False

    async def start(self) -> Self:
        """Begin, in a process of its own unless the store is in this one's memory."""
        if not self._storage.shared:
            begun = asyncio.Event()
            self._task = asyncio.create_task(_others(self._storage, begun.set, lambda: self._over))
            await begun.wait()
            return self
        command = [sys.executable, "-m", "bench", "clear", self._role, self._url]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        await self._process.stdout.readline()  # it has begun
        return self

    async def seen(self) -> list[str]:
        """End it; return the cells of the table: p99 and the longest."""
        if self._storage.shared:
            said, _ = await self._process.communicate(b"\n")
            taken = [float(word) for word in said.split()]
        else:
            self._over = True
            taken = await self._task
        return [f"{percentile(sorted(taken), 0.99):.1f}", f"{max(taken):.1f}"]


async def _measure(url: str, jobs: int, bare: str) -> list[str]:
    """Fill a queue and clear it, twice; return the cells of the table. ``bare``: where bare inserts go."""
    cells: list[str] = []
    storage = open_storage(url)
    async with Queue[int, Any](storage, "full") as queue:
        other = await _Other(storage, url).start()
        await asyncio.sleep(QUIET)
        cells += await other.seen()
        for ended in (False, True):
            for first in range(0, jobs, BATCH):
                await queue.enqueue_many([(f"{ended}-{n}", n) for n in range(first, first + BATCH)])
            other = await _Other(storage, url).start()
            third = await _Other(storage, bare, "--commit").start() if bare else None
            began = time.perf_counter()
            await queue.clear(ended=ended)
            cells.append(f"{time.perf_counter() - began:.1f} s")
            cells += await other.seen()
            if third is not None:
                print(f"bare commits beside a clear: p99 and longest {', '.join(await third.seen())} ms")
    return cells


async def _note(rows: dict[str, list[str]], name: str, url: str, jobs: int, bare: str) -> None:
    rows[name] = await _measure(url, jobs, bare)


@contextmanager
def _stores() -> Iterator[dict[str, tuple[str, str]]]:
    """Start the servers; yield the URL of each store, and where bare inserts go."""
    with (
        tempfile.TemporaryDirectory(prefix="jobqueue-bench-") as directory,
        RedisServer() as redis,
        Server() as postgres,
        Database(postgres, "bench_clear").create() as database,
        Database(postgres, "bench_bare").create() as bare,
    ):
        asyncio.run(PostgresStorage(database.url).apply_schema())
        yield {
            "memory": ("memory://", ""), "files": (f"file://{directory}/jobs", ""),
            f"Redis {redis.version}": (redis.url, ""),
            f"PostgreSQL {postgres.version}": (database.url, bare.url),
        }  # fmt: skip


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser("python -m bench clear")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--only", default="", metavar="NAME", help="stores whose names begin so")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--commit", metavar="URL", help=argparse.SUPPRESS)
    options: Any = parser.parse_args(sys.argv[2:])
    if options.watch:
        run(lambda: _elsewhere(options.watch))
        return
    if options.commit:
        run(lambda: _commits(options.commit))
        return
    rows: dict[str, list[str]] = {}
    with _stores() as urls:
        for name, (url, bare) in urls.items():
            if not name.lower().startswith(options.only.lower()):
                continue
            run(partial(_note, rows, name, url, options.jobs, bare))
    print(f"{machine()}, {options.jobs:,} jobs; an enqueue of another process in ms, p99 and the longest\n")
    print("| store | alone | | clear | | | clear, ended too | | |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    longest = max(float(cells[at]) for cells in rows.values() for at in (4, 7))
    print(f"\nThe longest is {longest:.1f} ms; the target is {LONGEST:g}.")
