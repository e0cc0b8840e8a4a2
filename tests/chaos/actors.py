"""The processes of a chaos run: producers, workers and reapers, forked from one that has everything imported.

A new Python takes half a second of processor time to start; a fork takes milliseconds, so that kills can come
faster than a supervisor would replace processes. The mother process opens no store and runs no loop: its
children share nothing with it but code.

`python -m tests.chaos.actors` is the mother. A line of JSON on its standard input starts a child and is
answered by its number.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from jobqueue import (
    Backoff,
    Job,
    LeaderElection,
    Queue,
    Reaper,
    Storage,
    StorageUnavailableError,
    open_storage,
)
from tests.chaos.history import Recorder

QUEUE = "chaos"
LEASE = 1.5
MAX_STALLS = 1000
"""A job may be cut off as often as it likes: whether it is lost is the question."""
SLOTS = 4
LATE = 0.1
"""Seconds after which an answer of the store is late."""
CALLERS = 6
"""Concurrent calls of a producer."""
PATIENCE = 20.0
"""Seconds that a producer waits for a result."""


def main() -> None:
    """Be the mother: fork a child per line, until the input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    for line in sys.stdin:
        spec = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _live(spec)
        print(child, flush=True)


def _live(spec: dict[str, Any]) -> None:
    """Play a role until killed or told to stop; never return."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(spec["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig(level="ERROR", format="%(process)d %(levelname)s %(message)s", force=True)
        recorder = Recorder(Path(spec["history"]))
        recorder.watch()
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        asyncio.run(_play(spec, recorder))
        code = 0
    except BaseException:  # the storm sees that it has ended, and here is why
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _play(spec: dict[str, Any], recorder: Recorder) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, _tell_tasks)
    await ROLES[spec["role"]](spec, recorder)


def _tell_tasks() -> None:
    """Write down what every task waits for."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def _worker(spec: dict[str, Any], recorder: Recorder) -> None:
    storage = open_storage(spec["url"], spec["ledger"])
    _time_claims(storage, recorder)
    queue: Queue[Any, Any] = Queue(
        storage,
        QUEUE,
        concurrency=SLOTS,
        visibility_timeout=LEASE,
        block_timeout=1.0,
        max_stalls=MAX_STALLS,
        backoff=Backoff.fixed(0.1),
    )

    @queue.execute
    async def handle(job: Job[Any]) -> Any:
        recorder.run(job.id, job.fence)
        try:
            value = await _do(job)
        except asyncio.CancelledError:
            recorder.outcome(job.id, job.fence, str(job.aborted_reason))
            raise
        except Exception:
            recorder.outcome(job.id, job.fence, "raised")
            raise
        recorder.outcome(job.id, job.fence, "returned", value)
        return value

    await _serve(queue)


def _time_claims(storage: Storage, recorder: Recorder) -> None:
    """Note claims that take long: a lease counts from the start of the call that claims."""
    exchange: Callable[..., Awaitable[Any]] = storage.exchange

    async def timed(*arguments: Any) -> Any:
        began = time.monotonic()
        try:
            return await exchange(*arguments)
        finally:
            if time.monotonic() - began > LATE:
                with recorder.fault("slow", os.getpid(), began=began):
                    pass

    storage.exchange = timed  # type: ignore[method-assign]


async def _serve(service: Queue[Any, Any] | Reaper) -> None:
    """Start, again and again while the store is away as a supervisor would, and serve for good."""
    await _start(service)
    await service.until_broken()


async def _start(service: Queue[Any, Any] | Reaper) -> None:
    while True:
        try:
            await service.start()
        except StorageUnavailableError:
            await asyncio.sleep(0.1)
        else:
            return


async def _do(job: Job[Any]) -> Any:
    kind, seconds = job.payload
    if kind == "block":
        time.sleep(seconds)  # the loop stands still, and the lease is renewed all the same
    else:
        await asyncio.sleep(seconds)
    if kind == "broken" or (kind == "flaky" and job.attempts == 1):
        raise RuntimeError(kind)
    return expected(job.id)


def expected(id: str) -> str:
    """Return the right result of a job."""
    return f"{id}!"


async def _reaper(spec: dict[str, Any], recorder: Recorder) -> None:
    del recorder
    election = LeaderElection(lock_ttl=LEASE, renewal_interval=0.5, acquire_retry_interval=0.5)
    reaper = Reaper(open_storage(spec["url"], spec["ledger"]), sweep_interval=0.3, leader_election=election)
    await _serve(reaper)


async def _producer(spec: dict[str, Any], recorder: Recorder) -> None:
    """Make calls until SIGTERM; then end those that are under way."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    draw = random.Random(spec["seed"])
    queue: Queue[Any, Any] = Queue(
        open_storage(spec["url"], spec["ledger"]),
        QUEUE,
        max_stalls=MAX_STALLS,
        backoff=Backoff.fixed(0.1),
        result_ttl=spec["result_ttl"],
        dead_letter_ttl=spec["result_ttl"],
    )
    await _start(queue)
    caller = Caller(spec["name"], queue, recorder, draw, spec["pause"])
    await asyncio.gather(*(caller.run(stopping) for _ in range(CALLERS)))
    await queue.stop()


class Caller:
    """Draws calls and notes their answers."""

    def __init__(
        self, name: str, queue: Queue[Any, Any], recorder: Recorder, draw: random.Random, pause: float
    ) -> None:
        self._name = name
        self._queue = queue
        self._recorder = recorder
        self._draw = draw
        self._pause = pause
        self._made = 0
        self._recent: list[str] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Make one call after the other."""
        while not stopping.is_set():
            await self._call()
            await asyncio.sleep(self._draw.uniform(0.0, self._pause))

    async def _call(self) -> None:
        queue, draw, record = self._queue, self._draw, self._recorder.call
        kind = draw.choices(("enqueue", "request", "again", "wait", "cancel", "status"), (8, 6, 2, 2, 4, 1))[
            0
        ]
        if kind in {"enqueue", "request"} or not self._recent:
            id, payload = f"{self._name}-{self._made}", self._payload()
            self._made += 1
            self._recent = [*self._recent[-20:], id]
            right = None if payload[0] == "broken" else expected(id)
            if kind == "request":
                call = queue.enqueue_and_wait(id, payload, timeout=PATIENCE)
                await record("enqueue_and_wait", id, call, right)
            else:
                await record("enqueue", id, queue.enqueue(id, payload), right)
            return
        id = draw.choice(self._recent)
        mortal = id.endswith("0")  # an id that is cancelled is not enqueued again
        if kind == "again" and not mortal:
            await record("enqueue", id, queue.enqueue(id, ("fine", 0.0)))
        elif kind == "cancel" and mortal:
            await record("cancel", id, queue.cancel(id))
        elif kind == "wait":
            await record("wait", id, queue.wait(id, timeout=PATIENCE))
        else:
            await record("status", id, queue.get_status(id))

    def _payload(self) -> tuple[str, float]:
        draw = self._draw
        kind = draw.choices(("fine", "long", "block", "flaky", "broken"), (80, 5, 3, 8, 4))[0]
        longest = {"long": 2 * LEASE, "block": 0.3}.get(kind, 0.1)
        return kind, draw.uniform(0.0, longest)


ROLES: dict[str, Callable[[dict[str, Any], Recorder], Awaitable[None]]] = {
    "worker": _worker,
    "reaper": _reaper,
    "producer": _producer,
}

if __name__ == "__main__":
    main()
