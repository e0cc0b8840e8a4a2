"""Rows of the ledger: what its statements are given, and what is read from their answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jobqueue.model.new_job import NewJob
from jobqueue.runtime.text import printable
from jobqueue.storage.guard.values import Change, GuardEvent, Written

__all__ = ["changed", "columns", "event_of", "instant", "job_of", "written"]

_OPTIONS = slice(NewJob._fields.index("priority"), NewJob._fields.index("ttl") + 1)
_LABELS = slice(NewJob._fields.index("task"), len(NewJob._fields))
MOST_SHOWN = 200
"""Characters that are shown of what cannot be read."""


def instant(millis: int) -> datetime:
    """Return the instant of milliseconds since 1970."""
    return datetime.fromtimestamp(millis / 1000, UTC)


def event_of(entry: Any) -> GuardEvent:
    """Return one change of a history; one that somebody has edited may be anything."""
    try:
        at, event, worker, attempt, error = entry
        return GuardEvent(instant(at), str(event), str(worker), int(attempt), str(error))
    except (TypeError, ValueError, OverflowError, OSError):
        return GuardEvent(instant(0), "unreadable", "", 0, printable(json.dumps(entry))[:MOST_SHOWN])


def columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Turn rows of ``count`` values into columns, also if there are none."""
    return [[row[at] for row in rows] for at in range(count)]


def written(some: Sequence[Written], now: float) -> list[Any]:
    """Return what names each job, and once what many have in common, as `statements.WRITE` takes it."""
    kinds: dict[tuple[Any, ...], int] = {}
    kind_of: list[int] = []
    last: tuple[Any, ...] | None = None
    number = ago = 0
    asked_at: float | None = None
    for _, queue, job, at in some:
        if at != asked_at:
            asked_at, ago = at, max(0, int((now - at) * 1000))
        kind = (queue, ago, job[_OPTIONS], job[_LABELS])
        if kind != last:
            last, number = kind, kinds.setdefault(kind, len(kinds) + 1)
        kind_of.append(number)
    headers = [one.job.headers for one in some]
    return [
        f"{{{','.join([one.token for one in some])}}}",
        [one.job.id for one in some],
        [one.job.payload for one in some],
        headers if any(headers) else [],
        kind_of if len(kinds) > 1 else [],
        *columns([_shared(*kind) for kind in kinds], 13),
    ]


def _shared(queue: str, ago: int, options: tuple[Any, ...], labels: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what jobs of one kind have in common, as `statements.WRITE` takes it."""
    priority, delay, run_at, max_attempts, max_stalls, ttl = options
    task, group, dead_letter_ttl, _, weight, expires = labels
    return (
        queue, priority, run_at, delay, max_attempts, max_stalls, ttl, dead_letter_ttl, task, group, weight,
        expires, ago,
    )  # fmt: skip


def changed(change: Change) -> tuple[Any, ...]:
    """Return what has become of a job, as `statements.RECORD` takes it."""
    history = json.dumps([list(entry) for entry in change.history], separators=(",", ":"))
    return (
        change.token, change.state, change.attempts, change.worker, change.error, change.data, change.due,
        change.payload, change.ttl, change.seq, change.fence, change.revives, history,
    )  # fmt: skip


def job_of(row: Any) -> NewJob:
    """Make the job of a row; whether it can be one is not checked here."""
    return NewJob(
        row["id"],
        row["payload"],
        priority=row["priority"],
        run_at=row["due"],
        max_attempts=row["max_attempts"],
        max_stalls=row["max_stalls"],
        ttl=row["ttl"],
        headers=row["headers"],
        task=row["task"],
        group=row["group_name"],
        dead_letter_ttl=row["dead_letter_ttl"],
        weight=row["weight"],
        expires=row["start_within"],
    )
