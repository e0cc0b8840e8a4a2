"""The command ``demo``."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from click.core import ParameterSource

from jobqueue.cli.client import opened
from jobqueue.cli.demo.check import direct, judge
from jobqueue.cli.demo.files import Found, default_directory, find_files
from jobqueue.cli.demo.report import progress, table
from jobqueue.cli.demo.scenario import Scenario
from jobqueue.cli.demo.summary import summary
from jobqueue.cli.exits import Failure
from jobqueue.cli.loading_bar import announced
from jobqueue.cli.options import ledger_url, option, output_option, storage_option
from jobqueue.cli.output import console, emit_json, show
from jobqueue.cli.running import run_fast
from jobqueue.runtime.text import printable
from jobqueue.storage.contract import Storage
from jobqueue.storage.file import FileStorage
from jobqueue.storage.urls import open_storage, redact

__all__ = ["demo"]

TEMPORARY = "temporary files"
SLOTS = 60
"""Jobs that run at once with ``--guard``."""
SHOWN = 5
"""Largest number of wrong answers that are listed."""


@click.command()
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@storage_option(required=False, text="URL of the store; without one, a temporary directory.")
@output_option()
@option("--max-files", type=click.IntRange(1, 1_000_000), default=2000, help="Files at the most.")
@option("--concurrency", type=click.IntRange(1, 1000), help="Jobs that run at once; 8, with --guard 60.")
@option("--guard", is_flag=True, help="Kill a Redis under load instead, and lose no job.")
@option("--jobs", type=click.IntRange(100, 1_000_000), default=10_000, help="Jobs of --guard.")
def demo(
    *,
    directory: Path | None,
    storage: str | None,
    output: str,
    max_files: int,
    concurrency: int | None,
    guard: bool,
    jobs: int,
) -> None:
    """Digest and count the files of DIRECTORY through a queue, and check every answer.

    Without DIRECTORY, the source of Python's standard library. Half of the files are asked for by
    request and response, half by fire and forget; some are asked for twice and run once, one fails
    and is retried, one is cancelled. Exit code 1 if any answer differs from a direct computation.

    With --guard, 10,000 jobs on a Redis without persistence of its own, which is killed at the peak and
    comes back empty, guarded by the PostgreSQL of --ledger, or by one that is started for it. Exit code 1
    unless every job has run, none is lost and the ledger has a reason for each that ran twice.
    """
    if guard:
        source = click.get_current_context().get_parameter_source("storage")
        if directory is not None or source is ParameterSource.COMMANDLINE:
            raise Failure.usage("--guard has a Redis of its own: leave DIRECTORY and --storage away")
        _guard_demo(jobs, concurrency or SLOTS, output)
        return
    concurrency = concurrency or 8
    root = (directory or default_directory()).absolute()
    found = find_files(root, max_files)
    if not found.files:
        raise Failure.usage(f"no readable files in {root}: name another directory")
    if storage is not None:
        open_storage(storage)  # what is wrong with a URL is said before anything else
    err = console(stderr=True)
    first = "the first " if found.more else ""
    name = TEMPORARY if storage is None else redact(storage)
    err.print(printable(f"A job on {name} for each of {first}{len(found.files):,} files in {root}"))
    numbers = run_fast(_run(found, storage, concurrency))
    if output == "json":
        emit_json(numbers)
    else:
        show(table(numbers))
    for line in numbers["wrong"][:SHOWN]:
        err.print(printable(line))
    if numbers["wrong"]:
        raise Failure(f"{len(numbers['wrong'])} things are not as they must be: this is a defect of jobqueue")


def _guard_demo(jobs: int, slots: int, output: str) -> None:
    try:
        from jobqueue.cli.demo.guarded.command import guard_demo  # needs an extra that other demos do not
    except ImportError as error:
        raise Failure(
            f"demo --guard needs the extra postgres: pip install 'jobqueue[postgres]' ({error})"
        ) from None
    guard_demo(ledger_url(), jobs, slots, output)


async def _run(found: Found, url: str | None, concurrency: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        if url is None:
            storage: Storage = FileStorage(stack.enter_context(TemporaryDirectory(prefix="jobqueue-demo-")))
        else:
            storage = await stack.enter_async_context(opened(announced(open_storage(url))))
        begin = stack.enter_context(progress(console(stderr=True)))
        scenario = Scenario(storage, found, concurrency, begin)
        seen = await scenario.run()
        expected = await asyncio.to_thread(direct, found, begin)
    verdict = judge(seen, expected, scenario.stumbling)
    return summary(found, TEMPORARY if url is None else redact(url), seen, verdict)
