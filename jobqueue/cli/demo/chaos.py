"""``demo --chaos``: workers and reapers as processes, some of them killed in mid-run.

The order of events is that of an outage: a worker dies while it runs jobs, and so does the reaper that
would have recovered them. The other reaper takes over, the other worker does the work.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from jobqueue.cli.client import opened, shared_storage
from jobqueue.cli.demo.chaos_check import Kill, judge_chaos
from jobqueue.cli.demo.chaos_processes import Child
from jobqueue.cli.demo.chaos_view import View, viewing
from jobqueue.cli.demo.chaos_work import LEASE, NOTES_VARIABLE, QUEUE_VARIABLE, Order, Outcome, read_runs
from jobqueue.cli.demo.check import Expected, direct
from jobqueue.cli.demo.files import Found, job_id, pack
from jobqueue.cli.demo.report import progress
from jobqueue.cli.demo.scenario import withdraw
from jobqueue.cli.exits import Failure
from jobqueue.cli.output import console
from jobqueue.errors import JobFailedError, JobQueueError
from jobqueue.queue import Queue
from jobqueue.reaper import REAPER_LOCK
from jobqueue.runtime import SYSTEM_CLOCK, unique_id
from jobqueue.storage.base import Record, Storage
from jobqueue.storage.urls import redact

__all__ = ["run_chaos"]

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


async def run_chaos(found: Found, url: str | None, concurrency: int) -> dict[str, Any]:
    """Do all of it on the store of ``url``, or on files in a temporary directory. Return the numbers."""
    with tempfile.TemporaryDirectory(prefix="jobqueue-chaos-") as directory:
        used = url or Path(directory, "store").as_uri()
        async with opened(shared_storage(used, make=True)) as storage:
            with viewing(console(stderr=True)) as view:
                chaos = Chaos(storage, used, found, concurrency, Path(directory, "runs"), view)
                await chaos.run()
        with progress(console(stderr=True)) as begin:
            expected = await asyncio.to_thread(direct, found, begin)
        return chaos.numbers(expected, redact(url) if url else "a temporary file store")


class Chaos:
    """The processes of a demo, and the outcomes of its jobs."""

    def __init__(
        self, storage: Storage, url: str, found: Found, concurrency: int, notes: Path, view: View
    ) -> None:
        self._storage = storage
        self._url = url
        self._found = found
        self._slots = concurrency
        self._notes = notes
        self._view = view
        self._queue: Queue[Order, Outcome] = Queue(storage, f"chaos-{unique_id()}", result_ttl=600.0)
        self._children: list[Child] = []
        self._kills: list[Kill] = []
        self._terms: list[int] = []
        self._told: dict[str, Outcome | None] = {}
        self._records: dict[str, Record | None] = {}
        self._began = self._seconds = 0.0
        self._problems: list[str] = []

    async def run(self) -> None:
        """Start, work, kill, and wait for every outcome."""
        async with self._queue:
            holder = await self._storage.holder(REAPER_LOCK)
            if holder is not None:
                raise Failure(
                    "a reaper leads on this store, or died on it a moment ago, and this demo kills the "
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
        work = ["worker", "jobqueue.cli.demo.chaos_work:queue", "--concurrency", str(self._slots),
                "--no-reaper"]  # fmt: skip
        # The store goes in a variable, not in an argument: all users of the host see those.
        environ = {
            "JOBQUEUE_STORAGE": self._url,
            NOTES_VARIABLE: str(self._notes),
            QUEUE_VARIABLE: self._queue.name,
        }
        for role, arguments in (("reaper", reaper), ("reaper", reaper), ("worker", work), ("worker", work)):
            self._children.append(await Child.start(role, arguments, environ, self._hear))
        await self._until(self._all_there, "a worker or reaper did not start")
        self._view.tell("two workers and two reapers are there")

    def _hear(self, child: Child, what: str) -> None:
        if child.term is not None:
            self._terms.append(child.term)
        self._view.tell(f"{child.role} {child.pid} {what}")

    async def _all_there(self) -> bool:
        dead = [child for child in self._children if not child.alive]
        if dead:
            raise Failure(f"a {dead[0].role} ended at once: {' '.join(dead[0].said)}")
        workers = await self._storage.workers(self._queue.name)
        return len(workers) >= 2 and self._leader() is not None

    def _leader(self) -> Child | None:
        return next((child for child in self._children if child.alive and child.term is not None), None)

    async def _until(self, look: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        deadline = SYSTEM_CLOCK.monotonic() + STARTS_WITHIN
        while not await look():
            if SYSTEM_CLOCK.monotonic() > deadline:
                raise Failure(f"{otherwise} within {STARTS_WITHIN:g} s")
            await self._draw()
            await SYSTEM_CLOCK.sleep(LOOK)

    async def _kill(self, child: Child) -> None:
        what = "the leading reaper" if child.role == "reaper" else "worker"
        self._kills.append(Kill(child.role, child.pid, SYSTEM_CLOCK.time()))
        await child.kill()
        self._view.tell(f"SIGKILL for {what} {child.pid}")

    # -- jobs -------------------------------------------------------------------------------------

    async def _work(self) -> None:
        self._began = SYSTEM_CLOCK.time()
        root, files = self._found.root, self._found.files
        orders = {job_id(root, file.path): Order(path=pack(file.path)) for file in files}
        await self._queue.enqueue_many(list(orders.items()))
        self._view.tell(f"{len(orders):,} jobs are enqueued, and somebody waits for each")
        waiting = asyncio.gather(*map(self._wait, orders))
        try:
            await self._strike(len(orders))
            while not waiting.done():
                await self._draw()
                await SYSTEM_CLOCK.sleep(LOOK)
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        self._seconds = SYSTEM_CLOCK.time() - self._began
        self._view.tell(f"all waiters have been answered: {len(self._told):,} outcomes")
        # Were the jobs few, all is done before the lock expires. The end is to show who leads then.
        await self._until(self._led_again, "the other reaper did not take over")

    async def _wait(self, id: str) -> None:
        try:
            self._told[id] = await self._queue.wait(id, timeout=LONGEST)
        except JobFailedError:
            self._told[id] = None
        except JobQueueError as error:
            self._problems.append(f"{id}: {error}")

    async def _strike(self, jobs: int) -> None:
        """Kill a worker that runs jobs, then the reaper that would recover them."""
        worker = next(child for child in self._children if child.role == "worker")
        name = f"worker-{worker.pid}"

        async def in_mid_run() -> bool:
            running = await self._draw()
            return len(self._told) >= jobs // 4 and running.get(name, 0) > 0

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

    async def _read_records(self) -> None:
        ids = [job_id(self._found.root, file.path) for file in self._found.files]
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            records = await self._storage.get(self._queue.name, batch)
            self._records.update(zip(batch, records, strict=True))

    async def _clean_up(self) -> None:
        """Remove everything from a store that others use."""
        ids = [job_id(self._found.root, file.path) for file in self._found.files]
        if not self._records:  # it was interrupted
            await withdraw(self._queue, ids)
        for start in range(0, len(ids), BATCH):
            await self._storage.keep(self._queue.name, [(id, 1) for id in ids[start : start + BATCH]])
        await SYSTEM_CLOCK.sleep(0.01)
        while await self._storage.purge(self._queue.name, BATCH) == BATCH:
            pass

    # -- numbers ----------------------------------------------------------------------------------

    def numbers(self, expected: Expected, storage: str) -> dict[str, Any]:
        """Return the checked numbers."""
        verdict = judge_chaos(
            expected, self._told, self._records, read_runs(self._notes), self._kills, self._slots
        )
        return {
            "directory": str(self._found.root),
            "storage": storage,
            "jobs": len(expected.answers),
            "seconds": round(self._seconds, 3),
            "kills": [
                {"role": kill.role, "pid": kill.pid, "seconds": round(kill.at - self._began, 3)}
                for kill in self._kills
            ],
            "ended": verdict.ended,
            "lost": verdict.lost,
            "verified": verdict.equal,
            "changed": verdict.changed,
            "duplicates": verdict.duplicates,
            "attributed": verdict.attributed,
            "recovery_seconds": {"max": round(max(verdict.recovery, default=0.0), 3)},
            "lease": LEASE,
            "lock_ttl": LOCK_TTL,
            "terms": self._terms,
            "wrong": [*self._problems, *self._unkilled(), *verdict.wrong],
        }

    def _unkilled(self) -> list[str]:
        roles = [kill.role for kill in self._kills]
        wrong = [f"no {role} was killed" for role in ("worker", "reaper") if role not in roles]
        if len(set(self._terms)) < 2:
            wrong.append("leadership did not change hands")
        return wrong
