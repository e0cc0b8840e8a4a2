"""Completes the answers of an insertion with the jobs that the store has found and not yet read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from jobqueue.model.fast import field_of
from jobqueue.model.states import ENDED, JobState
from jobqueue.storage.values import Conflict, Inserted, InsertStatus, NewJob, Record, Reuse

__all__ = ["REPLACED_UNREAD", "as_found", "read_found", "without_repeats"]

REPLACED_UNREAD = Inserted(InsertStatus.REPLACED, 0, JobState.COMPLETED)
"""Stands for a job that an earlier send of the call has replaced. It stays if the job is gone since."""

_JOINS = (Conflict.JOIN, Reuse.RETURN)
"""Options of a job that leaves the one with its id as it is."""
_id = field_of(NewJob, "id")


def as_found(job: Record) -> Inserted:
    """Describe a job that an insertion has found."""
    data = job.result if job.state is JobState.COMPLETED else job.error
    return Inserted(
        InsertStatus.FOUND, job.seq, job.state, data if job.state in ENDED else None, job.attempts
    )


async def read_found(
    jobs: Sequence[NewJob],
    answers: Sequence[Inserted | None],
    get: Callable[[Sequence[str]], Awaitable[Sequence[Record | None]]],
    insert: Callable[[Sequence[NewJob]], Awaitable[Sequence[Inserted]]],
) -> list[Inserted]:
    """Read the jobs without an answer: their data were too large for it, or the call was a repeated one.

    One that has gone since is inserted.
    """
    if all(answers) and REPLACED_UNREAD not in answers:  # nearly always
        return cast("list[Inserted]", answers)
    unread = [
        (place, job)
        for place, (job, answer) in enumerate(zip(jobs, answers, strict=True))
        if answer is None or answer is REPLACED_UNREAD
    ]
    read = list(answers)
    gone: list[tuple[int, NewJob]] = []
    for (place, job), record in zip(unread, await get([job.id for _, job in unread]), strict=True):
        if record is not None:
            replaced = answers[place] is REPLACED_UNREAD
            found = as_found(record)
            read[place] = found._replace(status=InsertStatus.REPLACED, data=None) if replaced else found
        elif answers[place] is None:
            gone.append((place, job))
    for (place, _), inserted in zip(gone, await insert([job for _, job in gone]), strict=True):
        read[place] = inserted
    return cast("list[Inserted]", read)


def without_repeats(jobs: Sequence[NewJob], *, replaces_once: bool = False) -> Sequence[NewJob]:
    """Return the first jobs, up to one that may take the place of another one of them.

    What is to be read of the other one has to be read before. Jobs with one id and equal options stay
    together, as only the first of them makes a new job; but not with ``replaces_once``, for a store that
    replaces an id once in a call.
    """
    if len(set(map(_id, jobs))) == len(jobs):  # nearly always
        return jobs
    seen: dict[str, tuple[Conflict, Reuse]] = {}
    for place, job in enumerate(jobs):
        options = (job.conflict, job.reuse)
        known = seen.setdefault(job.id, options)
        if known is options or options == _JOINS:
            continue
        if options != known or (replaces_once and job.conflict is not Conflict.JOIN):
            return jobs[:place]
    return jobs
