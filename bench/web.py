"""The dashboard: how long each page takes with a million jobs, on Redis, PostgreSQL and in memory.

    python -m bench web [--jobs 1000000] [--rounds 60] [--store redis --store postgres --store memory]

Most jobs are in one queue, in all states; 24 other queues have a few, and each queue has a worker and a
schedule. The pages are asked for one at a time through the ASGI application itself, each
``--rounds`` times in turns with the others, while one page is open in a browser, so that the background
task looks at the store as well. Milliseconds from the request to the end of the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

from bench.chart import number
from bench.measure import machine, run
from bench.redis_server import RedisServer
from jobqueue import Job, LeaderElection, MemoryStorage, PostgresStorage, Queue, Reaper, Storage, open_storage
from jobqueue.model.new_job import NewJob
from jobqueue.model.numbers import percentile
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.web import Dashboard, dashboard

TARGET = 100.0
"""Milliseconds that 95 of 100 requests for any page may take at the most."""
BIG = "mail"
OTHERS, FEW = 24, 200
BATCH, IN_FLIGHT = 1_000, 4
SHARES = {"completed": 0.25, "failed": 0.05, "scheduled": 0.2}
"""Parts of the jobs of the large queue; the rest is queued."""
DAY = 86_400_000
PAGES: dict[str, tuple[str, dict[str, str]]] = {
    "overview": ("/", {}),
    "queue": ("/queue", {"queue": BIG}),
    "queue, queued jobs": ("/queue", {"queue": BIG, "state": "queued"}),
    "queue, failed jobs": ("/queue", {"queue": BIG, "state": "failed"}),
    "queue, a task that no job has": ("/queue", {"queue": BIG, "task": "nothing"}),
    "job": ("/job", {"queue": BIG, "id": "job-99"}),
    "job, queued": ("/job", {"queue": BIG, "id": "waiting-99"}),
    "dead letters": ("/dead", {}),
    "schedules": ("/schedules", {}),
    "workers": ("/workers", {}),
    "system": ("/system", {}),
}


def batches(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """Cut jobs into batches."""
    for start in range(0, len(jobs), BATCH):
        yield jobs[start : start + BATCH]


async def insert(storage: Storage, queue: str, jobs: Sequence[NewJob]) -> None:
    """Insert jobs, some batches at the same time."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(batch: Sequence[NewJob]) -> None:
        async with gate:
            await storage.insert(queue, batch)

    await asyncio.gather(*(one(batch) for batch in batches(jobs)))


async def end(storage: Storage, queue: str, completed: int, failed: int) -> None:
    """Claim and settle as many jobs."""
    done: list[Settlement] = []
    left = completed + failed
    while left or done:
        exchanged = await storage.exchange(queue, "filler", done, min(BATCH, left), 60_000)
        done = []
        for claimed in exchanged.jobs:
            action = Action.COMPLETE if left > failed else Action.FAIL
            data = b"42" if action is Action.COMPLETE else b""
            done.append(Settlement(claimed.id, claimed.fence, action, data, DAY))
            left -= 1


async def fill(storage: Storage, jobs: int) -> None:
    """Have so many jobs in the store."""
    large = max(BATCH, jobs - OTHERS * FEW)
    completed, failed, later = (int(large * share) for share in SHARES.values())
    body = b'{"to":"a@shop.example","lang":"en"}'
    ended = [NewJob(f"job-{n}", body) for n in range(completed + failed)]
    await insert(storage, BIG, ended)
    await end(storage, BIG, completed, failed)
    await insert(storage, BIG, [NewJob(f"later-{n}", body, delay=DAY + n) for n in range(later)])
    waiting = range(large - completed - failed - later)
    await insert(storage, BIG, [NewJob(f"waiting-{n}", body) for n in waiting])
    for queue in other_queues():
        await insert(storage, queue, [NewJob(f"job-{n}", body) for n in range(FEW)])


def other_queues() -> list[str]:
    """Return the names of the small queues."""
    return [f"queue-{place:02}" for place in range(OTHERS)]


def scope_of(path: str, query: str) -> dict[str, Any]:
    """Return what a server tells an application of a request."""
    return {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path,
        "root_path": "", "query_string": query.encode(), "headers": [(b"host", b"localhost")],
    }  # fmt: skip


async def get(app: Dashboard, path: str, query: dict[str, str]) -> tuple[int, int]:
    """Ask for a page; return the status and the size of the answer."""
    status = size = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, size
        status = message.get("status", status)
        size += len(message.get("body", b""))

    await app(scope_of(path, urlencode(query)), receive, send)
    return status, size


async def watch(app: Dashboard) -> None:
    """Have the overview open, as a browser has."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_message: Any) -> None:
        pass

    while True:
        await app(scope_of("/events", "page=overview"), receive, send)


async def measure(storage: Storage, jobs: int, rounds: int) -> dict[str, list[float]]:
    """Fill the store, and ask for each page so many times; return the milliseconds of each, in order."""
    if isinstance(storage, PostgresStorage):
        await storage.apply_schema()
    await storage.open()
    began = time.perf_counter()
    await fill(storage, jobs)
    print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    workers = [Queue[Any, Any](storage, name, concurrency=1) for name in [BIG, *other_queues()]]
    for queue in workers:
        queue.execute(_wait)
        await queue.start()
        await queue.schedules.add("digest", {"to": "all"}, every=3_600.0)
    found: dict[str, list[float]] = {name: [] for name in PAGES}
    async with Reaper(storage, leader_election=LeaderElection()):
        app = dashboard(storage)
        watching = asyncio.create_task(watch(app))
        for _ in range(rounds):
            for name, (path, query) in PAGES.items():
                started = time.perf_counter()
                status, size = await get(app, path, query)
                found[name].append((time.perf_counter() - started) * 1000)
                if status != 200:
                    raise SystemExit(f"{name}: {status}, {size} bytes")
        watching.cancel()
        await asyncio.wait([watching])
        await app.close()
    await asyncio.gather(*(queue.stop(0.0) for queue in workers))
    await storage.close()
    return found


async def _wait(_job: Job[Any]) -> None:
    """Run until the end, so that each worker has a running job."""
    await asyncio.Event().wait()


def storage_of(name: str, stack: ExitStack) -> Storage:
    """Return an empty store; what serves it ends with the stack."""
    match name:
        case "redis":
            return open_storage(stack.enter_context(RedisServer()).url)
        case "postgres":
            from bench.postgres_server import Database, Server  # noqa: PLC0415 - it needs asyncpg

            server = stack.enter_context(Server())
            return open_storage(stack.enter_context(Database(server, "web").create()).url)
        case _:
            return MemoryStorage()


def main() -> None:
    """Measure the stores in turn, and print a table of each."""
    names = ("redis", "postgres", "memory")
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser("python -m bench web")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--store", choices=names, action="append")
    arguments = parser.parse_args(sys.argv[2:])
    print(f"{machine()}, {arguments.jobs:,} jobs, {arguments.rounds} requests for each page\n")
    for name in arguments.store or names:
        with ExitStack() as stack:
            storage = storage_of(name, stack)
            found: dict[str, list[float]] = {}

            async def once(storage: Storage = storage, found: dict[str, list[float]] = found) -> None:
                found.update(await measure(storage, arguments.jobs, arguments.rounds))

            run(once)
            print(f"| {name} | first | p50 | p95 | longest | p95 < {TARGET:g} ms |")
            print("|---|---:|---:|---:|---:|---|")
            for page, times in found.items():
                figures = (times[0], percentile(times, 0.5), percentile(times, 0.95), max(times))
                holds = "yes" if figures[2] < TARGET else "**no**"
                print(f"| {page} | {' | '.join(map(number, figures))} | {holds} |")
            print(flush=True)
