"""`python -m bench chaos`: starts the processes, kills two of them, and checks every job."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.chaos.check import Kill, judge
from bench.chaos.processes import Child
from bench.chaos.view import View
from bench.chaos.work import FILES, LEASE, NOTES_VARIABLE, QUEUE_VARIABLE, Outcome, digest, read_runs
from jobqueue import JobQueueError, Queue, Storage, open_storage
from jobqueue.model.names import REAPER_LOCK
from jobqueue.storage.values import Record

__all__ = ["main"]

LOCK_TTL = 2.0
"""Seconds that leadership outlives a dead leader."""
SWEEP = 0.25
"""Seconds between two sweeps."""
LONGEST = 120.0
"""Seconds after which a job that has not ended counts as lost."""
STARTS_WITHIN = 60.0
"""Seconds that a process gets to start."""
LOOK = 0.05
"""Seconds between two looks at the store."""
BATCH = 200
SHOWN = 5
"""Faults that are shown one by one."""


def main() -> None:
    """Read the options, run, and print the numbers. Exit code 1 if anything is not as promised."""
    parser = argparse.ArgumentParser(
        prog="python -m bench chaos",
        description="Two workers and two reapers; a worker and the leading reaper get SIGKILL in mid-run. "
        "Exit code 1 unless every job ended exactly once and each further run was cut off by a kill.",
    )
    parser.add_argument(
        "-s",
        "--storage",
        metavar="URL",
        default=os.environ.get("JOBQUEUE_STORAGE"),
        help="a store that processes share and on which no reaper leads, by default JOBQUEUE_STORAGE; "
        "without either, files in a temporary directory",
    )
    parser.add_argument("--jobs", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--slots", type=int, default=8, help="concurrency of a worker, default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args(sys.argv[2:])
    try:
        numbers = asyncio.run(_run(options.storage, options.jobs, options.slots))
    except JobQueueError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        print("Error: interrupted", file=sys.stderr)
        sys.exit(130)
    print(json.dumps(numbers) if options.json else _lines(numbers))
    for line in numbers["wrong"][:SHOWN]:
        print(line, file=sys.stderr)
    sys.exit(1 if numbers["wrong"] else 0)


async def _run(url: str | None, jobs: int, slots: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="jobqueue-chaos-") as directory:
        used = url or Path(directory, "store").as_uri()
        storage = open_storage(used)
        if not storage.shared:
            sys.exit(f"Error: {storage!r} lives in one process: use a store that processes share")
        await storage.open()
        try:
            with View(Console(stderr=True)).drawing() as view:
                chaos = Chaos(storage, used, jobs, slots, Path(directory, "runs"), view)
                await chaos.run()
        finally:
            await storage.close()
        return chaos.numbers()


class Chaos:
    """The processes of a run, and the outcomes of its jobs."""

    def __init__(self, storage: Storage, url: str, jobs: int, slots: int, notes: Path, view: View) -> None:
        self._storage = storage
        self._url = url
        self._orders = {f"job-{n}": FILES[n % len(FILES)] for n in range(jobs)}
        self._slots = slots
        self._notes = notes
        self._view = view
        name = f"chaos-{random.SystemRandom().getrandbits(64):016x}"
        self._queue: Queue[str, Outcome] = Queue(storage, name, result_ttl=600.0)
        self._children: list[Child] = []
        self._kills: list[Kill] = []
        self._terms: list[int] = []
        self._answered: dict[str, Outcome] = {}
        self._records: dict[str, Record | None] = {}
        self._began = self._seconds = 0.0
        self._problems: list[str] = []

    async def run(self) -> None:
        """Start, work, kill, and wait for every outcome."""
        async with self._queue:
            if await self._storage.lock_holder(REAPER_LOCK) is not None:
                sys.exit(
                    "Error: a reaper leads on this store, or died on it a moment ago, and this run kills the "
                    "leader: use another store"
                )
            try:
                async with self._processes():
                    await self._start()
                    await self._work()
                    await self._read_records()
            finally:
                await self._clean_up()

    # -- processes --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _processes(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await asyncio.gather(*(child.end() for child in self._children if child.alive))

    async def _start(self) -> None:
        reaper = ["reaper", "-q", self._queue.name, "--leader-election", "--lock-ttl", str(LOCK_TTL),
                  "--sweep-interval", str(SWEEP)]  # fmt: skip
        worker = ["worker", "bench.chaos.work:queue", "--concurrency", str(self._slots), "--no-reaper"]
        environ = {
            "JOBQUEUE_STORAGE": self._url,
            NOTES_VARIABLE: str(self._notes),
            QUEUE_VARIABLE: self._queue.name,
        }
        for arguments in (reaper, reaper, worker, worker):
            self._children.append(await Child.start(arguments, environ, self._leads))
        await self._until(self._all_there, "a worker or reaper did not start")
        self._view.tell("two workers and two reapers are there")

    def _leads(self, child: Child) -> None:
        if child.term is not None:
            self._terms.append(child.term)
        self._view.tell(f"{child.role} {child.pid} leads, term {child.term}")

    async def _all_there(self) -> bool:
        dead = [child for child in self._children if not child.alive]
        if dead:
            sys.exit(f"Error: a {dead[0].role} ended at once: {' '.join(dead[0].said)}")
        workers = await self._storage.workers(self._queue.name)
        return len(workers) >= 2 and self._leader() is not None

    def _leader(self) -> Child | None:
        return next((child for child in self._children if child.alive and child.term is not None), None)

    async def _until(self, look: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while not await look():
            if time.monotonic() > deadline:
                sys.exit(f"Error: {otherwise} within {STARTS_WITHIN:g} s")
            await self._draw()
            await asyncio.sleep(LOOK)

    async def _kill(self, child: Child) -> None:
        name = "the leading reaper" if child.role == "reaper" else "worker"
        self._kills.append(Kill(child.role, child.pid, time.time()))
        await child.kill()
        self._view.tell(f"SIGKILL for {name} {child.pid}")

    # -- jobs -------------------------------------------------------------------------------------

    async def _work(self) -> None:
        self._began = time.time()
        await self._queue.enqueue_many(list(self._orders.items()))
        self._view.tell(f"{len(self._orders):,} jobs are enqueued, and a caller waits for each")
        waiting = asyncio.gather(*map(self._wait, self._orders))
        try:
            await self._strike()
            while not waiting.done():
                await self._draw()
                await asyncio.sleep(LOOK)
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        self._seconds = time.time() - self._began
        self._view.tell(f"all callers have been answered: {len(self._answered):,} outcomes")
        # Were the jobs few, all is done before the lock expires. The end is to show who leads then.
        await self._until(self._led_again, "the other reaper did not take over")

    async def _wait(self, id: str) -> None:
        try:
            self._answered[id] = await self._queue.wait(id, timeout=LONGEST)
        except JobQueueError as error:
            self._problems.append(f"{id}: {error}")

    async def _strike(self) -> None:
        """Kill a worker that runs jobs, then the reaper that would recover them."""
        worker = next(child for child in self._children if child.role == "worker")
        name = f"worker-{worker.pid}"

        async def in_mid_run() -> bool:
            running = await self._draw()
            return len(self._answered) >= len(self._orders) // 4 and running.get(name, 0) > 0

        await self._until(in_mid_run, "no job was run")
        await self._kill(worker)
        leader = self._leader()
        if leader is not None:
            await self._kill(leader)

    async def _led_again(self) -> bool:
        return self._leader() is not None

    async def _draw(self) -> dict[str, int]:
        """Show the progress; return how many jobs each worker runs."""
        name = self._queue.name
        counts = (await self._storage.counts(name))._asdict()
        counts.pop("oldest")
        running = {worker.worker: worker.running for worker in await self._storage.workers(name)}
        self._view.show(self._children, counts, running)
        return running

    # -- the end ----------------------------------------------------------------------------------

    def _batches(self) -> list[list[str]]:
        ids = list(self._orders)
        return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]

    async def _read_records(self) -> None:
        for batch in self._batches():
            records = await self._storage.get(self._queue.name, batch)
            self._records.update(zip(batch, records, strict=True))

    async def _clean_up(self) -> None:
        """Remove everything from a store that others use."""
        for batch in self._batches():
            if not self._records:  # it was interrupted, and nobody will run them
                await asyncio.gather(*(self._queue.cancel(id, running=True) for id in batch))
            await self._storage.set_ttl(self._queue.name, [(id, 1) for id in batch])
        await asyncio.sleep(0.01)
        while await self._storage.purge(self._queue.name, BATCH) == BATCH:
            pass

    def numbers(self) -> dict[str, Any]:
        """Return the checked numbers."""
        right = {path: digest(path) for path in set(self._orders.values())}
        expected = {id: right[path] for id, path in self._orders.items()}
        runs = read_runs(self._notes)
        verdict = judge(expected, self._answered, self._records, runs, self._kills, self._slots)
        kills = [
            {"role": kill.role, "pid": kill.pid, "seconds": round(kill.at - self._began, 3)}
            for kill in self._kills
        ]
        return {
            "jobs": len(expected),
            "seconds": round(self._seconds, 3),
            "kills": kills,
            "ended": verdict.ended,
            "lost": verdict.lost,
            "duplicates": verdict.duplicates,
            "attributed": verdict.attributed,
            "recovery_seconds": round(max(verdict.recovery, default=0.0), 3),
            "terms": self._terms,
            "wrong": [*self._problems, *self._not_killed(), *verdict.wrong],
        }

    def _not_killed(self) -> list[str]:
        roles = [kill.role for kill in self._kills]
        wrong = [f"no {role} was killed" for role in ("worker", "reaper") if role not in roles]
        if len(set(self._terms)) < 2:
            wrong.append("leadership did not change hands")
        return wrong


def _lines(numbers: dict[str, Any]) -> str:
    """Write the numbers for people."""
    kills = ", ".join(f"{kill['role']} {kill['pid']} at {kill['seconds']:.2f} s" for kill in numbers["kills"])
    rows = {
        "jobs": f"{numbers['jobs']:,} in {numbers['seconds']:.2f} s",
        "killed": kills,
        "ended exactly once": f"{numbers['ended']:,} of {numbers['jobs']:,}",
        "lost": f"{numbers['lost']:,}",
        "duplicates": f"{numbers['duplicates']:,}, of which {numbers['attributed']:,} cut off by a kill",
        "recovered in": f"{numbers['recovery_seconds']:.2f} s (lease {LEASE:g} s, lock {LOCK_TTL:g} s)",
        "leadership": f"terms {', '.join(map(str, numbers['terms']))}",
    }
    return "\n".join(f"{name:20}{text}" for name, text in rows.items())
