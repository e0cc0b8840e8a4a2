"""How a queue does, in figures: read from the store, and from what its workers report of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobqueue.model.checks import instant
from jobqueue.model.limits import Limits
from jobqueue.model.names import REAPER_LOCK, REAPERS, place_of
from jobqueue.model.states import JobState
from jobqueue.model.worker_report import SPAN, merged, quantile
from jobqueue.storage.capabilities import Admission, Limiting
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Counts, Rules, WorkerInfo
from jobqueue.worker.self_report import read_reports

__all__ = [
    "QueueStats",
    "ReaperStats",
    "WorkerStats",
    "age",
    "counts_by_state",
    "is_paused",
    "limits_of",
    "queue_stats",
    "read_rules",
    "reapers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """A worker that the store has heard of within the last minute."""

    worker_id: str
    host: str | None
    """Where it runs; ``None`` if nothing tells."""
    pid: int | None
    seen_at: datetime
    """When it last called, by the store's clock."""
    running: int
    """Jobs that it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaperStats:
    """A reaper that sweeps."""

    id: str
    host: str | None
    pid: int | None
    seen_at: datetime | None
    """When it last noted that it sweeps; ``None`` if it has just been elected."""
    term: int | None
    """Its term as the elected reaper of all queues; ``None`` if it sweeps without that."""
    expires_at: datetime | None
    """When this term ends unless it is renewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A look at a queue. Each part is exact for an instant, not all for the same one."""

    name: str
    paused: bool
    counts: Mapping[JobState, int]
    """Number of jobs in each state; dead letters count as failed."""
    total: int
    """Sum of the counts."""
    oldest_age: float | None
    """Seconds since the creation of the oldest among the next ready job of each priority; ``None``: none is
    ready."""
    workers: tuple[WorkerStats, ...]
    """By name."""
    reaper: ReaperStats | None
    """The elected reaper of all queues, else the first that sweeps; ``None``: none does."""
    rate: float | None
    """Jobs that living workers have ended per second of the last minute, as of their reports, which are up
    to ten seconds old; ``None`` if the store keeps no reports."""
    wait_p50: float | None
    """Seconds from due to claimed that half of the jobs of the last minute did not exceed, to within a tenth;
    ``None`` without any."""
    wait_p95: float | None
    """The same for 95 % of them."""
    limits: Limits | None = None
    """What holds for the queue and its groups; ``None`` if the store has no limits."""


async def queue_stats(
    store: Storage,
    name: str,
    counted: Counts | None = None,
    sweeping: Sequence[ReaperStats] | None = None,
    seen: Sequence[WorkerInfo] | None = None,
) -> QueueStats:
    """Read the figures of a queue.

    ``counted`` are its counts, ``sweeping`` the reapers, and ``seen`` its workers, if they are known already.
    """
    counts, workers, sweeping, rules = await asyncio.gather(
        _counts(store, name, counted),
        _workers(store, name, seen),
        _reapers(store, sweeping),
        read_rules(store, name),
    )
    reports = await read_reports(store, name, [known.worker for known in workers])
    by_name = reports or {}
    waits = merged(report.waits for report in by_name.values())
    by_state = counts_by_state(counts)
    places = {known.worker: _place(known, by_name) for known in workers}
    return QueueStats(
        name=name,
        paused=rules.paused,
        counts=by_state,
        total=sum(by_state.values()),
        oldest_age=None if counts.oldest is None else age(store, counts.oldest),
        workers=tuple(
            WorkerStats(
                worker_id=known.worker,
                host=places[known.worker][0],
                pid=places[known.worker][1],
                seen_at=instant(known.seen_at),
                running=known.running,
            )
            for known in workers
        ),
        reaper=sweeping[0] if sweeping else None,
        rate=None if reports is None else round(sum(one.ended for one in by_name.values()) / SPAN, 3),
        wait_p50=quantile(waits, 0.5),
        wait_p95=quantile(waits, 0.95),
        limits=limits_of(rules) if isinstance(store, Limiting) else None,
    )


async def _counts(store: Storage, name: str, counted: Counts | None) -> Counts:
    return await store.counts(name) if counted is None else counted


async def _workers(store: Storage, name: str, known: Sequence[WorkerInfo] | None) -> Sequence[WorkerInfo]:
    return await store.workers(name) if known is None else known


async def _reapers(store: Storage, known: Sequence[ReaperStats] | None) -> Sequence[ReaperStats]:
    return await reapers(store) if known is None else known


async def is_paused(store: Storage, name: str) -> bool:
    """Return whether a queue is paused; one of a store that cannot pause is not."""
    return (await read_rules(store, name)).paused


async def read_rules(store: Storage, name: str) -> Rules:
    """Return the rules of a queue; one of a store that keeps none has none."""
    return (await store.get_rules(name, counted=False)).rules if isinstance(store, Admission) else Rules()


def limits_of(rules: Rules) -> Limits:
    """Return the limits in the rules of a queue."""
    queue, group = rules.queue, rules.group
    return Limits(running=queue.running, rate=queue.rate, group_running=group.running, group_rate=group.rate)


async def reapers(store: Storage) -> list[ReaperStats]:
    """Return the reapers that sweep: the elected one of all queues, then the others."""
    leader, sweeping = await asyncio.gather(store.lock_holder(REAPER_LOCK), store.workers(REAPERS))
    seen = {known.worker: instant(known.seen_at) for known in sweeping}
    found: list[ReaperStats] = []
    if leader is not None:
        at = seen.pop(leader.owner, None)
        found.append(_reaper(leader.owner, at, leader.term, instant(leader.expires_at)))
    return found + [_reaper(name, at) for name, at in seen.items()]


def counts_by_state(counts: Counts) -> dict[JobState, int]:
    """Return the number of jobs in each state."""
    return {state: getattr(counts, state.value) for state in JobState}


def age(store: Storage, milliseconds: int) -> float:
    """Return the seconds since an instant of the store; 0 for one that is ahead of this host's clock."""
    return max(0.0, store.clock.time() - milliseconds / 1000)


def _place(known: WorkerInfo, reports: Mapping[str, object]) -> tuple[str | None, int | None]:
    report = reports.get(known.worker)
    host, pid = getattr(report, "host", None), getattr(report, "pid", None)
    return (host, pid) if report is not None else place_of(known.worker)


def _reaper(
    name: str, seen_at: datetime | None, term: int | None = None, expires_at: datetime | None = None
) -> ReaperStats:
    host, pid = place_of(name)
    return ReaperStats(id=name, host=host, pid=pid, seen_at=seen_at, term=term, expires_at=expires_at)
