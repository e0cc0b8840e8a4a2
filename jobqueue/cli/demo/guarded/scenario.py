"""The experiment: jobs by the thousand, Redis killed at the peak, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobqueue.cli.demo.guarded.servers import Redis
from jobqueue.cli.demo.guarded.worker import QUEUE, RESULTS, guarded
from jobqueue.cli.exits import Failure
from jobqueue.errors import JobQueueError
from jobqueue.queue import Queue
from jobqueue.runtime.clock import SYSTEM_CLOCK

__all__ = ["Seen", "Setting", "experiment"]

CALLERS = 50
PROCESSES = 4
RUN_SECONDS = 0.05
"""How long a job takes."""
KILL_AT = 0.12
"""Part of the jobs that have run when Redis is killed, while others are still enqueued."""
BUSY = 5
"""Jobs that wait or run at that moment, at least. Where workers keep up there may be none."""
AWAY = 0.5
"""Seconds until it is started again, empty."""
LOOK_EVERY = 0.1
PATIENCE = 60.0
"""Seconds without progress after which the experiment has failed."""
STARTS_WITHIN = 30.0
ENDS_WITHIN = 20.0


@dataclass(slots=True)
class Setting:
    """What the experiment is made with."""

    redis: Redis
    ledger: str
    schema: str
    jobs: int
    slots: int
    runs: Path
    """File to which each run adds a line."""

    def ids(self) -> Iterator[str]:
        """Return the ids of all jobs."""
        return (f"job-{number:06}" for number in range(self.jobs))

    def spec(self, slots: int) -> dict[str, Any]:
        """Return what a worker process is told."""
        return {
            "redis": self.redis.url, "ledger": self.ledger, "schema": self.schema, "slots": slots,
            "runs": str(self.runs),
        }  # fmt: skip


@dataclass(slots=True)
class Seen:
    """What was seen."""

    redis: str = "up"
    enqueued: int = 0
    again: int = 0
    """Enqueues that raised, and were made again."""
    ran: int = 0
    completed: int = 0
    """Jobs that the ledger knows as completed."""
    killed_at: float | None = None
    """Seconds after the start, as all others."""
    restarted_at: float | None = None
    back_at: float | None = None
    """When the first job ran after that."""
    at_kill: dict[str, int] = field(default_factory=dict[str, int])
    """Counts when Redis was killed."""
    seconds: float = 0.0
    runs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """The runs that came to their end: id and process."""
    gave_up: bool = False


async def experiment(setting: Setting, show: Callable[[Seen], None]) -> Seen:
    """Do it; ``show`` is called ten times a second with what was seen so far. Raises `Failure`."""
    seen, began = Seen(), SYSTEM_CLOCK.monotonic()
    setting.runs.touch()
    storage = guarded(setting.spec(0))
    queue: Queue[float, int] = Queue(storage, QUEUE, result_ttl=RESULTS)
    async with _workers(setting), queue:
        began = SYSTEM_CLOCK.monotonic()
        left = setting.ids()
        doing = [asyncio.create_task(_enqueue(queue, left, seen)) for _ in range(CALLERS)]
        doing.append(asyncio.create_task(_kill(setting, seen, began)))
        looking = asyncio.create_task(_look(setting, storage, seen, began, show))
        try:
            await asyncio.wait([*doing, looking], return_when=asyncio.FIRST_EXCEPTION)
            await looking
        finally:
            for task in [*doing, looking]:
                task.cancel()
            ended = await asyncio.gather(*doing, looking, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        seen.seconds = SYSTEM_CLOCK.monotonic() - began
    seen.runs = [(line[0], line[1]) for line in map(str.split, setting.runs.read_text().splitlines())]
    seen.ran = len(seen.runs)
    return seen


async def _enqueue(queue: Queue[float, int], left: Iterator[str], seen: Seen) -> None:
    """Enqueue as an application does: again when it raised, under the same id."""
    for id in left:
        while True:
            try:
                await queue.enqueue(id, RUN_SECONDS)
                break
            except JobQueueError:
                seen.again += 1
                await SYSTEM_CLOCK.sleep(LOOK_EVERY)
        seen.enqueued += 1


async def _kill(setting: Setting, seen: Seen, began: float) -> None:
    """Kill Redis when all are at work, and start it again without anything in it."""
    while seen.ran < setting.jobs * KILL_AT or seen.ran + BUSY > seen.enqueued < setting.jobs:
        await SYSTEM_CLOCK.sleep(LOOK_EVERY / 10)
        seen.ran = _lines(setting.runs)
    await asyncio.to_thread(setting.redis.kill)
    seen.redis, seen.killed_at = "killed", SYSTEM_CLOCK.monotonic() - began
    seen.at_kill = {"enqueued": seen.enqueued, "ran": _lines(setting.runs)}
    await SYSTEM_CLOCK.sleep(AWAY)
    await asyncio.to_thread(setting.redis.start)
    seen.redis, seen.restarted_at = "up again, empty", SYSTEM_CLOCK.monotonic() - began


async def _look(
    setting: Setting, storage: Any, seen: Seen, began: float, show: Callable[[Seen], None]
) -> None:
    """Look on until the ledger knows all as completed, or nothing goes on any more."""
    give_up_at = SYSTEM_CLOCK.monotonic() + PATIENCE
    before = (-1, -1)
    while True:
        seen.ran, seen.seconds = _lines(setting.runs), SYSTEM_CLOCK.monotonic() - began
        if (
            seen.restarted_at is not None
            and seen.back_at is None
            and seen.ran > seen.at_kill["ran"] + setting.slots
        ):
            seen.back_at = seen.seconds
        seen.completed = (await storage.guard.stats(QUEUE)).completed
        show(seen)
        if seen.completed >= setting.jobs and seen.enqueued >= setting.jobs:
            return
        if (seen.ran, seen.completed) != before:
            before, give_up_at = (seen.ran, seen.completed), SYSTEM_CLOCK.monotonic() + PATIENCE
        if SYSTEM_CLOCK.monotonic() > give_up_at:
            seen.gave_up = True
            return
        await SYSTEM_CLOCK.sleep(LOOK_EVERY)


def _lines(runs: Path) -> int:
    """Count the runs so far; each of their lines is as long as any other but for the process id."""
    return runs.read_bytes().count(b"\n")


@asynccontextmanager
async def _workers(setting: Setting) -> AsyncGenerator[None]:
    """Have the worker processes."""
    several = min(PROCESSES, setting.slots)
    shares = [setting.slots // several + (place < setting.slots % several) for place in range(several)]
    processes: list[asyncio.subprocess.Process] = []
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    log = (setting.runs.parent / "workers.log").open("ab")
    try:
        for share in shares:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "jobqueue.cli.demo.guarded.worker",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, env=kept,
                start_new_session=True,
            )  # fmt: skip
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(setting.spec(share)).encode() + b"\n")
        async with asyncio.timeout(STARTS_WITHIN):
            for process in processes:
                assert process.stdout is not None
                if await process.stdout.readline() != b"ready\n":
                    text = (setting.runs.parent / "workers.log").read_text(errors="replace").strip()
                    raise Failure(f"a worker does not start: {text[-500:] or 'it says nothing'}")
        yield
    finally:
        log.close()
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in processes:
            try:
                async with asyncio.timeout(ENDS_WITHIN):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
