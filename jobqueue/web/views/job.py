"""One job: its values, its history as a time line, why it does not run, and what can be done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobqueue.client.results import Attempt, JobStatus
from jobqueue.model.outcomes import FailureReason
from jobqueue.model.states import WAITING, JobState
from jobqueue.web.pages import Page, Visit
from jobqueue.web.source import Source
from jobqueue.web.text import clip
from jobqueue.web.values import Preview, Redactor, preview
from jobqueue.web.views.queue import VERBS, verbs_for

__all__ = ["facts", "job"]

MAX_MESSAGE = 4_096
MAX_TRACEBACK = 20_000


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of the time line."""

    at: datetime
    kind: str
    """Name of its look: a state, or ``stalled``."""
    title: str
    detail: str = ""


async def job(visit: Visit) -> Page:
    """Show a job."""
    params = visit.params
    desk = await visit.source.desk(params.queue())
    id = params.id()
    found, explained = await asyncio.gather(desk.jobs.get(id), desk.jobs.explain(id))
    if found is None:
        data = {"queue": desk.name, "id": id}
        return Page("no_job.html", "No such job", data, section="overview", live="job", status=404)
    redact = visit.board.redact
    payload = redact("payload", found.payload, found)
    has_payload = found.state not in {JobState.COMPLETED, JobState.CANCELLED}
    completed = found.state is JobState.COMPLETED
    shown = preview(payload) if has_payload else None
    return Page(
        "job.html",
        clip(id, 80),
        {
            "queue": desk.name,
            "job": found,
            "payload": shown,
            # What a hook has changed is not what would be stored again.
            "edit": shown is not None and shown.editable and (not redact.active or payload is found.payload),
            "result": preview(redact("result", found.result, found)) if completed else None,
            "progress": _progress(found, redact),
            "error": _error(found, redact),
            "moments": _moments(found, redact),
            "reasons": [(each, redact.text("error", each.detail, found)) for each in explained.reasons],
            "waits": found.state in WAITING,
            "verbs": verbs_for(found.state, visit.may),
            "did": params.one_of("did", (*VERBS, "kept", "unchanged")),
            "n": params.number("n"),
        },
        section="overview",
        live="job",
    )


def _error(job: JobStatus[Any], redact: Redactor) -> tuple[str, str, str] | None:
    """Return type, message and traceback of the last error."""
    if job.error is None:
        return None
    message = redact.text("error", job.error.message, job)[:MAX_MESSAGE]
    trace = job.error.traceback
    return (
        clip(job.error.type, 200),
        message,
        ("" if trace is None else redact.text("traceback", trace, job)[-MAX_TRACEBACK:]),
    )


def _progress(job: JobStatus[Any], redact: Redactor) -> tuple[float | None, Preview] | None:
    """Return the progress as a share, if it is one, and as text."""
    value = redact("progress", job.progress, job)
    return None if value is None else (_share(value), preview(value))


def _share(value: Any) -> float | None:
    """Return a share from 0 to 1 for what people report: 0.4, 40 of 100, ``{"done": 4, "total": 10}``."""
    if isinstance(value, dict):
        parts: dict[Any, Any] = {**value}
        done, total = _number(parts.get("done")), _number(parts.get("total"))
        return None if done is None or not total or total < 0 else min(1.0, max(0.0, done / total))
    number = _number(value)
    if number is None or not 0 <= number <= 100:
        return None
    return number if isinstance(value, float) and number <= 1 else number / 100


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _moments(job: JobStatus[Any], redact: Redactor) -> list[Moment]:
    """Return what happened, oldest first."""
    moments = [
        Moment(job.created_at, "created", "Enqueued"),
        *(_failure(each, job, redact) for each in job.history),
    ]
    match job.state:
        case JobState.PROCESSING:
            where = f"on {clip(job.worker_id or '', 80)}, as last heard"
            moments.append(Moment(job.updated_at, "processing", f"Attempt {job.attempts} runs", where))
        case JobState.SCHEDULED | JobState.FAILING:
            moments.append(Moment(job.run_at, "scheduled", "Due"))
        case JobState.COMPLETED | JobState.FAILED | JobState.CANCELLED:
            moments.append(Moment(job.updated_at, job.state.value, job.state.value.capitalize()))
        case JobState.QUEUED:
            if job.run_at > job.created_at:
                moments.append(Moment(job.run_at, "queued", "Ready"))
    if job.expires_at is not None:
        moments.append(Moment(job.expires_at, "expires", "Outcome and id are forgotten"))
    return moments


def _failure(failed: Attempt, job: JobStatus[Any], redact: Redactor) -> Moment:
    message = redact.text("error", failed.error.message, job)
    detail = f"{clip(f'{failed.error.type}: {message}', 300)} · on {clip(failed.worker_id, 80)}"
    if failed.reason is FailureReason.STALLED:
        return Moment(failed.at, "stalled", f"Attempt {failed.attempt} lost its lease", detail)
    title = f"Attempt {failed.attempt} failed"
    if failed.reason is not FailureReason.ERROR:
        title += f" ({failed.reason.value.replace('_', ' ')})"
    return Moment(failed.at, "failing", title, detail)


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change. The payload is not read."""
    desk = await source.desk(query.get("queue"))
    (record,) = await desk.store.get(desk.name, [query.get("id", "")], letters=True)
    if record is None:
        return {"job": None}
    return {
        "job": (record.seq, record.state, record.attempts, record.stalls, record.run_at, record.updated_at),
        "progress": record.progress,
        "worker": (record.worker, record.cancelling),
    }
