"""Which jobs a command is about: by id, or by a filter, which is counted and confirmed first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import click

from jobqueue.cli.exits import Failure
from jobqueue.cli.options import job_id, label, option
from jobqueue.cli.times import moment_ago, moment_ahead
from jobqueue.client.results import JobStatus
from jobqueue.jobs import MAX_PAGE, JobFilter
from jobqueue.model.checks import MAX_PRIORITY
from jobqueue.model.states import JobState
from jobqueue.queue import Queue
from jobqueue.runtime.text import printable

__all__ = [
    "MOST_COUNTED",
    "check_choice",
    "chosen",
    "confirm",
    "confirm_options",
    "count",
    "filter_options",
    "found",
    "ids_argument",
    "page",
    "several",
]

F = TypeVar("F", bound=Callable[..., Any])

MOST_COUNTED = 10_000
"""Jobs after which no more are counted before the question: there are enough to think twice."""


def ids_argument() -> Callable[[F], F]:
    """``[ID]...``."""
    return click.argument("ids", metavar="[ID]...", nargs=-1, type=job_id)


def filter_options(states: Iterable[JobState] = ()) -> Callable[[F], F]:
    """Options that select jobs; ``--state`` only where there is more than one to choose from."""
    made: list[Callable[[Any], Any]] = []
    names = [state.value for state in states]
    if names:
        made.append(option("--state", type=click.Choice(names), help="Only those in this state."))
    made += [
        option("--task", type=label, metavar="NAME", help="Only those of this task."),
        option("--group", type=label, metavar="NAME", help="Only those of this group."),
        option("--priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY),
               help="Only those of this priority."),
        option("--created-before", type=moment_ago, metavar="TIME",
               help="Only those made before: 2h is two hours ago, or an instant."),
        option("--created-after", type=moment_ago, metavar="TIME", help="Only those made after that."),
        option("--run-before", type=moment_ahead, metavar="TIME",
               help="Only those due before: 2h is in two hours, -2h two hours ago, or an instant."),
        option("--run-after", type=moment_ahead, metavar="TIME", help="Only those due after that."),
    ]  # fmt: skip

    def decorate(command: F) -> F:
        for each in reversed(made):
            command = each(command)
        return command

    return decorate


def confirm_options() -> Callable[[F], F]:
    """``--yes`` and ``--dry-run``."""
    yes = option("-y", "--yes", is_flag=True, help="Do not ask.")
    dry = option("--dry-run", is_flag=True, help="Only show which jobs it would be.")
    return lambda command: yes(dry(command))


def chosen(options: dict[str, Any]) -> JobFilter:
    """Return the filter that the options make; one without a field lets every job through."""
    return JobFilter(**{field.name: options.get(field.name) for field in fields(JobFilter)})


async def page(
    queue: Queue[Any, Any], wanted: JobFilter, limit: int, cursor: str | None = None
) -> tuple[list[JobStatus[Any]], str | None]:
    """Return up to ``limit`` jobs and where the next page begins, however many others lie between them."""
    jobs: list[JobStatus[Any]] = []
    while True:
        some, cursor = await queue.jobs.list(wanted, limit=limit - len(jobs), cursor=cursor)
        jobs += some
        if cursor is None or len(jobs) >= limit:
            return jobs, cursor


async def count(
    queue: Queue[Any, Any], wanted: JobFilter, states: Iterable[JobState], sample: int
) -> tuple[int, list[JobStatus[Any]]]:
    """Count the jobs that a filter means, in these states, up to `MOST_COUNTED`; return the first ones."""
    seen, first = 0, list[JobStatus[Any]]()
    for state in states:
        if wanted.state not in (None, state.value):
            continue
        within = JobFilter(**{field.name: getattr(wanted, field.name) for field in fields(JobFilter)
                              if field.name != "state"}, state=state)  # fmt: skip
        cursor: str | None = None
        while seen <= MOST_COUNTED:
            jobs, cursor = await page(queue, within, min(MAX_PAGE, MOST_COUNTED + 1 - seen), cursor)
            seen += len(jobs)
            first += jobs[: sample - len(first)]
            if cursor is None:
                break
    return seen, first


def found(number: int) -> str:
    """Return a number of jobs in words."""
    if number > MOST_COUNTED:
        return f"more than {MOST_COUNTED:,} jobs"
    return f"{number:,} job{'' if number == 1 else 's'}"


def confirm(question: str) -> None:
    """Ask on the terminal. Raises a `Failure` if the answer is no, or there is no terminal to ask."""
    if not _can_ask():
        raise Failure.usage(f"{question} There is no terminal to ask: add --yes, or look with --dry-run")
    try:
        agreed = click.confirm(printable(question), err=True)
    except click.Abort as abort:  # the end of the input, or Ctrl-C, which click takes for the same
        click.echo(err=True)
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        agreed = False
    if not agreed:
        raise Failure("nothing was changed")


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()  # pyright: ignore[reportUnnecessaryComparison]


def several(ids: Sequence[str]) -> list[str]:
    """Return ids without repetitions, in order."""
    return list(dict.fromkeys(ids))


def check_choice(ids: Sequence[str], wanted: JobFilter, *, all: bool | None = None) -> None:
    """Refuse a command that names no jobs, or names them twice over. ``all``: whether ``--all`` was given."""
    filtered = wanted != JobFilter() or bool(all)
    if ids and filtered:
        raise Failure.usage("give ids or a filter, not both")
    if all and wanted != JobFilter():
        raise Failure.usage("give --all or a filter, not both")
    if not ids and not filtered:
        instead = "" if all is None else ", or --all"
        raise Failure.usage(
            "which jobs? Name their ids, or give a filter such as --task NAME or "
            f"--created-before 7d{instead}"
        )
