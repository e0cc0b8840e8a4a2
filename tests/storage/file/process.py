"""One process of a test with several; speaks JSON lines (``python -m tests.storage.file.process ROLE``)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.file import FileStorage
from jobqueue.storage.values import Claimed, NewJob

LEASE, TTL = 60_000, 3_600_000


def say(**news: Any) -> None:
    print(json.dumps(news), flush=True)


def settled(jobs: Sequence[Claimed], result: bytes) -> list[Settlement]:
    return [Settlement(job.id, job.fence, Action.COMPLETE, result, TTL) for job in jobs]


async def share(store: FileStorage, name: str, count: int, total: int) -> None:
    """Insert jobs and work on everybody's, until all are done."""
    queued = range(count)
    for start in range(0, count, 50):
        chunk = [NewJob(f"{name}-{number}", b"x" * 100, ttl=TTL) for number in queued[start : start + 50]]
        await asyncio.gather(*(store.insert("q", chunk[i : i + 5]) for i in range(0, len(chunk), 5)))
    ran: list[str] = []
    done: list[Settlement] = []
    while True:
        answer = await store.exchange("q", name, done, 25, LEASE)
        assert all(status == "accepted" for status in answer.settled)
        ran += (job.id for job in answer.jobs)
        done = settled(answer.jobs, name.encode())
        if not answer.jobs:
            if (await store.counts("q")).completed == total:
                break
            await store.wait_for_work("q", name, 0.2)
    say(ran=ran)


async def serve(store: FileStorage, name: str) -> None:
    """Answer every job at once, until one is called "stop"."""
    say(ready=True)
    while True:
        await store.wait_for_work("q", name, 10)
        woken = store.clock.monotonic()
        answer = await store.exchange("q", name, [], 10, LEASE)
        await store.exchange("q", name, settled(answer.jobs, str(woken).encode()), 0, LEASE)
        if any(job.id == "stop" for job in answer.jobs):
            return


async def insert_forever(store: FileStorage, name: str) -> None:
    """Insert jobs one by one, saying which are stored, until killed."""
    number = 0
    while True:
        await store.insert("q", [NewJob(f"{name}-{number}", b"x" * 200, ttl=TTL)])
        say(stored=f"{name}-{number}")
        for job in (await store.exchange("q", name, [], 1, LEASE)).jobs:
            await store.exchange("q", name, settled([job], b"done"), 0, LEASE)
            say(done=job.id)
        number += 1


async def insert_some(store: FileStorage, name: str, count: int) -> None:
    """The same, so many times."""
    for number in range(count):
        await store.insert("q", [NewJob(f"{name}-{number}", b"x" * 200, ttl=TTL)])
        say(stored=f"{name}-{number}")
        if number % 2:
            for job in (await store.exchange("q", name, [], 1, LEASE)).jobs:
                await store.exchange("q", name, settled([job], b"done"), 0, LEASE)
                say(done=job.id)


async def main(role: str, directory: str, name: str, rotate_at: str, fsync: str, *numbers: str) -> None:
    store = FileStorage(directory, fsync == "fsync", rotate_at=int(rotate_at))
    await store.open()
    await globals()[role](store, name, *map(int, numbers))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
