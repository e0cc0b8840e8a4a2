"""`queue.stats` and `queue.health`, on every store."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue import Job, JobState, Reaper, Storage
from jobqueue.worker import self_report
from jobqueue.worker.arrivals import WARM
from tests.support import Lab, within

S = JobState


async def echo(job: Job[Any]) -> Any:
    return job.payload


async def test_an_empty_queue(lab: Lab) -> None:
    queue = await lab.start()
    stats = await within(queue.stats())
    assert (stats.name, stats.paused, stats.total, stats.oldest_age) == (queue.name, False, 0, None)
    assert stats.counts == dict.fromkeys(S, 0)
    assert (stats.workers, stats.reaper, stats.wait_p50, stats.wait_p95) == ((), None, None, None)
    assert stats.rate == 0.0


async def test_jobs_by_state_and_the_oldest(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue_many([(f"{n}", n) for n in range(3)])
    await queue.enqueue("later", 1, delay=1000.0)
    await queue.enqueue("gone", 1)
    await queue.cancel("gone")
    await asyncio.sleep(0.05)
    stats = await within(queue.stats())
    assert stats.counts == {**dict.fromkeys(S, 0), S.QUEUED: 3, S.SCHEDULED: 1, S.CANCELLED: 1}
    assert stats.counts["queued"] == 3  # type: ignore[index]  # a state is equal to its name
    assert stats.total == 5
    assert stats.oldest_age is not None
    assert 0 <= stats.oldest_age < 60


async def test_workers_say_where_they_run_and_how_many_jobs(lab: Lab) -> None:
    go = asyncio.Event()

    async def handler(_job: Job[Any]) -> None:
        await go.wait()

    queue = await lab.start(handler, worker_id="given name", concurrency=2)
    await queue.enqueue_many([(f"{n}", n) for n in range(3)])
    async with asyncio.timeout(10):
        while True:
            stats = await queue.stats()
            if stats.workers and stats.workers[0].running == 2 and stats.workers[0].host is not None:
                break
            await asyncio.sleep(0.01)
    (worker,) = stats.workers
    assert (worker.worker_id, worker.host, worker.pid) == ("given name", socket.gethostname(), os.getpid())
    assert abs((datetime.now(UTC) - worker.seen_at).total_seconds()) < 60
    go.set()
    await within(queue.drain())
    # A claim on arrival, of one that was just busy, may be seen by the server after the worker has left.
    await asyncio.sleep(WARM + 0.2)
    await within(queue.stop())
    other = await lab.start()
    assert (await other.stats()).workers == ()


async def test_the_reaper_that_sweeps(lab: Lab, storage: Storage) -> None:
    queue = await lab.start()
    async with Reaper(storage) as reaper:
        async with asyncio.timeout(10):
            while (stats := await queue.stats()).reaper is None:
                await asyncio.sleep(0.01)
        assert stats.reaper.id == reaper.id
        assert (stats.reaper.pid, stats.reaper.term) == (os.getpid(), None)
        assert stats.reaper.seen_at is not None


async def test_rate_and_waits_come_from_the_reports(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_report, "INTERVAL", 0.05)

    async def handler(_job: Job[Any]) -> None:
        await asyncio.sleep(0.01)

    producer = await lab.start()
    await producer.pause()
    await producer.enqueue_many([(f"{n}", n) for n in range(20)])
    await lab.start(handler, concurrency=5)
    await asyncio.sleep(0.2)
    await producer.resume()
    await within(producer.drain())
    async with asyncio.timeout(10):
        while not (stats := await producer.stats()).rate:
            await asyncio.sleep(0.01)
    assert stats.rate <= 20 / 60 + 0.001
    assert stats.wait_p50 is not None
    assert stats.wait_p95 is not None
    assert 0.15 < stats.wait_p50 <= stats.wait_p95 < 60


# -- health ---------------------------------------------------------------------------------------


async def test_a_store_that_answers_is_healthy(lab: Lab) -> None:
    queue = await lab.start()
    health = await within(queue.health())
    assert health.ok
    assert health.latency is not None
    assert 0 <= health.latency < 5


async def test_jobs_that_wait_for_nobody_are_a_problem(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", 1)
    health = await within(queue.health())
    assert health.ok
    assert any("no worker" in problem for problem in health.problems)
    await lab.start(echo)
    await within(queue.drain())
    health = await within(queue.health())
    assert not any("no worker" in problem for problem in health.problems)


async def test_a_pause_is_told(lab: Lab) -> None:
    queue = await lab.start()
    await queue.pause()
    health = await within(queue.health())
    assert health.ok
    assert any("is paused" in problem for problem in health.problems)
