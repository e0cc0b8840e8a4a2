"""The same outage for ours and for others: `python -m bench chaos-peers`.

Jobs of 50 ms are enqueued at an even rate, one call each. Three workers run them; every 2 s SIGKILL ends the
one that has lived longest, with all its processes, and a new one starts. In the middle Redis (append-only
file, fsync every second) is killed and starts again a second later. The kills go on until no job has begun
since the last one. Then nothing is done to anybody any more, but a job per second is enqueued, until each
has an outcome, or until none has begun or ended for a minute and a half, or until five minutes are over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from bench.chaos.cast import Cast
from bench.chaos.contenders import CONTENDERS, Contender
from bench.chaos.report import report
from bench.chaos.tally import Facts, Tally, read_notes, tally
from bench.measure import machine
from bench.redis_server import RedisServer

__all__ = ["main"]

JOBS = int(os.environ.get("JOBQUEUE_BENCH_JOBS", "10000"))
RATE = 400.0
"""Jobs enqueued per second: a little less than three workers of eight slots can do."""
WORKERS = 3
EVERY = 2.0
"""Seconds between two kills."""
OUTAGE = 1.0
"""Seconds without Redis."""
QUIET = 90.0
"""Seconds without a note of a run, after which a job without an outcome is lost: longer than any setting."""
PATIENCE = 300.0
"""Seconds after the last kill, after which a job without an outcome is lost even if others still recover."""
TAIL = 10.0
"""Seconds in which jobs that have an outcome may still run again: two leases."""
LONGEST = 300.0
"""Seconds of kills at the most."""


def main() -> None:
    """Run the libraries that are named, or all; print the table and write the numbers and the chart."""
    parser = argparse.ArgumentParser(prog="python -m bench chaos-peers", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *CONTENDERS], help="default: all")
    parser.add_argument("--json", type=Path, help="add the numbers to this file, and read the others from it")
    parser.add_argument("--svg", type=Path, help="draw the chart")
    parser.add_argument("--show", action="store_true", help="measure nothing, only read the file")
    options = parser.parse_args(sys.argv[2:])
    names = [] if options.show else options.names or list(CONTENDERS)
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for name in names:
        CONTENDERS[name].install()
    with RedisServer() as server:
        head = f"{machine()}, Redis {server.version}, {JOBS:,} jobs"
    for name in names:
        known[name] = asdict(_measured(CONTENDERS[name]))
        print(json.dumps({name: known[name] | {"recovery": len(known[name]["recovery"])}}), flush=True)
        if options.json:
            options.json.write_text(json.dumps(known))
    table, drawing = report({name: Tally(**known[name]) for name in CONTENDERS if name in known}, head)
    print(table)
    if options.svg:
        options.svg.write_text(drawing)


def _measured(contender: Contender) -> Tally:
    with (
        tempfile.TemporaryDirectory(prefix="jobqueue-chaos-") as name,
        RedisServer("--appendonly", "yes", "--appendfsync", "everysec") as server,
    ):
        return tally(asyncio.run(Outage(contender, server, Path(name)).run()))


class Outage:
    """One run of the experiment."""

    def __init__(self, contender: Contender, server: RedisServer, directory: Path) -> None:
        self._contender = contender
        self._server = server
        self._notes = directory / "notes"
        self._notes.touch()
        self._cast = Cast(contender, server.port, directory)
        self._facts = Facts()

    async def run(self) -> Facts:
        """Do it; return what happened."""
        async with self._cast:
            await self._enqueue(0, 1)  # connected, and its group or stream is made
            for _ in range(self._workers):
                await self._cast.add_worker()
            await self._until(self._begun, 60.0)
            enqueuing = asyncio.create_task(self._enqueue(1, JOBS - 1))
            outage = asyncio.create_task(self._kill_redis(JOBS / RATE / 2))
            await self._kill(enqueuing)
            await asyncio.gather(enqueuing, outage)
            await self._recover()
        self._facts.runs = read_notes(self._lines())
        self._facts.restarts = self._cast.restarts
        return self._facts

    @property
    def _workers(self) -> int:
        return WORKERS if self._contender.slots > 1 else 2 * WORKERS

    async def _enqueue(self, first: int, count: int, rate: float = RATE) -> None:
        answer = await self._cast.ask("enqueue", first, count, rate)
        self._facts.accepted |= answer["accepted"]
        self._facts.refused |= answer["refused"]

    async def _kill_redis(self, after: float) -> None:
        await asyncio.sleep(after)
        down = time.time()
        self._server.kill()
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(self._server.start)
        self._facts.outage = down, time.time()

    async def _kill(self, enqueuing: asyncio.Task[None]) -> None:
        """Kill a worker every 2 s, until no job begins any more."""
        began, seen = time.monotonic(), -1
        while time.monotonic() < began + LONGEST:
            starts = self._starts()
            if enqueuing.done() and starts == seen:
                return
            seen = starts
            await asyncio.sleep(EVERY)
            if (name := self._cast.oldest) is not None:
                self._facts.kills[name] = time.time()
                await self._cast.kill_oldest()
            await self._cast.add_worker()

    async def _recover(self) -> None:
        """Give what was cut off time to end, while other jobs come."""
        began = quiet_since = time.monotonic()
        number, size = JOBS, 0
        while await self._ask() and time.monotonic() < min(quiet_since + QUIET, began + PATIENCE):
            await asyncio.sleep(1.0)
            await self._enqueue(number, 1)
            number += 1
            if self._notes_of_the_outage() != size:
                size, quiet_since = self._notes_of_the_outage(), time.monotonic()
        await asyncio.sleep(TAIL)
        await self._ask()

    def _notes_of_the_outage(self) -> int:
        """Count the notes of jobs that were enqueued before the recovery."""
        return sum(int(json.loads(line)[1].removeprefix("job-")) < JOBS for line in self._lines())

    async def _ask(self) -> bool:
        """Ask for the missing outcomes; return whether one of a job of the outage is missing still."""
        facts = self._facts
        missing = [id for id in facts.accepted if facts.outcomes.get(id) is None]
        facts.outcomes |= await self._cast.ask("ask", missing)
        return any(facts.outcomes.get(id) is None for id in missing if int(id.removeprefix("job-")) < JOBS)

    async def _begun(self) -> bool:
        return self._starts() > 0

    def _lines(self) -> list[str]:
        return [line for line in self._notes.read_text().splitlines() if line]

    def _starts(self) -> int:
        return sum(line.startswith('["start"') for line in self._lines())

    async def _until(self, look: Callable[[], Awaitable[bool]], within: float) -> None:
        deadline = time.monotonic() + within
        while not await look():
            if time.monotonic() > deadline:
                raise SystemExit(f"{self._contender.peer.title}: no job began within {within:g} s")
            await asyncio.sleep(0.05)
