"""The first page: all queues, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from jobqueue.model.states import JobState
from jobqueue.stats import QueueStats, read_rules, reapers
from jobqueue.storage.capabilities import Totals
from jobqueue.web.charts import sparkline, stacked_bar
from jobqueue.web.pages import Page, Visit
from jobqueue.web.samples import Sample
from jobqueue.web.source import Source

__all__ = ["facts", "overview", "queue_facts", "rate_of"]

QUEUES = 25
"""Queues on a page."""
MAX_SEARCH = 64
MINUTE = 12
"""Samples of a minute."""
_BAR = (
    JobState.PROCESSING, JobState.QUEUED, JobState.FAILING, JobState.SCHEDULED, JobState.FAILED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A queue as a line."""

    stats: QueueStats
    bar: Markup
    spark: Markup
    rate: float | None


def page_of(names: list[str], search: str, number: int) -> tuple[list[str], int, int]:
    """Return the names on a page, its number, and how many pages there are."""
    found = [name for name in names if search.lower() in name.lower()] if search else names
    pages = max(1, -(-len(found) // QUEUES))
    number = min(max(1, number), pages)
    return found[(number - 1) * QUEUES : number * QUEUES], number, pages


async def overview(visit: Visit) -> Page:
    """Show the queues."""
    search = visit.params.text("q")[:MAX_SEARCH]
    names = await visit.source.names()
    shown, number, pages = page_of(names, search, visit.params.number("p"))
    visit.board.samples.want(shown)
    store = await visit.source.store()
    sweeping = await reapers(store)

    async def row(name: str) -> Row:
        desk = await visit.source.desk(name)
        return _row(await desk.stats(sweeping), visit.board.samples.of(name))

    # All at the same time: a store may answer looks at many queues together.
    rows = await asyncio.gather(*map(row, shown))
    rates = [each.rate for each in rows if each.rate is not None]
    workers = {worker.worker_id for each in rows for worker in each.stats.workers}
    return Page(
        "overview.html",
        "Queues",
        {
            "rows": rows,
            "totals": {state: sum(each.stats.counts[state] for each in rows) for state in JobState},
            "rate": sum(rates) if rates else None,
            "workers": len(workers),
            "reaper": sweeping[0] if rows and sweeping else None,
            "shared": store.shared,
            "search": search,
            "number": number,
            "pages": pages,
            "queues": len(names),
        },
        section="overview",
        live="overview",
    )


def _row(stats: QueueStats, samples: list[Sample]) -> Row:
    parts = [(state.value, stats.counts[state]) for state in _BAR]
    words = ", ".join(f"{number} {name}" for name, number in parts if number) or "no live jobs"
    rates = [sample.rate for sample in samples if sample.rate is not None]
    values = rates or [float(sample.waiting) for sample in samples]
    what = "jobs ended per second" if rates else "waiting jobs"
    label = f"{what}, last {len(values) * 5 // 60} min: now {values[-1]:.1f}" if values else what
    return Row(stats, stacked_bar(parts, words), sparkline(values, label), rate_of(stats, samples))


def rate_of(stats: QueueStats, samples: list[Sample]) -> float | None:
    """Return the jobs that have ended per second: seen here, or else as the workers report."""
    rates = [sample.rate for sample in samples[-MINUTE:] if sample.rate is not None]
    return sum(rates) / len(rates) if rates else stats.rate


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change: for each queue shown its counts, its pause and its workers."""
    number = query.get("p", "")
    names = await source.names()
    shown, _, _ = page_of(names, query.get("q", "")[:MAX_SEARCH], int(number) if number.isdecimal() else 0)
    each = await asyncio.gather(*(queue_facts(source, name) for name in shown))
    return {"queues": len(names), **dict(zip(shown, each, strict=True))}


async def queue_facts(source: Source, name: str) -> tuple[Hashable, ...]:
    """Return what tells a change of one queue."""
    store = await source.store()

    async def ended() -> int | None:
        return (await source.counting.ended(store, name))[1] if isinstance(store, Totals) else None

    counts, workers, rules, total = await asyncio.gather(
        source.counts(name), store.workers(name), read_rules(store, name), ended()
    )
    running = tuple((known.worker, known.running) for known in workers)
    return counts._replace(oldest=None), rules, total, running
