"""What a call through ``queue.sync`` costs beside the awaited one: memory and Redis, in turns, in one run.

One thread makes one call after the other: an ``enqueue``, and a request/response (``enqueue_and_wait``) that
a worker answers, on Redis in a process of its own. Both kinds take turns in blocks of fifty calls.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from bench.measure import machine
from bench.redis_server import RedisServer
from jobqueue import Job, MemoryStorage, Queue, RedisStorage, Storage
from jobqueue.model.numbers import percentile

BLOCKS = 40
BLOCK = 50


async def work(storage: Storage, until: Callable[[], Awaitable[object]]) -> None:
    """Answer jobs with their payloads."""
    queue: Queue[Any, Any] = Queue(storage, "answered", concurrency=10)

    @queue.execute
    async def echo(job: Job[Any]) -> Any:
        return job.payload

    async with queue:
        await until()


def work_on_redis(url: str) -> None:
    """Be a worker process, until killed."""
    asyncio.run(work(RedisStorage(url), lambda: asyncio.Event().wait()))


async def timed_awaits(call: Callable[[], Coroutine[Any, Any, Any]], into: list[float]) -> None:
    """Await calls one after the other, and note the seconds of each."""
    for _ in range(BLOCK):
        began = time.perf_counter()
        await call()
        into.append(time.perf_counter() - began)


def timed(call: Callable[[], object], into: list[float]) -> None:
    """Make calls one after the other, and note the seconds of each."""
    for _ in range(BLOCK):
        began = time.perf_counter()
        call()
        into.append(time.perf_counter() - began)


def compare(store: str, storage: Storage, name: str, call: str) -> None:
    """Print the row of one call."""
    loop = asyncio.new_event_loop()
    queue: Queue[Any, Any] = Queue(storage.clone(), name)
    own: Queue[Any, Any] = Queue(storage.clone(), name)
    loop.run_until_complete(own.start())
    plain: list[float] = []
    blocking: list[float] = []
    for _ in range(BLOCKS):
        loop.run_until_complete(timed_awaits(partial(getattr(own, call), None, 1), plain))
        timed(partial(getattr(queue.sync, call), None, 1), blocking)
    loop.run_until_complete(own.stop())
    loop.close()
    queue.sync.close()
    middle = [statistics.median(times) * 1e3 for times in (plain, blocking)]
    late = [percentile(times, 0.95) * 1e3 for times in (plain, blocking)]
    print(
        f"| {store} | {call} | {middle[0]:.3f} | {middle[1]:.3f} | {middle[1] - middle[0]:+.3f} "
        f"| {late[0]:.3f} | {late[1]:.3f} |",
        flush=True,
    )


def compare_both(store: str, storage: Storage) -> None:
    """Print the rows of one store."""
    compare(store, storage, "stored", "enqueue")
    compare(store, storage, "answered", "enqueue_and_wait")


def main() -> None:
    """Compare on both stores."""
    print(f"{machine()}; {BLOCKS * BLOCK} calls of each kind, one at a time; milliseconds\n")
    print("| store | call | awaited, p50 | sync, p50 | added | awaited, p95 | sync, p95 |")
    print("|---|---|---|---|---|---|---|")
    storage, ends = MemoryStorage(), threading.Event()
    worker = threading.Thread(target=lambda: asyncio.run(work(storage, lambda: asyncio.to_thread(ends.wait))))
    worker.start()
    compare_both("memory", storage)
    ends.set()
    worker.join()
    with RedisServer() as server:
        url = f"redis://127.0.0.1:{server.port}"
        process = multiprocessing.get_context("spawn").Process(target=work_on_redis, args=(url,))
        process.start()
        compare_both("Redis", RedisStorage(url))
        process.kill()
        process.join()
