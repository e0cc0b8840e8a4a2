"""The demo's use of a queue, step by step. Nothing in it is staged for the demo only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from jobqueue.cli.demo.files import MAX_BYTES, Answer, Found, Tally, job_id, pack, unpack
from jobqueue.cli.demo.report import Progress
from jobqueue.client.results import EnqueueRequest, EnqueueStatus
from jobqueue.errors import JobCancelledError, JobFailedError
from jobqueue.events import JobFailing, JobProcessing
from jobqueue.model.backoff import Backoff
from jobqueue.model.checks import check_queue_name
from jobqueue.model.outcomes import Fatal
from jobqueue.queue import Queue
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import CancelStatus
from jobqueue.worker.job import Job

__all__ = ["CANCELLED_ID", "Observed", "Order", "Scenario"]

CANCELLED_ID = "never runs"
BATCH = 200
WAIT = 60.0
"""Seconds after which an answer counts as missing."""
REPLAYED = 100
"""Answers that are asked for once more at the end, about."""
PIECE = 256 * 1024
"""Bytes that a handler reads at once: to count them takes the event loop 2 ms."""
PIECES = MAX_BYTES // PIECE + 1
AGAIN = 20
"""Every so many-th file is asked for by a second caller at the same time."""


class Payload(TypedDict):
    """The payload of a job."""

    path: str
    stumble: bool
    """Whether the first attempt is to fail."""


@dataclass(frozen=True, slots=True)
class Order:
    """One file as a job."""

    id: str
    payload: Payload


@dataclass(slots=True)
class Observed:
    """The observed answers, runs and times."""

    answers: dict[str, Answer | None] = field(default_factory=dict[str, "Answer | None"])
    """By job id; ``None`` if the file could not be read."""
    runs: Counter[str] = field(default_factory=Counter[str])
    """Runs of the handler, by job id."""
    latencies: list[float] = field(default_factory=list[float])
    """Seconds from a request to its answer."""
    requests: int = 0
    forgotten: int = 0
    joined: int = 0
    cached: int = 0
    retries: int = 0
    cancelled: int = 0
    differing: set[str] = field(default_factory=set[str])
    """Ids that were answered differently to different callers."""
    seconds: float = 0.0


async def handle(job: Job[Payload]) -> Answer:
    """Run one job. aiofiles reads in threads, so that the event loop goes on with the other jobs."""
    if job.payload["stumble"] and job.attempts == 1:
        raise ConnectionError("a failure that the second attempt does not see")
    import aiofiles  # loaded when a job runs, not by every command

    tally = Tally()
    try:
        async with aiofiles.open(unpack(job.payload["path"]), "rb") as file:
            for _ in range(PIECES):
                piece = await file.read(PIECE)
                tally.add(piece)
                if len(piece) < PIECE:
                    break
    except OSError as error:
        raise Fatal(f"cannot read the file: {error.strerror}") from error
    return tally.answer()


async def _withdraw(queue: Queue[Any, Any], ids: list[str]) -> None:
    """Cancel the jobs of an interrupted demo: no worker will run them."""
    for start in range(0, len(ids), BATCH):
        await asyncio.gather(*(queue.cancel(id, running=True) for id in ids[start : start + BATCH]))


class Scenario:
    """Runs the demo's jobs on a store and records their answers and events."""

    def __init__(self, storage: Storage, found: Found, concurrency: int, progress: Progress) -> None:
        self.orders = [
            Order(job_id(found.root, file.path), Payload(path=pack(file.path), stumble=False))
            for file in found.files
        ]
        self.stumbling = self.orders[-1].id
        self.orders[-1].payload["stumble"] = True
        self.seen = Observed()
        self._progress = progress
        self._storage = storage
        self._callers = 2 * concurrency
        # Its own queue, so that a second demo on the same store finds nothing of the first.
        name = check_queue_name(f"demo-{unique_id()}")
        self._queue: Queue[Payload, Answer] = Queue(
            storage, name, concurrency=concurrency, backoff=Backoff.fixed(0.1), result_ttl=600.0
        )
        self._queue.execute(handle)
        self._queue.on("processing", self._note_run)
        self._queue.on("failing", self._note_retry)

    async def run(self) -> Observed:
        """Do all of it."""
        clock = self._storage.clock
        half = len(self.orders) // 2
        asked, forgotten = self.orders[:half], self.orders[half:]
        async with self._queue:
            done = False
            try:
                started = clock.monotonic()
                await self._each(asked, self._ask, "request/response")
                await self._fire(forgotten)
                await self._each(forgotten, self._collect, "fire and forget")
                self.seen.seconds = clock.monotonic() - started
                known = self.orders[:: max(1, len(self.orders) // REPLAYED)]
                await self._each(known, self._replay, "cached replies")
                await self._cancel_one()
                done = True
            finally:
                if not done:
                    await _withdraw(self._queue, [order.id for order in self.orders])
                await self._clean_up()
        return self.seen

    # -- steps ------------------------------------------------------------------------------------

    async def _ask(self, order: Order) -> None:
        """Request and wait, in one call. Some ids are asked for by a second caller at the same time."""
        clock, started = self._storage.clock, self._storage.clock.monotonic()
        asking = self._outcome(self._queue.enqueue_and_wait(order.id, order.payload, timeout=WAIT))
        self.seen.requests += 1
        if self.seen.requests % AGAIN:
            self._note(order.id, await asking)
        else:
            for answer in await asyncio.gather(asking, self._ask_again(order)):
                self._note(order.id, answer)
        self.seen.latencies.append(clock.monotonic() - started)

    async def _ask_again(self, order: Order) -> Answer | None:
        again = await self._queue.enqueue(order.id, order.payload)
        self._note_status(again.status)
        return await self._outcome(self._queue.wait(order.id, timeout=WAIT))

    async def _fire(self, orders: list[Order]) -> None:
        """Enqueue in batches without waiting, and a part of each batch twice."""
        for start in range(0, len(orders), BATCH):
            batch = [EnqueueRequest(order.id, order.payload) for order in orders[start : start + BATCH]]
            self.seen.forgotten += len(batch)
            await self._queue.enqueue_many(batch)
            for again in await self._queue.enqueue_many(batch[::AGAIN]):
                self._note_status(again.status)

    async def _collect(self, order: Order) -> None:
        """Fetch the outcome of a job that was enqueued without waiting."""
        self._note(order.id, await self._outcome(self._queue.wait(order.id, timeout=WAIT)))

    async def _replay(self, order: Order) -> None:
        """Ask for known results: answered from the store, without a run."""
        again = await self._queue.enqueue(order.id, order.payload)
        self._note_status(again.status)
        if again.status is EnqueueStatus.COMPLETED:
            self._note(order.id, again.result)

    async def _cancel_one(self) -> None:
        """Schedule a job for later and cancel it while a caller waits for it."""
        payload = Payload(path="", stumble=False)
        await self._queue.enqueue(CANCELLED_ID, payload, delay=3600.0)
        told, status = await asyncio.gather(
            self._queue.wait(CANCELLED_ID, timeout=WAIT),
            self._queue.cancel(CANCELLED_ID),
            return_exceptions=True,
        )
        self.seen.cancelled += isinstance(told, JobCancelledError) and status is CancelStatus.CANCELLED

    async def _clean_up(self) -> None:
        """Remove everything from a store that others use."""
        if not self._storage.shared:
            return
        ids = [*(order.id for order in self.orders), CANCELLED_ID]
        for start in range(0, len(ids), BATCH):
            await self._storage.set_ttl(self._queue.name, [(id, 1) for id in ids[start : start + BATCH]])
        await self._storage.clock.sleep(0.01)
        while await self._storage.purge(self._queue.name, BATCH) == BATCH:
            pass

    # -- helpers ----------------------------------------------------------------------------------

    async def _each(self, orders: list[Order], step: Callable[[Order], Awaitable[None]], what: str) -> None:
        """Run a step for every order, so many at a time."""
        left = iter(orders)
        advance = self._progress(what, len(orders))

        async def caller(left: Iterable[Order]) -> None:
            for order in left:
                await step(order)
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._callers, len(orders))):
                group.create_task(caller(left))

    async def _outcome(self, result: Awaitable[Answer]) -> Answer | None:
        try:
            return await result
        except JobFailedError:
            return None

    def _note(self, id: str, answer: Any) -> None:
        if self.seen.answers.setdefault(id, answer) != answer:
            self.seen.differing.add(id)

    def _note_status(self, status: EnqueueStatus) -> None:
        self.seen.joined += status is EnqueueStatus.DUPLICATE
        self.seen.cached += status is EnqueueStatus.COMPLETED

    def _note_run(self, event: JobProcessing) -> None:
        self.seen.runs[event.id] += 1

    def _note_retry(self, _event: JobFailing) -> None:
        self.seen.retries += 1
