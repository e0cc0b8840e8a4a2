"""The dead letters: failed jobs, which can be read and run again."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping

from jobqueue.jobs import JobFilter
from jobqueue.model.states import JobState
from jobqueue.web.pages import Page, Visit
from jobqueue.web.source import Source
from jobqueue.web.views.job_rows import job_rows
from jobqueue.web.views.overview import queue_facts
from jobqueue.web.views.queue import JOBS, VERBS, verbs_for

__all__ = ["facts", "letters"]

MOST_QUEUES = 200
"""Queues whose letters are counted for the list of queues."""
AT_ONCE = 25
"""Queues that are counted at the same time."""


async def letters(visit: Visit) -> Page:
    """Show dead letters, of one queue at a time."""
    params = visit.params
    names = await visit.source.names()
    counts = await _failed(visit.source, names)
    having = [(name, number) for name, number in zip(names, counts, strict=False) if number]
    chosen = params.queue() if params.text("queue") else (having[0][0] if having else None)
    task, group = params.label("task"), params.label("group")
    rows, cursor = [], None
    if chosen is not None:
        desk = await visit.source.desk(chosen)
        page = await desk.jobs.list(
            JobFilter(state=JobState.FAILED, task=task, group=group), limit=JOBS, cursor=params.cursor()
        )
        rows, cursor = job_rows(page.jobs, visit.board.redact), page.cursor
    return Page(
        "letters.html",
        "Dead letters",
        {
            "having": having,
            "more_queues": len(names) > MOST_QUEUES,
            "total": sum(number for _, number in having),
            "queue": chosen,
            "state": JobState.FAILED,
            "task": task or "",
            "group": group or "",
            "rows": rows,
            "cursor": cursor,
            "began": params.cursor() is not None,
            "verbs": verbs_for(JobState.FAILED, visit.may),
            "did": params.one_of("did", (*VERBS, "started", "full")),
            "n": params.number("n"),
        },
        section="letters",
        live="letters",
    )


async def _failed(source: Source, names: list[str]) -> tuple[int, ...]:
    """Return the number of failed jobs of each queue, of the first ones."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def count(name: str) -> int:
        async with gate:
            return (await source.counts(name)).failed

    return tuple(await asyncio.gather(*map(count, names[:MOST_QUEUES])))


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change."""
    names = await source.names()
    found: dict[str, Hashable] = {"letters": await _failed(source, names)}
    if query.get("queue"):
        desk = await source.desk(query["queue"])
        found["jobs"] = await queue_facts(source, desk.name)
    return found
