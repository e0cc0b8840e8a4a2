"""The schedules of all queues, or those of one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime

from jobqueue.errors import StorageError
from jobqueue.model.checks import instant
from jobqueue.model.ticks import next_tick
from jobqueue.schedules.stored import STAMPS, Schedule, StoredSchedule, space_of
from jobqueue.storage.capabilities import Documents, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Document
from jobqueue.web.pages import Page, Visit
from jobqueue.web.source import Source
from jobqueue.web.text import span

__all__ = ["facts", "schedules"]

_IS_MADE = re.compile(r"@now-[A-Za-z0-9_-]+$")
"""The end of the id of a job that a schedule was told to make: what else an address says is not shown."""
QUEUES = 25
"""Queues on a page."""
FEW, MANY = 25, 100
"""Schedules of a queue beside others, and of one alone."""
UPCOMING = 3
"""Ticks that are shown after the next one."""
LATE = 60.0
"""Seconds after which a tick that nobody has enqueued is called late."""


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule as a line."""

    name: str
    schedule: Schedule | None
    """``None``: this release cannot read it."""
    times: str
    later: tuple[datetime, ...]
    late: bool


@dataclass(frozen=True, slots=True)
class Part:
    """The schedules of one queue."""

    queue: str
    rows: list[Row]
    cursor: str | None


async def schedules(visit: Visit) -> Page:
    """Show schedules."""
    params, made = visit.params, visit.params.exact("made")[:256]
    store = await visit.source.store()
    require(store, Documents, "schedules")
    chosen = params.queue() if params.text("queue") else None
    names, more = ([chosen], None) if chosen else await _queues(store, params.cursor("after"))
    now = store.clock.time()
    parts = await asyncio.gather(
        *(
            _part(store, name, MANY if chosen else FEW, params.cursor() if chosen else None, now)
            for name in names
        )
    )
    return Page(
        "schedules.html",
        "Schedules",
        {
            "parts_list": [part for part in parts if part.rows or chosen],
            "queue": chosen,
            "more": more,
            "began": params.cursor() is not None or params.cursor("after") is not None,
            "did": params.one_of("did", ("paused", "resumed", "run")),
            "made": made if _IS_MADE.search(made) else "",
            "of": params.text("of"),
        },
        section="schedules",
        live="schedules",
    )


async def _queues(store: Storage, cursor: str | None) -> tuple[list[str], str | None]:
    """Return queues that have, or had, schedules, and where the next page of them begins."""
    keeper = require(store, Documents, "schedules")
    page = await keeper.list_documents(STAMPS, QUEUES, cursor)
    return sorted(document.name for document in page.documents), page.cursor


async def _part(store: Storage, queue: str, limit: int, cursor: str | None, now: float) -> Part:
    keeper = require(store, Documents, "schedules")
    page = await keeper.list_documents(space_of(queue), limit, cursor)
    rows = sorted((_row(document, now) for document in page.documents), key=lambda row: row.name)
    return Part(queue, rows, page.cursor)


def _row(document: Document, now: float) -> Row:
    try:
        stored = StoredSchedule.read(document)
    except StorageError:  # one that is broken hides no other
        return Row(document.name, None, "", (), late=False)
    view = stored.view()
    late = view.next_at is not None and now - view.next_at.timestamp() > LATE
    return Row(view.name, view, _times(view), _later(stored), late)


def _times(view: Schedule) -> str:
    if view.cron is None:
        return f"every {span(view.every)}"
    return view.cron if view.timezone == "UTC" else f"{view.cron} · {view.timezone}"


def _later(stored: StoredSchedule) -> tuple[datetime, ...]:
    """Return the ticks after the next one."""
    found: list[datetime] = []
    tick = stored.next
    while tick is not None and stored.table is not None and len(found) < UPCOMING:
        tick = next_tick(stored.table, tick)
        if tick is not None:
            found.append(instant(tick))
    return tuple(found)


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change: the versions of the documents."""
    store = await source.store()
    keeper = require(store, Documents, "schedules")
    chosen = query.get("queue")
    names = [chosen] if chosen else (await _queues(store, query.get("after") or None))[0]
    limit = MANY if chosen else FEW
    found: dict[str, Hashable] = {}
    for name in names:
        page = await keeper.list_documents(
            space_of(name), limit, (query.get("cursor") or None) if chosen else None
        )
        found[name] = tuple((document.name, document.version) for document in page.documents)
    return found
