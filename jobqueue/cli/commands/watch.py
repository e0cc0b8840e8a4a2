"""The command ``watch``, also ``job watch``: the changes of a job, until it has ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from jobqueue.cli.client import client
from jobqueue.cli.commands.job import job, no_job
from jobqueue.cli.exits import Exit, Failure, failure
from jobqueue.cli.job_view import details, state_text
from jobqueue.cli.options import job_id, output_option, queue_option, seconds, serde_option, storage_option
from jobqueue.cli.options import option as _option
from jobqueue.cli.output import as_json, emit_json, write_line
from jobqueue.cli.running import run
from jobqueue.cli.times import ago_or_in, now
from jobqueue.client.results import JobStatus, ended_error
from jobqueue.model.outcomes import FailureReason, encode_error
from jobqueue.model.states import ENDED, WAITING, JobState

__all__ = ["watch"]


def _command(name: str) -> click.Command:
    @click.command("watch")
    @click.argument("id", type=job_id)
    @storage_option()
    @queue_option(name)
    @output_option()
    @serde_option()
    @_option("--timeout", type=seconds, show_default=False,
             help="Seconds after which to stop looking.  [default: when it has ended]")  # fmt: skip
    def watch(*, id: str, storage: str, queue: str, output: str, serde: str, timeout: float | None) -> None:
        """Show job ID at each change of its state, attempts or progress, until it has ended.

        Exit code 6 if it fails or is cancelled, 4 if it has not ended within --timeout.
        """

        async def call() -> JobStatus[Any] | None:
            last: JobStatus[Any] | None = None
            async with client(storage, queue, serde) as asked:
                async for last in asked.jobs.watch(id, timeout=timeout):
                    _tell(last, output, now())
            return last

        _end(id, queue, run(call()), timeout)

    return watch


watch = _command("watch")
job.add_command(_command("job watch"))


def _tell(known: JobStatus[Any], output: str, at: datetime) -> None:
    if output == "json":
        emit_json(details(known))
        return
    cells: list[object] = [at.astimezone().strftime("%H:%M:%S"), state_text(known.state)]
    if known.state in WAITING and known.run_at > at:
        cells.append(f"due {ago_or_in(known.run_at, at)}")
    if known.attempts:
        cells.append(f"attempt {known.attempts} of {known.max_attempts}")
    if known.worker_id is not None:
        cells.append(f"on {known.worker_id}")
    if known.progress is not None and known.state not in ENDED:
        cells.append(f"progress {as_json(known.progress)}")
    if known.error is not None and known.state is JobState.FAILING:
        cells.append(f"{known.error.type}: {known.error.message}")
    if known.state is JobState.COMPLETED:
        cells.append(f"result {as_json(known.result)}")
    write_line(cells)


def _end(id: str, queue: str, known: JobStatus[Any] | None, timeout: float | None) -> None:
    """Raise what the outcome says, if it is not a result."""
    if known is None:
        raise no_job(id, queue)
    if known.state not in ENDED:
        if timeout is None:
            raise Failure(f"job {id!r} was removed while it was {known.state}", Exit.NOT_FOUND)
        raise Failure(f"job {id!r} is {known.state} after {timeout:g} s", Exit.TIMEOUT)
    if known.state is not JobState.COMPLETED:
        error = known.error
        data = None if error is None else encode_error(error, known.reason or FailureReason.UNKNOWN)
        raise failure(ended_error(id, known.state, data, known.attempts))
