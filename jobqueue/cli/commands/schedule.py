"""The commands of ``schedule``: list, add, remove, pause, resume and run the schedules of a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from jobqueue.cli.client import client
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.options import (
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
from jobqueue.cli.output import emit_json, fields_table, fitted, show
from jobqueue.cli.running import run
from jobqueue.cli.task_arguments import as_arguments
from jobqueue.cli.times import ago_or_in, iso, now
from jobqueue.client.results import EnqueueRequest
from jobqueue.model.checks import MAX_PRIORITY
from jobqueue.model.ticks import CatchUp
from jobqueue.queue import Queue
from jobqueue.schedules.stored import Schedule

__all__ = ["schedule"]

T = TypeVar("T")
_priority = click.IntRange(-MAX_PRIORITY, MAX_PRIORITY)


@click.group()
def schedule() -> None:
    """List, add, remove, pause, resume and run the schedules of a queue."""


@schedule.command("ls")
@storage_option()
@queue_option("schedule ls")
@output_option()
def ls(*, storage: str, queue: str, output: str) -> None:
    """List all schedules."""
    found = _asked(storage, queue, lambda asked: asked.schedules.list())
    if output == "json":
        emit_json({"queue": queue, "schedules": [_fields(one) for one in found]})
        return
    if not found:
        click.echo(f"no schedules in queue {queue}", err=True)
        return
    at = now()
    columns = ("name", "times", "task", "next", "last", "state", "catch up", "from")
    rows = [
        (
            one.name, _times(one), one.task or None, ago_or_in(one.next_at, at), ago_or_in(one.last_at, at),
            "paused" if one.paused else "on", one.catch_up.value, one.origin,
        )
        for one in found
    ]  # fmt: skip
    show(*fitted(columns, rows))


@schedule.command("add")
@click.argument("name", type=label)
@click.argument("payload", type=as_payload, required=False, default="null")
@storage_option()
@queue_option("schedule add")
@output_option()
@serde_option()
@option("--cron", metavar="FIELDS", help="Five fields, or @daily and its like: '30 2 * * mon-fri'.")
@option("--every", type=seconds, metavar="SECONDS", help="Seconds between two ticks, at least 1.")
@option("--timezone", metavar="NAME", default="UTC", help="Time zone of --cron, such as Europe/Berlin.")
@option("--jitter", type=seconds_or_zero, default=0.0, metavar="SECONDS",
        help="Put the start of each job off, by so many seconds at the most.")  # fmt: skip
@option("--catch-up", type=click.Choice([each.value for each in CatchUp]), default=CatchUp.LAST.value,
        help="What becomes of ticks that were missed.")  # fmt: skip
@option("--paused", is_flag=True, help="Have no ticks until `schedule resume`.")
@option("--task", type=label, metavar="NAME",
        help="Task that is to run it, with the arguments in PAYLOAD: an array, or an object of named ones.",
        )  # fmt: skip
@option(
    "--priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY), default=0, help="Higher starts first."
)
@option("--max-attempts", type=click.IntRange(1), help="How often a job is tried.  [default: 3]")
@option("--result-ttl", type=seconds, help="Seconds that an outcome is kept.  [default: 3600]")
@option("--group", type=label, metavar="NAME", help="Text that several jobs share.")
@option("--expires", type=seconds, metavar="SECONDS",
        help="Seconds after its tick within which a job has to start, or fails.")  # fmt: skip
def add(
    *,
    name: str,
    payload: Any,
    storage: str,
    queue: str,
    output: str,
    serde: str,
    task: str | None,
    priority: int,
    max_attempts: int | None,
    result_ttl: float | None,
    group: str | None,
    expires: float | None,
    **times: Any,
) -> None:
    """Add a schedule, or replace the one that has this NAME.

    PAYLOAD is JSON text, `@file`, or `-` for stdin; without it, null. Jobs are enqueued wherever a worker or
    a reaper runs.
    """
    if task is not None:
        payload = as_arguments([] if payload is None else payload)
    request = EnqueueRequest(
        None, payload, max_attempts, result_ttl, priority=priority, task=task or "", group=group or "",
        expires=expires,
    )  # fmt: skip

    async def call() -> Schedule:
        async with client(storage, queue, serde, make=True) as asked:
            return await asked.schedules.add(name, request, **times)

    _print(run(call()), output)


@schedule.command("rm")
@click.argument("name", type=label)
@storage_option()
@queue_option("schedule rm")
@output_option()
def rm(*, name: str, storage: str, queue: str, output: str) -> None:
    """Remove schedule NAME. Jobs that it has enqueued stay."""
    if not _asked(storage, queue, lambda asked: asked.schedules.remove(name)):
        raise Failure(f"no schedule {name!r} in queue {queue!r}", Exit.NOT_FOUND)
    _print_fields({"name": name, "status": "removed"}, output)


@schedule.command("pause")
@click.argument("name", type=label)
@storage_option()
@queue_option("schedule pause")
@output_option()
def pause(*, name: str, storage: str, queue: str, output: str) -> None:
    """Have no ticks of schedule NAME until `schedule resume`."""
    _print(_asked(storage, queue, lambda asked: asked.schedules.pause(name)), output)


@schedule.command("resume")
@click.argument("name", type=label)
@storage_option()
@queue_option("schedule resume")
@output_option()
def resume(*, name: str, storage: str, queue: str, output: str) -> None:
    """Have ticks of schedule NAME again, from now on."""
    _print(_asked(storage, queue, lambda asked: asked.schedules.resume(name)), output)


@schedule.command("run")
@click.argument("name", type=label)
@storage_option()
@queue_option("schedule run")
@output_option()
def run_now(*, name: str, storage: str, queue: str, output: str) -> None:
    """Enqueue a job of schedule NAME now, beside its ticks."""
    made = _asked(storage, queue, lambda asked: asked.schedules.run_now(name))
    _print_fields({"id": made.id, "status": made.status.value, "state": made.state.value}, output)


def _asked(storage: str, queue: str, ask: Callable[[Queue[Any, Any]], Awaitable[T]]) -> T:
    async def call() -> T:
        async with client(storage, queue) as asked:
            return await ask(asked)

    return run(call())


def _print(found: Schedule, output: str) -> None:
    _print_fields(_fields(found), output)


def _print_fields(fields: dict[str, object], output: str) -> None:
    if output == "json":
        emit_json(fields)
    else:
        show(fields_table(fields))


def _fields(found: Schedule) -> dict[str, object]:
    return {
        "name": found.name,
        "task": found.task,
        "cron": found.cron,
        "every": found.every,
        "timezone": found.timezone,
        "next_at": iso(found.next_at),
        "last_at": iso(found.last_at),
        "paused": found.paused,
        "catch_up": found.catch_up.value,
        "jitter": found.jitter,
        "origin": found.origin,
    }


def _times(found: Schedule) -> str:
    if found.cron is None:
        return f"every {found.every:g} s"
    return found.cron if found.timezone == "UTC" else f"{found.cron} {found.timezone}"
