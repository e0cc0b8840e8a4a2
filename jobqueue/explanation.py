"""Why a job does not run: each reason that stands in its way, and when it ends, if that is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jobqueue.model.checks import instant
from jobqueue.model.missing_handler import LEFT
from jobqueue.model.outcomes import FailureReason, decode_error
from jobqueue.model.states import ENDED, JobState
from jobqueue.model.worker_report import WorkerReport
from jobqueue.runtime.text import one_line
from jobqueue.stats import is_paused
from jobqueue.storage.capabilities import Limiting
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Counts, Record, WorkerInfo
from jobqueue.worker.self_report import read_reports

__all__ = ["Count", "Explanation", "Reason", "ReasonKind", "explain"]

Count = Callable[[str], Awaitable[Counts]]
"""Counts the jobs of a queue by state."""

LINE = 1_000
"""Ready jobs among which the place of one is looked for; of a longer line only the length is told."""
_LONGEST = 200
"""Characters of an error's message."""


class ReasonKind(StrEnum):
    """What keeps a job from running."""

    NOT_FOUND = "not_found"
    """There is no such job: it never was, or its record has expired."""
    ENDED = "ended"
    """It has ended; ``until``: when its record expires."""
    RUNNING = "running"
    """It does run; ``until``: when its lease ends unless it is renewed."""
    SCHEDULED = "scheduled"
    """Its time has not come; ``until``: when it does."""
    RETRYING = "retrying"
    """Its last attempt failed; ``until``: when it is tried again."""
    PAUSED = "paused"
    """The queue is paused."""
    QUEUE_LIMIT = "queue_limit"
    """As many jobs of the queue run as may."""
    GROUP_LIMIT = "group_limit"
    """As many jobs of its group run as may."""
    RATE = "rate"
    """The rate of the queue, or of its group, is used up; ``until``: when one more job may start."""
    BEHIND = "behind"
    """It stands in line."""
    NO_WORKER = "no_worker"
    """No worker of the queue has been seen within the last minute."""
    NO_HANDLER = "no_handler"
    """No worker that is seen has its task; ``until``: when the next one looks at it."""
    EXPIRED = "expired"
    """Its time to start is over: it fails as soon as a claim or a reaper meets it."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, which by itself would keep the job from running."""

    kind: ReasonKind
    detail: str
    """In words."""
    until: datetime | None = None
    """When it ends by itself; ``None`` if that is not known."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does not run."""

    id: str
    state: JobState | None
    """``None`` without such a job."""
    reasons: tuple[Reason, ...]
    """At least one; those of the job itself first."""


async def explain(store: Storage, queue: str, id: str, count: Count | None = None) -> Explanation:
    """Look for the reasons. The store is asked several times, so that they are not all of one instant.

    ``count`` counts the jobs of a queue; ``None``: the store does.
    """
    (record,) = await store.get(queue, [id], letters=True)
    if record is None:
        detail = f"queue {queue!r} has no job {id!r}: it was never enqueued, or its record has expired"
        return Explanation(id, None, (Reason(ReasonKind.NOT_FOUND, detail),))
    state = record.state
    if state in ENDED:
        return Explanation(id, state, (_ended(record),))
    if record.expires is not None and not record.fence:
        before = record.run_at + record.expires
        if before / 1000 <= store.clock.time():
            return Explanation(id, state, (_late(before),))
    if state is JobState.PROCESSING:
        workers = await store.workers(queue)
        return Explanation(id, state, (_running(record, workers, store.clock.time()),))
    return Explanation(id, state, tuple(await _waiting(store, queue, record, count or store.counts)))


async def _waiting(store: Storage, queue: str, record: Record, count: Count) -> list[Reason]:
    """Return the reasons why a job waits."""
    workers, paused = await asyncio.gather(store.workers(queue), is_paused(store, queue))
    later = record.state is not JobState.QUEUED and record.run_at / 1000 > store.clock.time()
    reasons = [_later(record)] if later else []
    if paused:
        reasons.append(Reason(ReasonKind.PAUSED, f"queue {queue!r} is paused until somebody resumes it"))
    if not workers:
        detail = f"no worker of queue {queue!r} has been seen within the last minute: start one"
        reasons.append(Reason(ReasonKind.NO_WORKER, detail))
    elif not later or reasons[0].kind is not ReasonKind.NO_HANDLER:
        reports = await read_reports(store, queue, [known.worker for known in workers])
        if _none_handles(record.task, workers, reports or {}):
            reasons.append(Reason(ReasonKind.NO_HANDLER, _without_handler(record.task)))
    if not later:
        reasons += await _limits(store, queue, record.group)
        behind = await _behind(store, queue, record, count)
        if behind or not reasons:
            reasons.append(Reason(ReasonKind.BEHIND, behind or _next(workers)))
    return reasons


async def _limits(store: Storage, queue: str, group: str) -> list[Reason]:
    """Return the limits that keep the jobs of a group, or those without, from starting now."""
    if not isinstance(store, Limiting):
        return []
    names = ["", group] if group else [""]
    usages = await store.usage(queue, names)
    reasons: list[Reason] = []
    for name, (running, opens_in) in zip(names, usages, strict=True):
        whose = f"its group {name!r}" if name else f"queue {queue!r}"
        if opens_in is None:
            kind = ReasonKind.GROUP_LIMIT if name else ReasonKind.QUEUE_LIMIT
            reasons.append(Reason(kind, f"{running} jobs of {whose} run, which is the limit"))
        elif opens_in > 0:
            until = instant(round(store.clock.time() * 1000) + opens_in)
            text = f"{whose} has started as many jobs as its rate allows until {_precise(until)}"
            reasons.append(Reason(ReasonKind.RATE, text, until))
    return reasons


def _precise(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _ended(record: Record) -> Reason:
    detail = f"it has {record.state.value}" if record.state is not JobState.CANCELLED else "it was cancelled"
    if record.state is JobState.FAILED and record.error is not None:
        after = f" after {record.attempts} attempts" if record.attempts else " without an attempt"
        detail += f"{after}: {_error(record.error)}"
    return Reason(ReasonKind.ENDED, detail, _instant(record.expires_at))


def _late(before: int) -> Reason:
    until = instant(before).isoformat(timespec="seconds")
    detail = f"it had to start by {until}: it never will, and fails as expired with the next claim or sweep"
    return Reason(ReasonKind.EXPIRED, detail)


def _running(record: Record, workers: Sequence[WorkerInfo], now: float) -> Reason:
    detail = f"worker {record.worker!r} runs attempt {record.attempts} of {record.max_attempts}"
    seen = {known.worker: known.seen_at for known in workers}.get(record.worker or "")
    detail += ", and has not been seen for a minute" if seen is None else (
        f", last seen at {instant(seen).isoformat(timespec='seconds')}"
    )  # fmt: skip
    if record.cancelling:
        detail += "; it has been asked to end it"
    if record.lease_until is not None and record.lease_until / 1000 <= now:
        detail += "; its lease has run out, so that a reaper gives the job to another one"
    return Reason(ReasonKind.RUNNING, detail, _instant(record.lease_until))


def _later(record: Record) -> Reason:
    until = instant(record.run_at)
    if record.state is JobState.SCHEDULED:
        return Reason(ReasonKind.SCHEDULED, f"it is due at {until.isoformat(timespec='seconds')}", until)
    if record.error is None:
        return Reason(ReasonKind.RETRYING, "it is tried again later", until)
    error, reason = decode_error(record.error)
    if error.type == LEFT:  # whether others have it is another question
        return Reason(
            ReasonKind.RETRYING, f"the last worker that met it left it to others: {error.message}", until
        )
    if reason is FailureReason.NO_HANDLER:
        return Reason(ReasonKind.NO_HANDLER, _without_handler(record.task), until)
    detail = f"attempt {record.attempts} of {record.max_attempts} ended in {_error(record.error)}"
    return Reason(ReasonKind.RETRYING, detail, until)


def _none_handles(task: str, workers: Sequence[WorkerInfo], reports: dict[str, WorkerReport]) -> bool:
    """Return whether all workers are known not to run a task: one that has not reported may."""
    return all(known.worker in reports and reports[known.worker].handles(task) is False for known in workers)


def _without_handler(task: str) -> str:
    what = f"the task {task!r}" if task else "a handler for jobs without a task"
    return f"no worker that is seen has {what}: deploy one that does"


async def _behind(store: Storage, queue: str, record: Record, count: Count) -> str:
    """Say how many jobs are in front; empty if none is."""
    takes_turns = bool(record.group) and isinstance(store, Limiting)
    counts = await count(queue)
    if counts.queued > LINE:
        return f"up to {counts.queued - 1} jobs are in front of it"
    place, front, read = (-record.priority, record.seq), 0, 0
    cursor: str | None = None
    while read < LINE:
        page = await store.scan(queue, JobState.QUEUED, LINE - read, cursor)
        front += sum(
            (-other.priority, other.seq) < place
            for other in page.records
            if not takes_turns or other.group == record.group
        )
        read += len(page.records)
        cursor = page.cursor
        if cursor is None:
            break
    if not front:
        return ""
    text = "1 job is in front of it" if front == 1 else f"{front} jobs are in front of it"
    return f"{text} in its group {record.group!r}; groups take turns" if takes_turns else text


def _next(workers: Sequence[WorkerInfo]) -> str:
    running = sum(known.running for known in workers)
    return f"it is the next in line, behind {running} that run on {len(workers)} workers"


def _error(data: bytes) -> str:
    error, _ = decode_error(data)
    return one_line(f"{error.type}: {error.message}"[:_LONGEST])


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else instant(milliseconds)
