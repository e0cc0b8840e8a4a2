"""The commands of ``dead``: the failed jobs of a queue, to be looked at, run again or deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from jobqueue.cli.changes import Place
from jobqueue.cli.choosing import check_choice, chosen, confirm_options, filter_options, ids_argument
from jobqueue.cli.commands.job import list_jobs, page_options, remove_jobs, retry_jobs
from jobqueue.cli.options import (
    option,
    output_option,
    queue_option,
    seconds_or_zero,
    serde_option,
    storage_option,
)
from jobqueue.cli.options import payload as as_payload
from jobqueue.jobs import JobFilter
from jobqueue.model.states import JobState

__all__ = ["dead"]

_all = option("--all", is_flag=True, help="All failed jobs of the queue.")


@click.group()
def dead() -> None:
    """List the failed jobs of a queue, run them again, delete them."""


@dead.command("ls")
@storage_option()
@queue_option("dead ls")
@output_option()
@filter_options()
@page_options
def ls(*, storage: str, queue: str, output: str, limit: int, cursor: str | None, **filter: Any) -> None:
    """List failed jobs, a page at a time."""
    list_jobs(Place(storage, queue, output), _failed(filter), limit, cursor, "failed job")


@dead.command("retry")
@ids_argument()
@storage_option()
@queue_option("dead retry")
@output_option()
@serde_option()
@filter_options()
@_all
@option("--delay", type=seconds_or_zero, metavar="SECONDS", default=0.0, help="Seconds until they are due.")
@option("--payload", type=as_payload, metavar="JSON", help="Another payload, for one job.")
@confirm_options()
def retry(*, ids: tuple[str, ...], all: bool, yes: bool, dry_run: bool, **options: Any) -> None:
    """Run the failed jobs with these IDs again, those of a filter, or all."""
    check_choice(ids, chosen(options), all=all)
    retry_jobs(ids, _failed(options), options, yes=yes, dry_run=dry_run)


@dead.command("rm")
@ids_argument()
@storage_option()
@queue_option("dead rm")
@output_option()
@filter_options()
@_all
@confirm_options()
def rm(
    *, ids: tuple[str, ...], storage: str, queue: str, output: str, all: bool, yes: bool, dry_run: bool,
    **filter: Any,
) -> None:  # fmt: skip
    """Delete the failed jobs with these IDs, those of a filter, or all."""
    check_choice(ids, chosen(filter), all=all)
    place = Place(storage, queue, output)
    remove_jobs((JobState.FAILED,), place, ids, _failed(filter), yes=yes, dry_run=dry_run)


def _failed(options: dict[str, Any]) -> JobFilter:
    return replace(chosen(options), state=JobState.FAILED)
