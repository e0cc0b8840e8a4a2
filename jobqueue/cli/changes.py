"""Changing many jobs: those named by id one by one, those of a filter after a count and a question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from jobqueue.cli.choosing import MOST_COUNTED, confirm, count, found, several
from jobqueue.cli.client import client
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.job_view import jobs_table, listed
from jobqueue.cli.output import emit_json, rows_table, show, write
from jobqueue.cli.running import run
from jobqueue.cli.times import now
from jobqueue.client.results import JobStatus
from jobqueue.jobs import JobFilter
from jobqueue.model.states import JobState
from jobqueue.queue import Queue

__all__ = ["NOT_FOUND", "Change", "Place", "change"]

SAMPLE = 10
"""Jobs that ``--dry-run`` shows."""
NOT_FOUND = "not_found"

Jobs = Queue[Any, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the jobs are, and how what becomes of them is printed."""

    storage: str
    queue: str
    output: str
    serde: str = "json"


@dataclass(frozen=True, slots=True)
class Change:
    """What a command does to jobs."""

    verb: str
    """For questions: ``cancel``."""
    done: str
    """For answers: ``cancelled``."""
    states: Sequence[JobState]
    """The jobs to which it can be done."""
    one: Callable[[Jobs, str], Awaitable[str]]
    """Do it to one job; return ``done`` or another word for it, or the state that forbids it."""
    many: Callable[[Jobs, JobFilter], Awaitable[int]]
    """Do it to all jobs of a filter; return how many."""
    successes: frozenset[str]
    """Answers of ``one`` that say that it is done."""


def change(
    what: Change, place: Place, ids: Sequence[str], wanted: JobFilter, *, yes: bool, dry_run: bool
) -> None:
    """Do it to the jobs with these ids or, if there are none, to those of the filter."""
    if ids and dry_run:
        _show_sample(place, what, *run(_named(what, place, several(ids))))
    elif ids:
        _tell_each(what, place, run(_each(what, place, several(ids))))
    else:
        _change_many(what, place, wanted, yes=yes, dry_run=dry_run)


def _change_many(what: Change, place: Place, wanted: JobFilter, *, yes: bool, dry_run: bool) -> None:
    if dry_run or not yes:
        number, sample = run(_count(what, place, wanted))
        if dry_run:
            _show_sample(place, what, number, sample)
            return
        if number:
            # The store is not open meanwhile: whoever is asked may take an hour.
            confirm(f"{what.verb.capitalize()} {found(number)} of queue {place.queue}?")
    done = run(_many(what, place, wanted))
    if place.output == "json":
        emit_json({"queue": place.queue, what.done: done})
    else:
        write(f"{_number(done)} {what.done}")


def _number(number: int) -> str:
    """Return a number of jobs in words, however many."""
    return f"{number:,} job{'' if number == 1 else 's'}"


async def _count(what: Change, place: Place, wanted: JobFilter) -> tuple[int, list[JobStatus[Any]]]:
    async with client(place.storage, place.queue, place.serde) as queue:
        return await count(queue, wanted, what.states, SAMPLE)


async def _many(what: Change, place: Place, wanted: JobFilter) -> int:
    async with client(place.storage, place.queue, place.serde) as queue:
        return await what.many(queue, wanted)


async def _each(what: Change, place: Place, ids: Sequence[str]) -> dict[str, str]:
    async with client(place.storage, place.queue, place.serde) as queue:
        return {id: await what.one(queue, id) for id in ids}


async def _named(what: Change, place: Place, ids: Sequence[str]) -> tuple[int, list[JobStatus[Any]]]:
    async with client(place.storage, place.queue, place.serde) as queue:
        known = [await queue.jobs.get(id) for id in ids]
    fitting = [job for job in known if job is not None and job.state in what.states]
    return len(fitting), fitting


def _show_sample(place: Place, what: Change, number: int, sample: Sequence[JobStatus[Any]]) -> None:
    if place.output == "json":
        emit_json({
            "queue": place.queue, "dry_run": True, "matching": min(number, MOST_COUNTED),
            "more": number > MOST_COUNTED, "jobs": [listed(job) for job in sample],
        })  # fmt: skip
        return
    if sample:
        show(*jobs_table(sample, now()))
    left = f", of which these are {len(sample)}" if number > len(sample) else ""
    click.echo(f"would {what.verb} {found(number)} of queue {place.queue}{left}", err=True)


def _tell_each(what: Change, place: Place, answers: dict[str, str]) -> None:
    done = sum(answer in what.successes for answer in answers.values())
    rows = [{"id": id, "status": answer} for id, answer in answers.items()]
    data = {"queue": place.queue, what.done: done, "jobs": rows}
    if place.output == "table":
        show(rows_table(["id", "status"], [list(row.values()) for row in rows]))
    if done == len(answers):
        if place.output == "json":
            emit_json(data)
        return
    left = {id: answer for id, answer in answers.items() if answer not in what.successes}
    missing = all(answer == NOT_FOUND for answer in left.values())
    raise Failure(_refusal(what, place, left), Exit.NOT_FOUND if missing else Exit.ERROR, data=data)


def _refusal(what: Change, place: Place, left: dict[str, str]) -> str:
    if len(left) > 1:
        return f"{len(left)} jobs were not {what.done}: see their status"
    ((id, answer),) = left.items()
    if answer == NOT_FOUND:
        return f"no job {id!r} in queue {place.queue!r}, or its record has expired"
    return f"job {id!r} is {answer}: only {_either(what.states)} jobs can be {what.done}"


def _either(states: Sequence[JobState]) -> str:
    *others, last = states
    return f"{', '.join(others)} or {last}" if others else str(last)
