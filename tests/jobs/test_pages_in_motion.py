"""Pages of 10,000 jobs that change while they are read: what stays is listed exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from jobqueue import EnqueueRequest, Job, Queue
from tests.support import Lab, within

PAGES = 200
"""Bound on the pages; a listing that never ends would have more."""
STAYING = {"scheduled": 3_000, "queued": 2_000, "cancelled": 1_000}
CHANGING = 4_000


async def staying(queue: Queue[Any, Any]) -> None:
    """Enqueue the jobs that nothing happens to meanwhile."""
    for state, jobs in STAYING.items():
        options: dict[str, Any] = {"priority": -1}  # behind what is worked off meanwhile
        if state == "scheduled":
            options["delay"] = 100_000.0
        await queue.enqueue_many([EnqueueRequest(f"{state} {n}", n, **options) for n in range(jobs)])
    assert await queue.jobs.cancel([f"cancelled {n}" for n in range(STAYING["cancelled"])]) == 1_000


async def pages(
    queue: Queue[Any, Any], state: str | None, change: Callable[[], Awaitable[None]]
) -> Counter[str]:
    """List everything, with a change after each page, and count how often each job came."""
    seen: Counter[str] = Counter()
    cursor = None
    for _ in range(PAGES):
        page = await queue.jobs.list(state=state, limit=250, cursor=cursor)
        seen.update(job.id for job in page.jobs)
        cursor = page.cursor
        if cursor is None:
            return seen
        await change()
    raise AssertionError("the listing does not end")


async def test_pages_neither_skip_nor_repeat_a_job_that_stays(lab: Lab) -> None:
    async def handler(job: Job[int]) -> int:
        return job.payload

    queue = await lab.start()
    worker = lab.queue(handler)
    await staying(queue)
    await queue.enqueue_many([(f"changing {n}", n) for n in range(CHANGING)])
    turns = count()

    async def change() -> None:
        """Add, run, cancel and delete jobs."""
        turn = next(turns)
        await queue.enqueue_many(
            [EnqueueRequest(f"new {turn} {n}", n, priority=1, delay=(n % 2) * 1_000.0) for n in range(40)]
        )
        assert (await worker.process_once(limit=30, concurrency=30)).completed == 30
        some = [f"changing {turn * 20 + n}" for n in range(20)]
        assert await queue.jobs.cancel(some) + await queue.jobs.remove(some[::2]) > 0
        assert await queue.jobs.remove([f"new {turn} {n}" for n in range(0, 40, 3)]) > 0

    for state in (*STAYING, None):
        seen = await within(pages(queue, state, change), 60.0)
        for known, jobs in STAYING.items():
            if state in (known, None):
                times = Counter(seen[f"{known} {n}"] for n in range(jobs))
                assert times == {1: jobs}, f"{known} jobs in a listing of {state}, by how often they came"
