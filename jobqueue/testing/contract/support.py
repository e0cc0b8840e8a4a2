"""Helpers of the suite: shorthand for store calls, and a sink that can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import (
    CancelStatus,
    Claimed,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    NewJob,
    Record,
    Renewal,
    Reply,
    SettleStatus,
)
from jobqueue.testing.clock import FakeClock

__all__ = [
    "ALL_BYTES",
    "LEASE",
    "LIMIT",
    "TTL",
    "WAIT",
    "Box",
    "Jobs",
    "expect_only",
    "job",
    "run_out",
    "waiting",
    "within_limit",
]

LIMIT = 10.0
"""Longest time, in real seconds, for an action of a server or a thread."""
WAIT = 5.0
"""The timeout of a blocking call that is to be woken: shorter, so that a lost wake-up shows."""
LEASE = 30_000
TTL = 60_000
ALL_BYTES = bytes(range(256))


_T = TypeVar("_T")


async def within_limit(call: Awaitable[_T]) -> _T:
    """Await something that needs no time to pass, for a bounded real time."""
    async with asyncio.timeout(LIMIT):
        return await call


async def run_out(clock: FakeClock, call: Coroutine[Any, Any, bool], timeout: float) -> bool:
    """Let a blocking call run into its ``timeout``, by whichever clock it goes.

    A store in this process waits by the fake clock, which is moved once by the timeout; a store that
    waits in a real read takes that long in reality, so ``timeout`` should be short.
    """
    task = asyncio.create_task(call)
    await clock.settle()
    if not task.done():
        await clock.advance(timeout)
    async with asyncio.timeout(LIMIT):
        return await task


class Box:
    """A `Sink` that keeps everything it receives."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.cancels: list[tuple[str, str, int]] = []
        self.resyncs = 0
        self._news = asyncio.Event()

    def deliver(self, replies: Sequence[Reply]) -> None:
        self.replies.extend(replies)
        self._news.set()

    def cancel_requested(self, queue: str, id: str, fence: int) -> None:
        self.cancels.append((queue, id, fence))
        self._news.set()

    def resync(self) -> None:
        self.resyncs += 1

    async def take(self, *, replies: int = 0, cancels: int = 0) -> None:
        """Wait until so many have come, for a bounded real time. Repeated cancels count once."""
        try:
            async with asyncio.timeout(LIMIT):
                while len(self.replies) < replies or len(set(self.cancels)) < cancels:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            came = f"{len(self.replies)} replies and {len(self.cancels)} cancels came"
            raise AssertionError(f"{came}, not {replies} and {cancels}") from None

    async def reply(self) -> Reply:
        """Wait for the only reply."""
        await self.take(replies=1)
        assert len(self.replies) == 1, self.replies
        return self.replies[0]


class Jobs:
    """One queue of a store, in few words."""

    def __init__(self, storage: Storage, clock: FakeClock, queue: str = "q") -> None:
        self.storage = storage
        self.clock = clock
        self.queue = queue

    def at(self, queue: str) -> Jobs:
        """Another queue of the same store."""
        return Jobs(self.storage, self.clock, queue)

    # -- producing --------------------------------------------------------------------------------

    async def insert(
        self, *jobs: NewJob, reply_to: str | None = None, max_length: int | None = None
    ) -> list[Inserted]:
        return await self.storage.insert(self.queue, jobs, reply_to=reply_to, max_length=max_length)

    async def put(self, id: str = "a", **fields: Any) -> Inserted:
        """Insert one job; ``fields`` are those of `NewJob`, the TTL is `TTL` unless given."""
        (inserted,) = await self.insert(job(id, **fields))
        return inserted

    async def put_all(self, ids: Sequence[str], **fields: Any) -> None:
        await self.insert(*(job(id, **fields) for id in ids))

    # -- working ----------------------------------------------------------------------------------

    async def exchange(
        self, *settlements: Settlement, limit: int = 0, worker: str = "w", lease: int = LEASE
    ) -> Exchanged:
        return await self.storage.exchange(self.queue, worker, settlements, limit, lease)

    async def claim(self, limit: int = 1, *, worker: str = "w", lease: int = LEASE) -> list[Claimed]:
        """Claim as many as there are, in several answers if the store keeps each of them small."""
        answer = await self.exchange(limit=limit, worker=worker, lease=lease)
        claimed = answer.jobs
        while answer.more and len(claimed) < limit:
            answer = await self.exchange(limit=limit - len(claimed), worker=worker, lease=lease)
            claimed += answer.jobs
        return claimed

    async def claim_one(self, *, worker: str = "w", lease: int = LEASE) -> Claimed:
        (claimed,) = await self.claim(1, worker=worker, lease=lease)
        return claimed

    async def claim_ids(self, limit: int = 1000) -> list[str]:
        return [claimed.id for claimed in await self.claim(limit)]

    async def settle(
        self,
        run: Claimed,
        action: Action,
        data: bytes = b"",
        *,
        ttl: int = TTL,
        delay: int = 0,
        summary: bytes = b"",
        then: Sequence[NewJob] = (),
    ) -> SettleStatus:
        settlement = Settlement(run.id, run.fence, action, data, ttl, delay, summary, tuple(then))
        (status,) = (await self.exchange(settlement)).settled
        return status

    async def complete(self, run: Claimed, result: bytes = b"result", *, ttl: int = TTL) -> SettleStatus:
        return await self.settle(run, Action.COMPLETE, result, ttl=ttl)

    async def extend(
        self,
        run: Claimed,
        progress: bytes | None = None,
        *,
        saved: bytes | None = None,
        worker: str = "w",
        lease: int = LEASE,
    ) -> LeaseStatus:
        renewal = Renewal(run.id, run.fence, progress, saved)
        (status,) = await self.storage.extend(self.queue, worker, [renewal], lease)
        return status

    async def stall(self, lease: int = LEASE) -> None:
        """Let the leases given so far run out, and sweep."""
        self.clock.move(lease / 1000)
        await self.storage.sweep(self.queue, 1000)

    async def cancel(self, id: str = "a", *, running: bool = False) -> CancelStatus:
        (status,) = await self.storage.cancel(self.queue, [id], running=running)
        return status

    # -- looking ----------------------------------------------------------------------------------

    async def find(self, id: str = "a", *, payload: bool = False, letters: bool = False) -> Record | None:
        (record,) = await self.storage.get(self.queue, [id], payload=payload, letters=letters)
        return record

    async def record(self, id: str = "a", *, payload: bool = False, letters: bool = False) -> Record:
        record = await self.find(id, payload=payload, letters=letters)
        assert record is not None, f"{id!r} is absent"
        return record

    async def state(self, id: str = "a") -> JobState:
        return (await self.record(id)).state

    async def ids_in(self, state: JobState) -> list[str]:
        page = await self.storage.scan(self.queue, state, 10_000)
        assert page.cursor is None
        return sorted(record.id for record in page.records)

    # -- getting there ----------------------------------------------------------------------------

    async def bring(self, state: JobState, id: str = "a", **fields: Any) -> Claimed | None:
        """Make a job and lead it to a state; the last run of it, if it had one."""
        if state is JobState.SCHEDULED:
            fields.setdefault("delay", 5_000)
        await self.put(id, **fields)
        if state in {JobState.SCHEDULED, JobState.QUEUED}:
            return None
        if state is JobState.CANCELLED:
            assert await self.cancel(id) is CancelStatus.CANCELLED
            return None
        run = await self.claim_one()
        assert run.id == id
        match state:
            case JobState.COMPLETED:
                await self.settle(run, Action.COMPLETE, b"result")
            case JobState.FAILED:
                await self.settle(run, Action.FAIL, b"error")
            case JobState.FAILING:
                await self.settle(run, Action.RETRY, b"error", delay=5_000)
            case _:
                pass
        return run


def job(id: str = "a", payload: bytes = b"payload", **fields: Any) -> NewJob:
    """Make a `NewJob` with the TTL that the cases assume."""
    fields.setdefault("ttl", TTL)
    return NewJob(id, payload, **fields)


async def waiting(jobs: Jobs, id: str = "a", *, address: str = "me") -> tuple[Box, Inserted]:
    """Subscribe, and insert a job that is waited for."""
    box = Box()
    await jobs.storage.subscribe("q", address, box)
    (inserted,) = await jobs.insert(job(id, wait=True), reply_to=address)
    assert inserted.status is InsertStatus.CREATED
    return box, inserted


async def expect_only(jobs: Jobs, box: Box, ids: list[str]) -> None:
    """Send one more reply the same way: with it, everything sent before has come."""
    await jobs.insert(job("mark", wait=True, priority=99), reply_to="me")
    await jobs.complete(await jobs.claim_one())
    await box.take(replies=len(ids) + 1)
    assert [reply.id for reply in box.replies] == [*ids, "mark"]
