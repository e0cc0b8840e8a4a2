"""Jobs as values for programs and as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobqueue.cli.output import as_json, fitted, styled
from jobqueue.cli.times import ago_or_in, iso
from jobqueue.client.results import Attempt, JobStatus
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.runtime.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["details", "history_table", "jobs_table", "listed", "shown_details", "state_text", "status_fields"]

_STYLES = {
    JobState.PROCESSING: "cyan",
    JobState.FAILING: "yellow",
    JobState.COMPLETED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "magenta",
}
"""Colours, on terminals that have them."""


def state_text(state: JobState) -> object:
    """Return a state as a cell."""
    return styled(state.value, _STYLES.get(state, ""))


def status_fields(known: JobStatus[Any]) -> dict[str, object]:
    """Return what `Queue.get_status` knows."""
    error = known.error
    return {
        "id": known.id,
        "state": known.state.value,
        "created_at": iso(known.created_at),
        "updated_at": iso(known.updated_at),
        "attempts": known.attempts,
        "max_attempts": known.max_attempts,
        "result": known.result,
        "error": None if error is None else {
            "type": error.type, "message": error.message, "traceback": error.traceback,
        },
        "progress": known.progress,
        "run_at": iso(known.run_at),
        "priority": known.priority,
        "worker_id": known.worker_id,
        "expires_at": iso(known.expires_at),
    }  # fmt: skip


def listed(known: JobStatus[Any]) -> dict[str, object]:
    """Return a job of a listing."""
    fields = status_fields(known)
    del fields["result"]  # which a listing does not have
    return {**fields, **_labels(known)}


def details(known: JobStatus[Any]) -> dict[str, object]:
    """Return all that is known of a job."""
    return {
        **status_fields(known),
        **_labels(known),
        "stalls": known.stalls,
        "max_stalls": known.max_stalls,
        "payload": known.payload,
        "expires": known.expires,
        "history": [
            {
                "attempt": failed.attempt,
                "at": iso(failed.at),
                "worker_id": failed.worker_id,
                "reason": failed.reason.value,
                "error": {"type": failed.error.type, "message": failed.error.message},
            }
            for failed in known.history
        ],
    }


def _labels(known: JobStatus[Any]) -> dict[str, object]:
    return {
        "task": known.task or None,
        "group": known.group or None,
        "reason": None if known.reason is None else known.reason.value,
    }


def shown_details(known: JobStatus[Any], now: datetime) -> dict[str, object]:
    """Return the lines about one job, without those that would say nothing."""
    ended = known.state in ENDED
    lines: dict[str, object] = {
        "id": known.id,
        "state": state_text(known.state),
        "task": known.task or None,
        "group": known.group or None,
        "priority": known.priority or None,
        "created": _when(known.created_at, now),
        "due": None if ended else _when(known.run_at, now),
        "expires": _when(_start_before(known), now),
        "changed": _when(known.updated_at, now),
        "forgotten": _when(known.expires_at, now),
        "attempts": f"{known.attempts} of {known.max_attempts}",
        "stalls": f"{known.stalls} of {known.max_stalls} allowed" if known.stalls else None,
        "worker": known.worker_id,
        "progress": None if known.progress is None else as_json(known.progress),
        "payload": None if known.payload is None else as_json(known.payload),
        "reason": None if known.reason is None else known.reason.value,
    }
    if known.error is not None:
        lines["error"] = f"{known.error.type}: {known.error.message}"
    shown = {name: value for name, value in lines.items() if value is not None}
    if known.state is JobState.COMPLETED:
        shown["result"] = as_json(known.result)  # `null` is one
    return shown


def _start_before(known: JobStatus[Any]) -> datetime | None:
    """Return until when a job has to start that never did."""
    if known.expires is None or known.attempts or known.state not in WAITING:
        return None
    return known.run_at + timedelta(seconds=known.expires)


def _when(instant: datetime | None, now: datetime) -> str | None:
    return None if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC ({ago_or_in(instant, now)})"


def history_table(history: Sequence[Attempt], now: datetime) -> list[Table]:
    """Lay out failed attempts and stalls, oldest first."""
    rows = [
        [failed.attempt, ago_or_in(failed.at, now), failed.worker_id, failed.reason.value, _error(failed)]
        for failed in history
    ]
    return fitted(["attempt", "failed", "worker", "reason", "error"], rows, last_may_be_cut=True)


def _error(failed: Attempt | JobStatus[Any]) -> str | None:
    return None if failed.error is None else one_line(f"{failed.error.type}: {failed.error.message}")


def _due(known: JobStatus[Any], now: datetime) -> str | None:
    # Of a queued job it lies behind it: how long it has waited is its age, mostly.
    return ago_or_in(known.run_at, now) if known.state in WAITING - {JobState.QUEUED} else None


_COLUMNS: tuple[tuple[str, Callable[[JobStatus[Any], datetime], object], bool], ...] = (
    ("id", lambda known, _: known.id, False),
    ("state", lambda known, _: state_text(known.state), False),
    ("task", lambda known, _: known.task or None, True),
    ("group", lambda known, _: known.group or None, True),
    ("priority", lambda known, _: known.priority or None, True),
    ("attempts", lambda known, _: f"{known.attempts}/{known.max_attempts}", False),
    ("created", lambda known, now: ago_or_in(known.created_at, now), False),
    ("due", _due, True),
    ("ended", lambda known, now: ago_or_in(known.updated_at, now) if known.state in ENDED else None, True),
    ("worker", lambda known, _: known.worker_id, True),
    ("reason", lambda known, _: None if known.reason is None else known.reason.value, True),
    ("error", lambda known, _: _error(known), True),
)
"""Title, cell, and whether the column is left out where it is empty in all rows."""


def jobs_table(jobs: Sequence[JobStatus[Any]], now: datetime) -> list[Table]:
    """Lay out a listing."""
    cells = [[cell(known, now) for _, cell, _ in _COLUMNS] for known in jobs]
    kept = [
        place
        for place, (_, _, optional) in enumerate(_COLUMNS)
        if not optional or any(row[place] is not None for row in cells)
    ]
    titles = [_COLUMNS[place][0] for place in kept]
    rows = [[row[place] for place in kept] for row in cells]
    return fitted(titles, rows, last_may_be_cut=titles[-1] == "error")
