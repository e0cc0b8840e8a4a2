"""What becomes of a job that meets a worker which does not serve it.

A deploy changes workers one after another: the next one may know the task. So the job is put back, with a
pause that doubles, and only when it has met none for a while it fails. Each meeting is an entry of the
job's history, from which everything here is computed: workers that come and go all see the same. The
attempts that it cost do not count.

A worker that was told to serve some tasks only leaves all other jobs to other workers: it puts them back in
the same way, but never fails them, and for their patience these meetings do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from jobqueue.errors import ErrorInfo
from jobqueue.model.outcomes import FailureReason, Outcome, Raised, RetryAsked, decode_error, decode_met

__all__ = ["LEFT", "left_to_others", "missing_handler", "uncounted"]

LEFT = "jobqueue.LeftToOthers"
"""Type of the error of a job that was put back by a worker which serves other tasks only."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 5.0
"""Seconds for which a job that is left to others is out of their reach at the most."""


class Failed(Protocol):
    """An entry of a job's history."""

    @property
    def at(self) -> int:
        """Instant in milliseconds."""
        ...

    @property
    def attempt(self) -> int:
        """Number of the claim, from 1; it begins anew when a failed job is revived."""
        ...

    @property
    def error(self) -> bytes:
        """The encoded error."""
        ...


def uncounted(history: Sequence[Failed], claims: int) -> int:
    """Return how many of the ``claims`` of a job that have ended met a worker without the handler."""
    total = 0
    for entry in _since_revival(history, claims):
        if _met_none(entry):
            # It says how many there were with it: of those before, the history may have lost some.
            if so_far := decode_met(entry.error):
                return total + so_far
            total += 1
    return total


def _since_revival(history: Sequence[Failed], claims: int) -> list[Failed]:
    """Return the entries of the last ``claims`` claims, latest first: a revived job keeps those of before."""
    entries: list[Failed] = []
    for entry in reversed(history):
        if entry.attempt > claims:
            break
        claims = entry.attempt - 1
        entries.append(entry)
    return entries


def missing_handler(name: str, history: Sequence[Failed], claims: int, patience: float) -> Outcome:
    """Return the outcome of a run of the task ``name``, ``""`` for the plain job, without a handler.

    ``claims`` are those before this one. ``patience`` is in seconds since the first of the latest such runs
    in a row. The pauses double, so that there are few of them. The history's own times decide, so that no
    two clocks are compared.
    """
    row = [entry for entry in _last_row(history, claims) if not _was_left(entry)]
    waited = 0.0
    if row:
        before = (row[0].at - row[-1].at) / 1000
        waited = before + _pause(before, patience)
    what = f"the task {name!r}" if name else "jobs without a task"
    error = ErrorInfo("jobqueue.NoHandler", f"this worker has no handler for {what}")
    if waited >= patience:
        return Raised(error, FailureReason.NO_HANDLER)
    met = uncounted(history, claims) + 1
    return RetryAsked(error, _pause(waited, patience), FailureReason.NO_HANDLER, met)


def left_to_others(served: Iterable[str], history: Sequence[Failed], claims: int) -> RetryAsked:
    """Return the outcome of a run on a worker that serves only some tasks, of which this is none."""
    row = _last_row(history, claims)
    waited = (row[0].at - row[-1].at) / 1000 if row else 0.0
    pause = max(_FIRST_PAUSE, min(waited, _LONGEST_PAUSE))
    error = ErrorInfo(LEFT, f"this worker serves only {', '.join(map(repr, sorted(served)))}")
    return RetryAsked(error, pause, FailureReason.NO_HANDLER, uncounted(history, claims) + 1)


def _last_row(history: Sequence[Failed], claims: int) -> list[Failed]:
    """Return the latest entries in a row that met no handler, latest first."""
    row: list[Failed] = []
    for entry in _since_revival(history, claims):
        if not _met_none(entry):
            break
        row.append(entry)
    return row


def _pause(waited: float, patience: float) -> float:
    return max(_FIRST_PAUSE, min(waited, patience - waited))


def _was_left(entry: Failed) -> bool:
    return decode_error(entry.error)[0].type == LEFT


def _met_none(entry: Failed) -> bool:
    return decode_error(entry.error)[1] is FailureReason.NO_HANDLER
