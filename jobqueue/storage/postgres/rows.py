"""What the functions of the schema take and answer, as values of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from jobqueue.errors import StorageError
from jobqueue.model.fast import make_tuple
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.postgres.lines import Reached, Span
from jobqueue.storage.values import (
    DEAD_LETTER_TTL,
    EXPIRE_LIMIT,
    AttemptRecord,
    CancelStatus,
    Claimed,
    Conflict,
    Exchanged,
    Inserted,
    InsertStatus,
    LeaseStatus,
    NewJob,
    Record,
    Reuse,
    SettleStatus,
    UpdateTtlStatus,
)

__all__ = [
    "CANCELLED_STATES",
    "CODES",
    "ENDED",
    "LEASES",
    "SETTLED",
    "STATES",
    "TTLS",
    "every_job_column",
    "every_settlement_column",
    "exchanged",
    "inserted",
    "job_columns",
    "letters",
    "met_strays",
    "reached",
    "record",
    "replaced",
    "replacing_columns",
    "settlement_columns",
    "span_columns",
]

_T = TypeVar("_T")

STATES = dict(enumerate(JobState, start=1))
"""The states by their numbers in the tables."""
CODES = {state: number for number, state in STATES.items()}
ENDED = {CODES[state]: state for state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)}

_ACTIONS = {
    Action.COMPLETE: 1,
    Action.FAIL: 2,
    Action.RETRY: 3,
    Action.RELEASE: 4,
    Action.CANCEL: 5,
}
_REUSES = {Reuse.RETURN: 1, Reuse.RERUN_FAILED: 2, Reuse.RERUN: 3}
_CONFLICTS = {Conflict.JOIN: 1, Conflict.REPLACE: 2, Conflict.DEBOUNCE: 3}
_INSERTED = {
    1: InsertStatus.CREATED,
    2: InsertStatus.FOUND,
    3: InsertStatus.FULL,
    5: InsertStatus.REPLACED,
}

SETTLED = {
    "N": SettleStatus.ACCEPTED,
    "A": SettleStatus.ACCEPTED,
    "X": SettleStatus.CANCELLED,
    "L": SettleStatus.LOST,
}
LEASES = {"H": LeaseStatus.HELD, "C": LeaseStatus.CANCELLING, "L": LeaseStatus.LOST}
TTLS = {"U": UpdateTtlStatus.UPDATED, "N": UpdateTtlStatus.NOT_FOUND, "L": UpdateTtlStatus.NOT_TERMINAL}
CANCELLED_STATES = {
    0: CancelStatus.NOT_FOUND,
    3: CancelStatus.PROCESSING,
    13: CancelStatus.CANCELLING,
    5: CancelStatus.COMPLETED,
    6: CancelStatus.FAILED,
    7: CancelStatus.CANCELLED,
}


def letters(text: str, meaning: dict[str, _T], count: int) -> list[_T]:
    """Return the statuses that a text of letters stands for."""
    if len(text) != count:
        raise StorageError(f"the database answered for {len(text)} items of {count}: its schema is damaged")
    return [meaning[letter] for letter in text]


def _short(column: list[Any]) -> list[Any]:
    """Return a column, or its value if that is one for all: most of what takes time is encoding values."""
    return column[:1] if column and column.count(column[0]) == len(column) else column


def job_columns(jobs: Sequence[NewJob]) -> tuple[list[Any], ...]:
    """Return jobs as the arrays that ``insert_jobs`` takes; columns with one value are that long."""
    ids, payloads, *others = every_job_column(jobs)
    return ids, payloads, *map(_short, others)


def every_job_column(jobs: Sequence[NewJob]) -> tuple[list[Any], ...]:
    """Return jobs as arrays of the same length."""
    return (
        [job.id for job in jobs],
        [job.payload for job in jobs],
        [job.priority for job in jobs],
        [job.delay for job in jobs],
        [job.run_at for job in jobs],
        [job.max_attempts for job in jobs],
        [job.max_stalls for job in jobs],
        [job.ttl for job in jobs],
        [_REUSES[job.reuse] for job in jobs],
        [job.wait for job in jobs],
        [job.headers for job in jobs],
        [job.task for job in jobs],
        [job.group for job in jobs],
        # A null is none; the default takes no room, since without a null a row has no map of these.
        [DEAD_LETTER_TTL if job.dead_letter_ttl is None else job.dead_letter_ttl or None for job in jobs],
        [job.expires for job in jobs],
        [job.weight if job.group else 1 for job in jobs],
    )


def replacing_columns(jobs: Sequence[NewJob]) -> tuple[list[Any], ...]:
    """Return jobs as the arrays that ``insert_replacing`` takes."""
    return (*every_job_column(jobs), [_CONFLICTS[job.conflict] for job in jobs])


def replaced(rows: Iterable[Any], count: int) -> list[Inserted | None]:
    """Return the answers of ``insert_replacing``, as `inserted` does."""
    names = ("place", "status", "seq", "state", "attempts")
    found = [[row[name] for name in names] for row in rows]
    return inserted([(*row[:4], None, row[4], None) for row in found], count)


def inserted(rows: Iterable[Any], count: int) -> list[Inserted | None]:
    """Return the answers of ``insert_jobs``; ``None`` for a job that was found and has to be read."""
    answers: list[Inserted | None] = [None] * count
    for place, status, seq, state, data, attempts, seqs in rows:
        if seqs is not None:
            waits = STATES[state]
            return [make_tuple(Inserted, (InsertStatus.CREATED, seq, waits, None, 0)) for seq in seqs]
        if status != 4:
            answers[place - 1] = Inserted(_INSERTED[status], seq, STATES[state], data, attempts)
    return answers


def settlement_columns(settlements: Sequence[Settlement]) -> tuple[list[Any], ...]:
    """Return settlements as the arrays that ``exchange`` takes; columns with one value are that long."""
    ids, fences, actions, data, *others = every_settlement_column(settlements)
    return ids, fences, _short(actions), data, *map(_short, others)


def every_settlement_column(settlements: Sequence[Settlement]) -> tuple[list[Any], ...]:
    """Return settlements as arrays of the same length."""
    return (
        [settlement.id for settlement in settlements],
        [settlement.fence for settlement in settlements],
        [_ACTIONS[settlement.action] for settlement in settlements],
        [settlement.data for settlement in settlements],
        [settlement.ttl for settlement in settlements],
        [settlement.delay for settlement in settlements],
        [settlement.summary for settlement in settlements],
    )


def exchanged(rows: Sequence[Any], count: int) -> Exchanged:
    """Return the answer of ``exchange`` for so many settlements."""
    settled, next_due = rows[0][0], rows[0][1]
    last = rows[-1]
    if len(rows) > 1 and last[3] is None:  # of a queue with limits or groups
        opens, cut, rows = last[1], last[2], rows[:-1]
        next_due = opens if next_due is None or (opens is not None and opens < next_due) else next_due
    else:
        cut = len(rows) > 1 and rows[1][2]
    jobs = [make_tuple(Claimed, (*row[3:16], _history(*row[16:20]) if row[16] else ())) for row in rows[1:]]
    more, paused, expired = bool(jobs) and cut, bool(rows[0][2]), rows[0][22]
    if expired:
        more = more or len(expired) == EXPIRE_LIMIT
        return Exchanged(letters(settled, SETTLED, count), jobs, next_due, more, paused, tuple(expired))
    return Exchanged(letters(settled, SETTLED, count), jobs, next_due, more, paused)


def span_columns(spans: Sequence[Span]) -> tuple[list[int], ...]:
    """Return spans as the arrays that ``exchange`` takes."""
    return (
        [span.most for span in spans],
        [span.least for span in spans],
        [span.low for span in spans],
        [span.high for span in spans],
    )


def reached(rows: Sequence[Any]) -> Reached | None:
    """Return how far a claim has come, from its answer; ``None`` if that is not known."""
    found, taken = rows[0][20:22]
    if found is None or (len(rows) > 1 and rows[1][2]):
        return None
    clock, due, took, *last = found
    return Reached(clock, due, took, tuple(taken), *last)


def met_strays(rows: Sequence[Any]) -> bool:
    """Return whether a claim found nothing but places without a job."""
    return bool(rows[0][21]) and all(row[3] is None for row in rows[1:])


def _history(
    at: list[int] | None, attempt: list[int], worker: list[str], error: list[bytes]
) -> tuple[AttemptRecord, ...]:
    return () if at is None else tuple(map(AttemptRecord, at, attempt, worker, error))


def record(row: Any, *, listed: bool = False) -> Record | None:
    """Return a row of ``read_jobs``, after its place, or of ``list_jobs``; ``None`` if there is no job."""
    if listed:
        (
            id, seq, state, priority, due, created, updated, attempts, max_attempts, stalls, max_stalls, ttl,
            fence, worker, until, cancelling, error, progress, expires, task, group, start_within,
        ) = row  # fmt: skip
        result = payload = None
        headers = b""
        history: tuple[AttemptRecord, ...] = ()
        if state not in STATES:
            return None
    else:
        (
            _, id, seq, state, priority, due, created, updated, attempts, max_attempts, stalls, max_stalls,
            ttl, fence, worker, until, cancelling, result, error, progress, expires, payload, headers, task,
            group, *attempts_made, start_within,
        ) = row  # fmt: skip
        if id is None or state not in STATES:  # none, or an edit by hand has damaged it
            return None
        history = _history(*attempts_made)
    return Record(
        id, seq, STATES[state], priority, due, created, updated, attempts, max_attempts, stalls, max_stalls,
        ttl, fence, worker, until, cancelling, result, error, progress, expires, payload,
        headers, task, group, history, start_within,
    )  # fmt: skip
