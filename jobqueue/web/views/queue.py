"""One queue: its figures, and its jobs by state, task and group."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping

from jobqueue.jobs import JobFilter
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.web.charts import area_chart
from jobqueue.web.options import Action
from jobqueue.web.pages import Page, Visit
from jobqueue.web.samples import Sample
from jobqueue.web.source import Source
from jobqueue.web.views.job_rows import job_rows
from jobqueue.web.views.limits import limits_view, rate_text
from jobqueue.web.views.overview import queue_facts, rate_of

__all__ = ["JOBS", "VERBS", "facts", "queue", "verbs_for"]

JOBS = 50
"""Jobs on a page."""
VERBS: dict[str, tuple[Action, frozenset[JobState]]] = {
    "cancel": (Action.CANCEL_JOBS, WAITING | {JobState.PROCESSING}),
    "retry": (Action.RETRY_JOBS, frozenset({JobState.FAILED})),
    "remove": (Action.REMOVE_JOBS, WAITING | ENDED),
}
"""What can be done with jobs: who may, and in which states it has an effect."""


def verbs_for(state: JobState | None, may: frozenset[Action]) -> list[str]:
    """Return what a visitor can do with jobs of a state; ``None``: of any."""
    return [
        verb
        for verb, (action, states) in VERBS.items()
        if action in may and (state is None or state in states)
    ]


async def queue(visit: Visit) -> Page:
    """Show a queue."""
    params = visit.params
    desk = await visit.source.desk(params.queue())
    state, task, group = params.state(), params.label("task"), params.label("group")
    wanted, cursor = JobFilter(state=state, task=task, group=group), params.cursor()
    stats, page, limits = await asyncio.gather(
        desk.stats(),
        desk.jobs.list(wanted, limit=JOBS, cursor=cursor),
        limits_view(desk, group or ""),
    )
    visit.board.samples.want([desk.name])
    samples = visit.board.samples.of(desk.name)
    return Page(
        "queue.html",
        desk.name,
        {
            "stats": stats,
            "queue": desk.name,
            "state": state,
            "task": task or "",
            "group": group or "",
            "rows": job_rows(page.jobs, visit.board.redact),
            "cursor": page.cursor,
            "began": cursor is not None,
            "verbs": verbs_for(state, visit.may),
            "rate": rate_of(stats, samples),
            "limits": limits,
            "rate_text": rate_text,
            "charts": _charts(samples),
            "did": params.one_of("did", (*VERBS, "started", "full", "paused", "resumed", "limits")),
            "n": params.number("n"),
        },
        section="overview",
        live="queue",
    )


def _charts(samples: list[Sample]) -> list[tuple[str, str, object]]:
    """Return title, latest figure and picture of each chart; none before there is something to draw."""
    if len(samples) < 2:
        return []
    waiting = [float(sample.waiting) for sample in samples]
    running = [float(sample.running) for sample in samples]
    rates = [sample.rate for sample in samples if sample.rate is not None]
    charts: list[tuple[str, str, object]] = []
    if len(rates) > 1:
        drawn = area_chart([("completed", rates)], f"jobs ended per second, at most {max(rates):.1f}")
        charts.append(("Ended per second", f"max {max(rates):.1f}", drawn))
    drawn = area_chart([("queued", waiting)], f"waiting jobs, at most {max(waiting):.0f}")
    charts.append(("Waiting", f"max {max(waiting):.0f}", drawn))
    drawn = area_chart([("processing", running)], f"running jobs, at most {max(running):.0f}")
    charts.append(("Running", f"max {max(running):.0f}", drawn))
    return charts


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change."""
    desk = await source.desk(query.get("queue"))
    return {"jobs": await queue_facts(source, desk.name)}
