"""Producers and workers that run while a test breaks things."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import InsertStatus, NewJob, SettleStatus

LEASE = 30_000


class Load:
    """Inserts jobs by twos and runs them; keeps what was acknowledged."""

    def __init__(self, storage: RedisStorage, count: int, *, workers: int = 2) -> None:
        self.storage = storage
        self.count = count
        self.workers = workers
        self.created: list[str] = []
        self.runs: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()

    async def run(self, disturb: Callable[[], Awaitable[None]], *, limit: float = 60.0) -> None:
        """Do all the work while ``disturb`` is called in a loop. An error of the store fails the test."""
        async with asyncio.timeout(limit):
            done = asyncio.Event()

            async def disturbing() -> None:
                while not done.is_set():
                    await disturb()

            async with asyncio.TaskGroup() as group:
                group.create_task(disturbing())
                work = [group.create_task(self._produce())]
                work += [group.create_task(self._work(f"w{i}")) for i in range(self.workers)]
                await asyncio.wait(work)
                done.set()

    async def _produce(self) -> None:
        for i in range(0, self.count, 2):
            jobs = [NewJob(f"job-{n}", b"payload-%d" % n) for n in (i, i + 1)]
            for job, answer in zip(jobs, await self.storage.insert("q", jobs), strict=True):
                assert answer.status is InsertStatus.CREATED, (job, answer)
                self.created.append(job.id)

    async def _work(self, worker: str) -> None:
        settlements: list[Settlement] = []
        while len(self.accepted) < self.count:
            answer = await self.storage.exchange("q", worker, settlements, 5, LEASE)
            for settlement, status in zip(settlements, answer.settled, strict=True):
                assert status is SettleStatus.ACCEPTED
                self.accepted[settlement.id] += 1
            settlements = []
            for job in answer.jobs:
                assert job.payload == b"payload-" + job.id.removeprefix("job-").encode()
                self.runs[job.id] += 1
                settlements.append(Settlement(job.id, job.fence, Action.COMPLETE, b"done", 60_000))
            if not settlements:
                await self.storage.wait_for_work("q", worker, 0.2)

    def verify(self) -> None:
        """Every job was created once, ran once and ended once."""
        everything = [f"job-{n}" for n in range(self.count)]
        assert sorted(self.created) == sorted(everything)
        assert self.runs == Counter(everything)
        assert self.accepted == Counter(everything)
