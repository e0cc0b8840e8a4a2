"""Many callers that enqueue one id at once, through two handles of a store."""

from __future__ import annotations

import asyncio
from typing import Any

from jobqueue import Queue, Storage


async def test_two_hundred_enqueues_of_one_id_make_one_job(storage: Storage) -> None:
    async with Queue[Any, Any](storage, name="q") as one, Queue[Any, Any](storage.clone(), name="q") as two:
        calls = [(one if n % 2 else two).enqueue("a", n) for n in range(200)]
        answers = await asyncio.gather(*calls)
        statuses = [answer.status for answer in answers]
        assert (statuses.count("queued"), statuses.count("duplicate")) == (1, 199)
        assert len({answer.seq for answer in answers}) == 1
        job = await one.jobs.get("a")
        assert job is not None
        assert job.payload == statuses.index("queued")
