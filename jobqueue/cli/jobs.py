"""The commands ``enqueue``, ``wait``, ``status`` and ``cancel``, each for one job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from jobqueue.cli.client import SERDES, client
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.options import (
    instant,
    option,
    output_option,
    queue_option,
    seconds,
    seconds_or_zero,
    storage_option,
)
from jobqueue.cli.options import payload as as_payload
from jobqueue.cli.output import as_json, emit_json, fields_table, show, write
from jobqueue.cli.running import run
from jobqueue.options import MAX_PRIORITY
from jobqueue.records import EnqueueStatus, JobStatus
from jobqueue.storage.base import CancelStatus, Reuse

__all__ = ["cancel", "enqueue", "status", "wait"]

_serde = option("--serde", type=click.Choice(sorted(SERDES)), default="json",
                help="How the queue's payloads and results are written.")  # fmt: skip
_timeout = option("--timeout", type=seconds, default=30.0, help="Seconds to wait for the result.")
_priority = click.IntRange(-MAX_PRIORITY, MAX_PRIORITY)


@click.command()
@click.argument("id")
@click.argument("payload", type=as_payload)
@storage_option()
@queue_option("enqueue")
@output_option()
@_serde
@option("--wait", is_flag=True, help="Wait for the result and print it.")
@_timeout
@option("--delay", type=seconds_or_zero, metavar="SECONDS", help="Seconds until it is due.")
@option("--run-at", type=instant, help="When it is due, for example 2030-01-31T08:00:00Z.")
@option("--priority", type=_priority, default=0, help="Higher starts first.")
@option("--max-attempts", type=click.IntRange(1), help="How often it is tried.  [default: 3]")
@option("--result-ttl", type=seconds, help="Seconds that the outcome is kept.  [default: 3600]")
@option("--reuse", type=click.Choice([reuse.value for reuse in Reuse]), default=Reuse.RETURN.value,
        help="What an id means whose job has ended.")  # fmt: skip
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
    **options: Any,
) -> None:
    """Create job ID, or find the one that has this id.

    ID `-` makes a unique one. PAYLOAD is JSON text, `@file`, or `-` for stdin.
    """
    job_id = None if id == "-" else id

    async def call() -> None:
        async with client(storage, queue, serde, make=True) as producer:
            if wait:
                answer = await producer.enqueue_and_wait(job_id, payload, timeout=timeout, **options)
                _print_result(None if job_id is None else id, answer, output)
                return
            made = await producer.enqueue(job_id, payload, **options)
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
@_serde
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
@_serde
def status(id: str, storage: str, queue: str, output: str, serde: str) -> None:
    """Show the state, counters and outcome of job ID."""

    async def call() -> None:
        async with client(storage, queue, serde) as producer:
            known = await producer.get_status(id)
        if known is None:
            raise Failure(_not_found(id, queue), Exit.NOT_FOUND)
        _print_fields(_status_fields(known), output)

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


def _status_fields(known: JobStatus[Any]) -> dict[str, object]:
    error = known.error
    return {
        "id": known.id,
        "state": known.state.value,
        "created_at": _iso(known.created_at),
        "updated_at": _iso(known.updated_at),
        "attempts": known.attempts,
        "max_attempts": known.max_attempts,
        "result": known.result,
        "error": None if error is None else {
            "type": error.type, "message": error.message, "traceback": error.traceback,
        },
        "progress": known.progress,
        "run_at": _iso(known.run_at),
        "priority": known.priority,
        "worker_id": known.worker_id,
        "expires_at": _iso(known.expires_at),
    }  # fmt: skip


def _iso(instant: datetime | None) -> str | None:
    if instant is None:
        return None
    return instant.isoformat(timespec="milliseconds" if instant.microsecond else "seconds")
