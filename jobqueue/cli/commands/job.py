"""The commands of ``job``: list, look at and change the jobs of a queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from jobqueue.cli.changes import NOT_FOUND, Change, Place, change
from jobqueue.cli.choosing import check_choice, chosen, confirm_options, filter_options, ids_argument, page
from jobqueue.cli.client import client
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.job_view import details, history_table, jobs_table, listed, shown_details
from jobqueue.cli.options import (
    job_id,
    option,
    output_option,
    queue_option,
    seconds_or_zero,
    serde_option,
    storage_option,
)
from jobqueue.cli.options import payload as as_payload
from jobqueue.cli.output import emit_json, fields_table, show
from jobqueue.cli.running import run
from jobqueue.cli.task_arguments import as_arguments
from jobqueue.cli.times import now
from jobqueue.client.results import JobStatus
from jobqueue.jobs import MAX_PAGE, JobFilter
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.queue import Queue
from jobqueue.storage.values import CancelStatus

__all__ = ["job", "list_jobs", "no_job", "page_options", "remove_jobs", "retry_jobs"]


def _in_order(states: Iterable[JobState]) -> tuple[JobState, ...]:
    return tuple(state for state in JobState if state in states)


@click.group()
def job() -> None:
    """List, look at and change the jobs of a queue."""


def page_options(command: Any) -> Any:
    """``--limit`` and ``--cursor``."""
    command = option("--cursor", help="Where to go on: the cursor that the page before ended with.")(command)
    return option("--limit", type=click.IntRange(1, MAX_PAGE), default=50, help="Jobs of one page.")(command)


@job.command("ls")
@storage_option()
@queue_option("job ls")
@output_option()
@filter_options(JobState)
@page_options
def ls(*, storage: str, queue: str, output: str, limit: int, cursor: str | None, **filter: Any) -> None:
    """List jobs, a page at a time."""
    list_jobs(Place(storage, queue, output), chosen(filter), limit, cursor)


def list_jobs(place: Place, wanted: JobFilter, limit: int, cursor: str | None, kind: str = "job") -> None:
    """Print a page of jobs."""

    async def call() -> tuple[list[JobStatus[Any]], str | None]:
        async with client(place.storage, place.queue) as asked:
            return await page(asked, wanted, limit, cursor)

    jobs, after = run(call())
    if place.output == "json":
        emit_json({"queue": place.queue, "jobs": [listed(known) for known in jobs], "cursor": after})
        return
    show(*jobs_table(jobs, now()) if jobs else ())
    if not jobs and cursor is None:
        click.echo(f"no such {kind} in queue {place.queue}", err=True)
    if after is not None:
        click.echo(f"there may be more: --cursor {after}", err=True)


@job.command("show")
@click.argument("id", type=job_id)
@storage_option()
@queue_option("job show")
@output_option()
@serde_option()
def show_job(*, id: str, storage: str, queue: str, output: str, serde: str) -> None:
    """Show all that is known of job ID: its payload, its outcome, its failed attempts."""

    async def call() -> JobStatus[Any] | None:
        async with client(storage, queue, serde) as asked:
            return await asked.jobs.get(id)

    known = run(call())
    if known is None:
        raise no_job(id, queue)
    if output == "json":
        emit_json(details(known))
        return
    at = now()
    show(fields_table(shown_details(known, at)), *history_table(known.history, at) if known.history else ())


def no_job(id: str, queue: str) -> Failure:
    """Return the failure of a command on a job that does not exist."""
    return Failure(f"no job {id!r} in queue {queue!r}, or its record has expired", Exit.NOT_FOUND)


# -- changes ------------------------------------------------------------------------------------------


@job.command("cancel")
@ids_argument()
@storage_option()
@queue_option("job cancel")
@output_option()
@filter_options(_in_order(WAITING | {JobState.PROCESSING}))
@option("--running", is_flag=True, help="Also jobs that run: their workers are asked to end them.")
@confirm_options()
def cancel(
    *, ids: tuple[str, ...], storage: str, queue: str, output: str, running: bool, yes: bool, dry_run: bool,
    **filter: Any,
) -> None:  # fmt: skip
    """Cancel the waiting jobs with these IDs, or those of a filter."""
    wanted = chosen(filter)
    check_choice(ids, wanted)
    if wanted.state == JobState.PROCESSING and not running:
        raise Failure.usage("jobs that are processing run already: add --running to end them")

    async def one(asked: Queue[Any, Any], id: str) -> str:
        return await asked.cancel(id, running=running)

    async def many(asked: Queue[Any, Any], wanted: JobFilter) -> int:
        return await asked.jobs.cancel(wanted, running=running)

    states = _in_order(WAITING | {JobState.PROCESSING} if running else WAITING)
    successes = frozenset[str]({CancelStatus.CANCELLED, CancelStatus.CANCELLING})
    what = Change("cancel", "cancelled", states, one, many, successes)
    change(what, Place(storage, queue, output), ids, wanted, yes=yes, dry_run=dry_run)


@job.command("retry")
@ids_argument()
@storage_option()
@queue_option("job retry")
@output_option()
@serde_option()
@filter_options()
@option("--delay", type=seconds_or_zero, metavar="SECONDS", default=0.0, help="Seconds until they are due.")
@option("--payload", type=as_payload, metavar="JSON", help="Another payload, for one job.")
@confirm_options()
def retry(*, ids: tuple[str, ...], yes: bool, dry_run: bool, **options: Any) -> None:
    """Run the failed jobs with these IDs again, or those of a filter."""
    wanted = chosen(options)
    check_choice(ids, wanted)
    retry_jobs(ids, wanted, options, yes=yes, dry_run=dry_run)


def retry_jobs(
    ids: tuple[str, ...], wanted: JobFilter, options: dict[str, Any], *, yes: bool, dry_run: bool
) -> None:
    """Run failed jobs again."""
    new, delay = options["payload"], options["delay"]
    if new is not None and len(ids) != 1:
        raise Failure.usage("--payload goes to one job: name it by its id")

    async def one(asked: Queue[Any, Any], id: str) -> str:
        more: dict[str, Any] = {}
        known = await asked.jobs.get(id)
        if known is not None and new is not None:
            more["payload"] = as_arguments(new) if known.task else new
        done = known is not None and await asked.jobs.retry(id, delay=delay, **more)
        return "retried" if done else await _state_of(asked, id)

    async def many(asked: Queue[Any, Any], wanted: JobFilter) -> int:
        return await asked.jobs.retry(wanted, delay=delay)

    what = Change("retry", "retried", (JobState.FAILED,), one, many, frozenset({"retried"}))
    place = Place(options["storage"], options["queue"], options["output"], options["serde"])
    change(what, place, ids, wanted, yes=yes, dry_run=dry_run)


@job.command("rm")
@ids_argument()
@storage_option()
@queue_option("job rm")
@output_option()
@filter_options(_in_order(WAITING | ENDED))
@confirm_options()
def rm(
    *, ids: tuple[str, ...], storage: str, queue: str, output: str, yes: bool, dry_run: bool, **filter: Any
) -> None:
    """Delete the waiting and ended jobs with these IDs, or those of a filter."""
    wanted = chosen(filter)
    check_choice(ids, wanted)
    remove_jobs(
        _in_order(WAITING | ENDED), Place(storage, queue, output), ids, wanted, yes=yes, dry_run=dry_run
    )


def remove_jobs(
    states: tuple[JobState, ...], place: Place, ids: tuple[str, ...], wanted: JobFilter, *, yes: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Delete jobs in these states."""

    async def one(asked: Queue[Any, Any], id: str) -> str:
        known = await asked.jobs.get(id)
        if known is None or known.state not in states:
            return NOT_FOUND if known is None else known.state
        return "removed" if await asked.jobs.remove(id) else await _state_of(asked, id)

    async def many(asked: Queue[Any, Any], wanted: JobFilter) -> int:
        return await asked.jobs.remove(wanted)

    change(Change("remove", "removed", states, one, many, frozenset({"removed"})), place, ids, wanted,
           yes=yes, dry_run=dry_run)  # fmt: skip


async def _state_of(asked: Queue[Any, Any], id: str) -> str:
    known = await asked.jobs.get(id)
    return NOT_FOUND if known is None else known.state
