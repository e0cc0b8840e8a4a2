"""The commands ``enqueue``, ``wait``, ``status`` and ``cancel``, each for one job."""

from __future__ import annotations

from typing import Any

import click

from jobqueue.cli.client import client
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.job_view import status_fields
from jobqueue.cli.options import (
    instant,
    label,
    option,
    output_option,
    queue_option,
    seconds,
    seconds_or_zero,
    serde_option,
    storage_option,
)
from jobqueue.cli.options import payload as as_payload
from jobqueue.cli.output import as_json, emit_json, fields_table, show, write
from jobqueue.cli.running import run
from jobqueue.cli.task_arguments import as_arguments
from jobqueue.client.results import EnqueueRequest, EnqueueStatus
from jobqueue.client.room import OnFull
from jobqueue.model.checks import MAX_PRIORITY
from jobqueue.model.new_job import Conflict
from jobqueue.storage.values import CancelStatus, Reuse

__all__ = ["cancel", "enqueue", "status", "wait"]

_timeout = option("--timeout", type=seconds, default=30.0, help="Seconds to wait for the result.")
_priority = click.IntRange(-MAX_PRIORITY, MAX_PRIORITY)


@click.command()
@click.argument("id")
@click.argument("payload", type=as_payload)
@storage_option()
@queue_option("enqueue")
@output_option()
@serde_option()
@option("--wait", is_flag=True, help="Wait for the result and print it.")
@_timeout
@option("--delay", type=seconds_or_zero, metavar="SECONDS", help="Seconds until it is due.")
@option("--run-at", type=instant, help="When it is due, for example 2030-01-31T08:00:00Z.")
@option("--priority", type=_priority, default=0, help="Higher starts first.")
@option("--max-attempts", type=click.IntRange(1), help="How often it is tried.  [default: 3]")
@option("--result-ttl", type=seconds, help="Seconds that the outcome is kept.  [default: 3600]")
@option("--reuse", type=click.Choice([reuse.value for reuse in Reuse]), default=Reuse.RETURN.value,
        help="What an id means whose job has ended.")  # fmt: skip
@option("--conflict", type=click.Choice([conflict.value for conflict in Conflict]),
        default=Conflict.JOIN.value, help="What an id means whose job waits.")  # fmt: skip
@option("--task", type=label, metavar="NAME",
        help="Task that is to run it, with the arguments in PAYLOAD: an array, or an object of named ones.",
        )  # fmt: skip
@option("--group", type=label, metavar="NAME", help="Text that several jobs share.")
@option("--expires", type=seconds, metavar="SECONDS",
        help="Seconds after it is due within which it has to start, or fails.")  # fmt: skip
@option("--on-full", type=click.Choice([on_full.value for on_full in OnFull]), default=OnFull.RAISE.value,
        help="What to do when the store has no room.")  # fmt: skip
def enqueue(
    *,
    id: str,
    payload: Any,
    storage: str,
    queue: str,
    output: str,
    serde: str,
    timeout: float,
    wait: bool,
    task: str | None,
    group: str | None,
    **options: Any,
) -> None:
    """Create job ID, or find the one that has this id.

    ID `-` makes a unique one. PAYLOAD is JSON text, `@file`, or `-` for stdin.
    """
    job_id = None if id == "-" else id
    options["group"] = group or ""
    if task is not None:
        options["task"], payload = task, as_arguments(payload)

    async def call() -> None:
        async with client(storage, queue, serde, make=True) as producer:
            if wait and task is None:  # a job of the handler: in one step, whatever becomes of it at once
                answer = await producer.enqueue_and_wait(job_id, payload, timeout=timeout, **options)
                _print_result(None if job_id is None else id, answer, output)
                return
            (made,) = await producer.enqueue_many([EnqueueRequest(job_id, payload, **options)])
            if wait:
                answer = await made.wait(timeout)
                _print_result(None if job_id is None else id, answer, output)
                return
            fields: dict[str, object] = {"id": made.id, "status": made.status, "state": made.state}
            if made.status is EnqueueStatus.COMPLETED:
                fields["result"] = made.result
            _print_fields(fields, output)

    run(call())


@click.command()
@click.argument("id")
@storage_option()
@queue_option("wait")
@output_option()
@serde_option()
@_timeout
def wait(*, id: str, storage: str, queue: str, output: str, serde: str, timeout: float) -> None:
    """Wait for the result of job ID and print it as JSON."""

    async def call() -> None:
        async with client(storage, queue, serde) as producer:
            _print_result(id, await producer.wait(id, timeout=timeout), output)

    run(call())


@click.command()
@click.argument("id")
@storage_option()
@queue_option("status")
@output_option()
@serde_option()
def status(id: str, storage: str, queue: str, output: str, serde: str) -> None:
    """Show the state, counters and outcome of job ID."""

    async def call() -> None:
        async with client(storage, queue, serde) as producer:
            known = await producer.get_status(id)
        if known is None:
            raise Failure(_not_found(id, queue), Exit.NOT_FOUND)
        _print_fields(status_fields(known), output)

    run(call())


@click.command()
@click.argument("id")
@storage_option()
@queue_option("cancel")
@output_option()
@option("--running", is_flag=True, help="Also a job that runs: its worker is asked to end it.")
def cancel(id: str, storage: str, queue: str, output: str, *, running: bool) -> None:
    """Cancel job ID. Its waiters are told, and the id is free at once."""

    async def call() -> CancelStatus:
        async with client(storage, queue) as producer:
            return await producer.cancel(id, running=running)

    answer = run(call())
    fields: dict[str, object] = {"id": id, "status": answer}
    text, code = "", Exit.ERROR
    match answer:
        case CancelStatus.NOT_FOUND:
            text, code = _not_found(id, queue), Exit.NOT_FOUND
        case CancelStatus.PROCESSING:
            text = f"job {id!r} runs already: add --running to end it"
        case CancelStatus.COMPLETED | CancelStatus.FAILED:
            text = f"job {id!r} has {answer} already: there is nothing to cancel"
        case CancelStatus.CANCELLED | CancelStatus.CANCELLING:
            pass
    if output == "table" or not text:
        _print_fields(fields, output)
    if text:
        raise Failure(text, code, data=fields)


def _not_found(id: str, queue: str) -> str:
    return f"no job {id!r} in queue {queue!r}, or its record has expired"


def _print_result(id: str | None, result: Any, output: str) -> None:
    if output == "json":
        named: dict[str, Any] = {} if id is None else {"id": id}
        emit_json({**named, "state": "completed", "result": result})
    else:
        write(as_json(result))


def _print_fields(fields: dict[str, object], output: str) -> None:
    if output == "json":
        emit_json(fields)
        return
    shown = {name: value if isinstance(value, str) else _text(value) for name, value in fields.items()}
    show(fields_table(shown))


def _text(value: object) -> str | None:
    return None if value is None else as_json(value)
