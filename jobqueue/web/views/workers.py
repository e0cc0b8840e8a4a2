"""The workers of all queues, with the jobs that each runs."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from jobqueue.client.results import JobStatus
from jobqueue.model.states import JobState
from jobqueue.stats import QueueStats, WorkerStats
from jobqueue.web.pages import Page, Visit
from jobqueue.web.source import Source

__all__ = ["facts", "workers"]

MOST_QUEUES = 200
"""Queues whose workers are looked for."""
MOST_RUNNING = 100
"""Running jobs of a queue that are shown with their workers."""
MOST_WORKERS = 200
"""Workers of a queue that are shown."""
AT_ONCE = 25
"""Queues that are asked about at the same time."""
QUIET = 20.0
"""Seconds after which a worker that has not called is marked: it calls more often than that."""


@dataclass(frozen=True, slots=True)
class Row:
    """A worker as a line."""

    worker: WorkerStats
    jobs: list[JobStatus[Any]]
    quiet: bool


@dataclass(frozen=True, slots=True)
class Part:
    """The workers of one queue."""

    stats: QueueStats
    rows: list[Row]
    more: int
    lost: list[JobStatus[Any]]
    """Running jobs whose worker has not been seen for a minute."""


async def workers(visit: Visit) -> Page:
    """Show workers."""
    names = await visit.source.names()
    gate = asyncio.Semaphore(AT_ONCE)

    async def part(name: str) -> Part | None:
        async with gate:
            return await _part(visit, name)

    parts = [found for found in await asyncio.gather(*map(part, names[:MOST_QUEUES])) if found is not None]
    seen = {row.worker.worker_id: row.worker for each in parts for row in each.rows}
    return Page(
        "workers.html",
        "Workers",
        {
            "parts_list": parts,
            "total": len(seen),
            "hosts": len({worker.host for worker in seen.values()}),
            "running": sum(row.worker.running for each in parts for row in each.rows),
            "more_queues": len(names) > MOST_QUEUES,
        },
        section="workers",
        live="workers",
    )


async def _part(visit: Visit, name: str) -> Part | None:
    """Return the workers of a queue; ``None`` if it has none and needs none."""
    desk = await visit.source.desk(name)
    seen, counts = await asyncio.gather(desk.store.workers(name), visit.source.counts(name))
    if not seen and not counts.processing:
        return None
    stats, page = await asyncio.gather(
        desk.stats(sweeping=(), seen=seen), desk.jobs.list(state=JobState.PROCESSING, limit=MOST_RUNNING)
    )
    by_worker: dict[str | None, list[JobStatus[Any]]] = {}
    for job in page.jobs:
        by_worker.setdefault(job.worker_id, []).append(job)
    now = desk.store.clock.time()
    rows = [
        Row(worker, by_worker.pop(worker.worker_id, []), quiet=now - worker.seen_at.timestamp() > QUIET)
        for worker in stats.workers[:MOST_WORKERS]
    ]
    lost = [job for jobs in by_worker.values() for job in jobs] if len(stats.workers) <= MOST_WORKERS else []
    return Part(stats, rows, len(stats.workers) - len(rows), lost)


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change."""
    del query
    store = await source.store()
    names = (await source.names())[:MOST_QUEUES]
    each = await asyncio.gather(*(store.workers(name) for name in names))
    return {
        name: tuple((known.worker, known.running) for known in workers)
        for name, workers in zip(names, each, strict=True)
    }
