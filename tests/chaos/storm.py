"""A chaos run: processes on one store, what is done to them, and the end at which all is looked at."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobqueue import GuardedStorage, JobQueueError, JobState, Storage, open_storage
from jobqueue.model.states import ENDED
from tests.chaos.actors import LATE, LEASE, QUEUE
from tests.chaos.check import Model, Verdict, judge
from tests.chaos.history import Line, Recorder, lines_of, read

ROOT = Path(__file__).parents[2]
CAST = ("producer", "producer", "worker", "worker", "worker", "reaper", "reaper")
WEIGHTS = {
    "kill": 6,
    "freeze": 2,
    "cut": 2,
    "slow": 1,
    "restart": 1,
    "rollback": 1,
    "failover": 1,
    "clock": 1,
    "wipe": 2,
}
VICTIMS = {"worker": 6, "reaper": 2, "producer": 1}
PROBE = 0.2
"""Seconds in which a store answers unless a frozen process holds its lock."""
SLOW = 100_000
"""Bytes per second of a slow link."""
HEALS_WITHIN = 90.0
"""Seconds in which all jobs end and all calls are answered when nothing is done any more."""
BATCH = 500
STEPS = (60.0, 5.0, -2.0, -20.0)
"""Seconds by which the clock of a server is set. A lease lives longer when it is set back."""
BEHIND = 2.0
"""Seconds before a failover whose writes the standby may not have."""
UNTOLD = 2.0
"""Seconds before a wipe in which outcomes may not be in the ledger: then a job runs again."""


@dataclass
class Plan:
    """How a run goes."""

    seconds: float
    seed: int
    every: float = 0.5
    """Seconds between two faults, on average."""
    pause: float = 0.1
    """Seconds between two calls of a caller, at most."""
    kinds: tuple[str, ...] = ("kill", "freeze")
    """The faults, beside those of the store."""
    result_ttl: float = 3600.0
    """Seconds that outcomes and dead letters are kept; they are looked at in the end."""


@dataclass
class Report:
    """What a run has come to."""

    verdict: Verdict
    faults: Counter[str] = field(default_factory=Counter)
    lines: list[Line] = field(default_factory=list)
    """Of the history: all of the ids that do not fit, and the faults."""

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        return f"{self.verdict}; faults: {faults}"

    def told(self) -> str:
        """Return all that is known of what does not fit."""
        return "\n".join([str(self), *self.verdict.problems, *map(str, self.lines)])


class Mother:
    """The process that forks the actors."""

    def __init__(self, directory: Path, url: str, ledger: str | None = None) -> None:
        self._directory = directory
        self._url = url
        self._ledger = ledger
        self._process: asyncio.subprocess.Process | None = None
        self._forked = 0

    async def start(self) -> None:
        """Start it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "tests.chaos.actors",
            cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def fork(self, role: str, seed: int, plan: Plan) -> int:
        """Fork an actor; return its number."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._forked += 1
        spec = {
            "role": role,
            "name": f"{role}{self._forked}",
            "seed": seed,
            "pause": plan.pause,
            "result_ttl": plan.result_ttl,
            "url": self._url,
            "ledger": self._ledger,
            "history": str(self._directory / "history"),
            "log": str(self._directory / "log"),
        }
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        return int(await process.stdout.readline())

    async def end(self) -> None:
        """End it and all that it has forked."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


class Storm:
    """One run on one store."""

    def __init__(self, store: Any, directory: Path, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self._draw = random.Random(f"storm {plan.seed}")
        self._history = directory / "history"
        self._recorder = Recorder(self._history)
        self._mother = Mother(directory, store.url, store.ledger)
        self.actors: dict[int, str] = {}
        """The roles of the processes that live."""
        self._gone: list[str] = []
        self._told: set[int] = set()
        """Those who were told to end."""
        self.done: Counter[str] = Counter()
        """The faults so far."""
        self.spared: set[int] = set()
        """Processes to which nothing is done."""
        self.between: Callable[[], Awaitable[None]] | None = None
        """Called after each fault."""

    async def run(self) -> Report:
        """Do it and judge it."""
        storage = open_storage(self._store.direct, self._store.ledger)
        await storage.open()
        try:
            async with self.cast():
                probing = asyncio.create_task(self._probe(storage))
                try:
                    await self.rage(storage)
                    await self._heal(storage)
                finally:
                    await ended(probing)
        finally:
            await storage.close()
        seen = read(self._history)
        verdict = judge(seen, Model(LEASE, guarded=self._store.ledger is not None))
        verdict.problems += self._gone
        return Report(verdict, self.done, lines_of(seen, verdict.problems) if verdict.problems else [])

    @asynccontextmanager
    async def cast(self) -> AsyncGenerator[None]:
        """Have the processes."""
        await self._mother.start()
        try:
            for role in CAST:
                await self._add(role)
            yield
        finally:
            await self._mother.end()

    async def _add(self, role: str) -> None:
        self.actors[await self._mother.fork(role, self._draw.getrandbits(32), self._plan)] = role

    # -- faults -------------------------------------------------------------------------------------

    async def rage(self, storage: Storage) -> None:
        """Do what the plan says to them."""
        kinds = [*self._plan.kinds, *self._store.faults]
        end = time.monotonic() + self._plan.seconds
        while time.monotonic() < end:
            await asyncio.sleep(self._draw.uniform(0.0, 2 * self._plan.every))
            self._look_after()
            await self._strike(self._draw.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0], storage)
            if self.between is not None:
                await self.between()

    def _look_after(self) -> None:
        """Note who has ended without having been told to."""
        for pid in [pid for pid in self.actors if not _lives(pid)]:
            role = self.actors.pop(pid)
            if pid not in self._told:
                self._gone.append(f"{role} {pid} ended by itself")

    async def _strike(self, kind: str, storage: Storage) -> None:
        store = self._store
        match kind:
            case "kill":
                await self._kill()
            case "freeze":
                await self._freeze(storage)
            case "cut":
                with self._recorder.fault("cut"):
                    store.proxy.cut()
                    await asyncio.sleep(0.01)
            case "slow":
                with self._recorder.fault("slow"):
                    store.proxy.rate = SLOW
                    await asyncio.sleep(self._draw.uniform(0.2, 1.0))
                    store.proxy.rate = 0
            case "wipe":
                with self._recorder.fault("wipe", lost=UNTOLD):
                    await store.wipe()
            case "restart":
                with self._recorder.fault("restart"):
                    await store.restart()
            case "clock":
                with self._recorder.fault("clock"):
                    await store.clock.step(self._draw.choice(STEPS))
            case "failover":
                if not await store.stand_by():
                    return
                with self._recorder.fault("failover", lost=BEHIND):
                    await store.failover()
            case _:
                if not store.copied:
                    return
                with self._recorder.fault("rollback", lost=time.monotonic() - store.copied):
                    await store.rollback()
        self.done[kind] += 1

    async def _probe(self, storage: Storage) -> None:
        """Note when the store is slow for everybody: a server that starves is a fault that nobody injects."""
        while True:
            began = time.monotonic()
            with suppress(JobQueueError):  # it is away
                await storage.lock_acquire("probe", "storm", 1000)
            if time.monotonic() - began > LATE:
                with self._recorder.fault("slow", began=began):
                    pass
            await asyncio.sleep(LATE / 2)

    def _victim(self) -> int:
        role = self._draw.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        return self._draw.choice(
            [pid for pid, its in self.actors.items() if its == role and pid not in self.spared]
        )

    async def _kill(self) -> None:
        pid = self._victim()
        with self._recorder.fault("kill", pid):
            os.kill(pid, signal.SIGKILL)
        await self._add(self.actors.pop(pid))

    async def _freeze(self, storage: Storage) -> None:
        """Stop a process for less or for more than its lease.

        If it holds the lock of the store, everybody waits for it: then all are hit.
        """
        pid, role = self._victim(), "all"
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.wait_for(storage.lock_acquire("frozen", "storm", 1), PROBE)
            role = "one"
        except TimeoutError:
            pass
        finally:
            await asyncio.sleep(self._draw.choice((0.1, LEASE / 2, 2 * LEASE)) if role == "one" else 0.0)
            os.kill(pid, signal.SIGCONT)
        with self._recorder.fault("freeze", pid if role == "one" else None, began=began):
            pass

    # -- the end ------------------------------------------------------------------------------------

    async def _heal(self, storage: Storage) -> None:
        """Let the producers end their calls and the jobs come to their outcomes; note these."""
        self._look_after()
        for pid, role in self.actors.items():
            if role == "producer":
                os.kill(pid, signal.SIGTERM)
                self._told.add(pid)
        deadline = time.monotonic() + HEALS_WITHIN
        while time.monotonic() < deadline and not await self._over(storage):
            await asyncio.sleep(0.1)
        self._look_after()
        await self._ask_what_they_do()
        ids = sorted({invoke.id for invoke in read(self._history).invokes})
        for start in range(0, len(ids), BATCH):
            await self._look(storage, ids[start : start + BATCH])

    async def _ask_what_they_do(self) -> None:
        """Let those who live write into the log where they stand, and what their tasks wait for."""
        for what in (signal.SIGUSR1, signal.SIGUSR2):
            for pid, role in self.actors.items():
                with suppress(ProcessLookupError):
                    if role != "producer":
                        os.kill(pid, what)
            await asyncio.sleep(0.5)

    async def _over(self, storage: Storage) -> bool:
        if any(role == "producer" and _lives(pid) for pid, role in self.actors.items()):
            return False
        if isinstance(storage, GuardedStorage):
            known = await storage.guard.stats(QUEUE)
            if known.pending or known.processing or known.failed:
                return False
        counts = (await storage.counts(QUEUE))._asdict()
        return not any(counts[state] for state in JobState if state not in ENDED)

    async def _look(self, storage: Storage, ids: list[str]) -> None:
        for id, record in zip(ids, await storage.get(QUEUE, ids), strict=True):
            if record is None:
                self._recorder.final(id, None)
                continue
            value = None if record.result is None else json.loads(record.result)
            reason = None if record.error is None else json.loads(record.error).get("reason")
            self._recorder.final(id, str(record.state), record.fence, value, reason)


async def ended(task: asyncio.Task[None]) -> None:
    """End what goes on for ever beside a run; raise what has ended it before."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
