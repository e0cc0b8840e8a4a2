"""One tenant with very many jobs, beside a thousand with one each.

``JOBQUEUE_LIFECYCLE=full`` gives the large one 100,000 jobs.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from jobqueue import EnqueueRequest, Limits, Storage
from jobqueue.storage.values import Claimed
from tests.support import Lab, within

MANY = 100_000 if os.environ.get("JOBQUEUE_LIFECYCLE") == "full" else 3_000
SINGLE = 1_000
TURNS = 2


async def claim(storage: Storage, jobs: int) -> list[Claimed]:
    """Claim so many jobs, in steps as workers do."""
    claimed: list[Claimed] = []
    while len(claimed) < jobs:
        answer = await storage.exchange("q", "w", [], min(100, jobs - len(claimed)), 60_000)
        assert answer.jobs
        claimed += answer.jobs
    return claimed


@pytest.mark.parametrize("limits", [None, Limits(running=10_000, group_running=500)], ids=["free", "limited"])
async def test_a_thousand_groups_start_within_two_turns_of_a_large_one(
    lab: Lab, storage: Storage, limits: Limits | None
) -> None:
    queue = lab.queue(limits=limits)
    await within(queue.start())
    for begin in range(0, MANY, 5_000):
        named = range(begin, min(MANY, begin + 5_000))
        await queue.enqueue_many([EnqueueRequest(f"large {n}", n, group="large") for n in named])
    await queue.enqueue_many([EnqueueRequest(f"single {n}", n, group=f"tenant {n}") for n in range(SINGLE)])
    started = Counter(job.group for job in await within(claim(storage, SINGLE + TURNS), 60.0))
    assert started.pop("large") <= TURNS
    assert started == Counter(f"tenant {n}" for n in range(SINGLE))
