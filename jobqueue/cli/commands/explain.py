"""The command ``job explain``: why a job does not run."""

from __future__ import annotations

import click

from jobqueue.cli.client import client
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.job_view import state_text
from jobqueue.cli.options import job_id, output_option, queue_option, storage_option
from jobqueue.cli.output import emit_json, fields_table, rows_table, show
from jobqueue.cli.running import run
from jobqueue.cli.times import ago_or_in, iso, now
from jobqueue.explanation import Explanation

__all__ = ["explain"]


@click.command()
@click.argument("id", type=job_id)
@storage_option()
@queue_option("job explain")
@output_option()
def explain(*, id: str, storage: str, queue: str, output: str) -> None:
    """Say why job ID does not run: what is in its way, and until when."""

    async def call() -> Explanation:
        async with client(storage, queue) as asked:
            return await asked.jobs.explain(id)

    found = run(call())
    value = {
        "queue": queue,
        "id": found.id,
        "state": None if found.state is None else found.state.value,
        "reasons": [
            {"kind": reason.kind.value, "detail": reason.detail, "until": iso(reason.until)}
            for reason in found.reasons
        ],
    }
    if found.state is None:
        raise Failure(found.reasons[0].detail, Exit.NOT_FOUND, data=value)
    if output == "json":
        emit_json(value)
        return
    at = now()
    rows = [[reason.kind.value, ago_or_in(reason.until, at), reason.detail] for reason in found.reasons]
    show(
        fields_table({"id": found.id, "state": state_text(found.state)}),
        rows_table(["reason", "until", "because"], rows),
    )
