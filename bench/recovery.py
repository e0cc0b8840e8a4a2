"""Recovery: workers are killed a hundred times under load, on files and on Redis; and the cost of idling.

Four worker processes of eight slots each serve 24 callers, who each ask for one job after the other: the
digest of a file, 50 ms at least. About once a second SIGKILL ends the worker that has lived longest, and a
new one starts; the next kill waits until that one claims jobs. Two reapers stand by with a leader
election. Every run is noted by its worker when it begins and when it ends, so that afterwards each job that
a kill cut off is known.

``recovery``: seconds from the kill to the next start of a job that it cut off.

``JOBQUEUE_BENCH_KILLS`` is the number of kills, 100 unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bench.chaos.processes import Child
from bench.chaos.work import FILES, LEASE, NOTES_VARIABLE, QUEUE_VARIABLE, Outcome, Run, digest, read_runs
from bench.measure import machine
from bench.redis_server import RedisServer
from jobqueue import JobState, Queue, Storage, open_storage
from jobqueue.model.numbers import percentile

KILLS = int(os.environ.get("JOBQUEUE_BENCH_KILLS", "100"))
WORKERS = 4
SLOTS = 8
CALLERS = 24
PAUSE = 1.0
"""Seconds between two kills, spread by half."""
SWEEP = 1.0
STORED_WITHIN = 0.5
"""Seconds after the end of a run in which its outcome is stored, at the latest, by a worker that lives."""
LOOK = 60.0
"""Seconds that an idle worker is watched."""
HEAD = """\
| store | kills | jobs | lost | wrong | in flight | run again | unattributed | p50 | p99 | longest |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
QUEUE = "recovery"


@dataclass
class Seen:
    """What was asked for, and what came of it."""

    asked: dict[str, str] = field(default_factory=dict[str, str])
    """The path of the file, by job id."""
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    kills: dict[int, float] = field(default_factory=dict[int, float])
    """When each process was killed, by its number."""


class Fleet:
    """The processes."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ
        self.workers: list[Child] = []
        self.reapers: list[Child] = []

    async def add_worker(self) -> None:
        """Start one more."""
        command = ["worker", "bench.chaos.work:queue", "--concurrency", str(SLOTS)]
        self.workers.append(await Child.start(command, self._environ))

    async def add_reaper(self) -> None:
        """Start one more."""
        command = ["reaper", "-q", QUEUE, "--leader-election", "--sweep-interval", str(SWEEP)]
        self.reapers.append(await Child.start(command, self._environ))

    async def all_seen(self, storage: Storage) -> bool:
        """Whether every worker has begun to claim."""
        seen = {known.worker for known in await storage.workers(QUEUE)}
        return all(f"worker-{worker.pid}" in seen for worker in self.workers)

    async def end(self) -> None:
        """End all."""
        await asyncio.gather(*(child.end() for child in [*self.workers, *self.reapers]))


async def kill_under_load(url: str, notes: Path) -> tuple[Seen, list[Run], dict[str, int]]:
    """Do it; return what the callers saw, all runs, and the fence of each stored outcome."""
    queue: Queue[str, Outcome] = Queue(open_storage(url), QUEUE, max_stalls=1000)
    fleet = Fleet({"JOBQUEUE_STORAGE": url, NOTES_VARIABLE: str(notes), QUEUE_VARIABLE: QUEUE})
    seen, over = Seen(), asyncio.Event()

    async def caller(name: int) -> None:
        number = 0
        while not over.is_set():
            path = FILES[(name * 37 + number) % len(FILES)]
            id, number = f"{name}-{number}", number + 1
            seen.asked[id] = path
            seen.outcomes[id] = await queue.enqueue_and_wait(id, path, timeout=120.0)

    async with queue:
        try:
            for _ in range(2):
                await fleet.add_reaper()
            for _ in range(WORKERS):
                await fleet.add_worker()
            await queue.enqueue_and_wait("first", FILES[0], timeout=60.0)
            calling = asyncio.gather(*map(caller, range(CALLERS)))
            for _ in range(KILLS):
                await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
                # On a busy machine a process takes seconds to start: the others must not all be dead by then.
                while not await fleet.all_seen(queue.storage):  # noqa: ASYNC110 - other processes set no event
                    await asyncio.sleep(0.01)
                victim = fleet.workers.pop(0)
                seen.kills[victim.pid] = time.time()
                await victim.kill()
                await fleet.add_worker()
            over.set()
            await calling
        finally:
            await fleet.end()
        fences: dict[str, int] = {}
        ids = list(seen.asked)
        for start in range(0, len(ids), 500):
            for record in await queue.storage.get(queue.name, ids[start : start + 500]):
                if record is not None and record.state is JobState.COMPLETED:
                    fences[record.id] = record.fence
    return seen, [run for run in read_runs(notes) if run.id != "first"], fences


def row(store: str, seen: Seen, runs: list[Run], fences: dict[str, int]) -> str:
    """Check what happened and write a row of the table."""
    by_id: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_id[run.id].append(run)
    answers = {path: digest(path) for path in set(seen.asked.values())}
    lost = [id for id in seen.asked if id not in seen.outcomes or id not in fences]
    wrong = [id for id, outcome in seen.outcomes.items() if outcome["digest"] != answers[seen.asked[id]]]
    wrong += [id for id, outcome in seen.outcomes.items() if outcome["fence"] != fences.get(id)]
    in_flight = sum(_cut_off(run, fences, seen.kills) for run in runs)
    duplicates = unattributed = 0
    recovery: list[float] = []
    for several in by_id.values():
        for run, following in pairwise(several):
            duplicates += 1
            if _cut_off(run, fences, seen.kills):
                recovery.append(following.started - seen.kills[run.pid])
            else:
                unattributed += 1
    p50, p99 = percentile(recovery, 0.5), percentile(recovery, 0.99)
    return (
        f"| {store} | {len(seen.kills)} | {len(seen.asked):,} | {len(lost)} | {len(wrong)} | {in_flight} | "
        f"{duplicates} | {unattributed} | {p50:.2f} s | {p99:.2f} s | {max(recovery, default=0):.2f} s |"
    )


def _cut_off(run: Run, fences: dict[str, int], kills: dict[int, float]) -> bool:
    """Whether a kill came between the start of a run and the moment that its outcome was stored."""
    at = kills.get(run.pid)
    if at is None or run.ended is None:
        return at is not None
    return run.fence != fences.get(run.id) and run.ended > at - STORED_WITHIN


async def commands_of_an_idle_worker(server: RedisServer) -> float:
    """Return how many commands a worker with default settings sends per second."""
    reader, writer = await asyncio.open_unix_connection(server.socket_path)
    writer.write(b"MONITOR\r\n")
    await reader.readline()
    worker = await Child.start(["worker", "bench.chaos.work:idle"], {"JOBQUEUE_STORAGE": server.url})
    count = 0
    try:
        while b'"BLMOVE"' not in await reader.readline():
            pass
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                async for line in reader:
                    count += b" lua]" not in line
    finally:
        await worker.end()
        writer.close()
    return count / LOOK


def main() -> None:
    """Measure on each store."""
    print(machine())
    print(f"{KILLS} kills, lease {LEASE:g} s, sweep interval {SWEEP:g} s, {WORKERS} workers of {SLOTS} slots")
    print(HEAD)
    with RedisServer() as server:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            urls = {"file": (directory / "store").as_uri(), "redis": server.url}
            for store, url in urls.items():
                print(_measured(store, url, directory / f"runs-on-{store}"), flush=True)
        rate = asyncio.run(commands_of_an_idle_worker(server))
        print(f"an idle worker sends {rate:.2f} commands per second to Redis, over {LOOK:g} s")


def _measured(store: str, url: str, notes: Path) -> str:
    seen, runs, fences = asyncio.run(kill_under_load(url, notes))
    return row(store, seen, runs, fences)
