"""The commands of ``queue``: look at queues as a whole, hold them, empty them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

import click

from jobqueue.cli.choosing import confirm, confirm_options
from jobqueue.cli.client import client, is_used, opened, require_queues, shared_storage
from jobqueue.cli.commands.limits import limits
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.options import (
    QUEUE_VARIABLE,
    option,
    output_option,
    queue_name,
    seconds_or_zero,
    storage_option,
)
from jobqueue.cli.output import emit_json, fields_table, fitted, show, styled
from jobqueue.cli.running import run
from jobqueue.cli.times import ago_or_in, duration, iso, now
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.queue import Queue
from jobqueue.stats import QueueStats, queue_stats, reapers
from jobqueue.storage.contract import Storage

__all__ = ["queue"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@click.group()
def queue() -> None:
    """Look at queues as a whole; pause, resume, drain and clear one."""


queue.add_command(limits)


def _name() -> Callable[[F], F]:
    return click.argument("name", type=queue_name, envvar=QUEUE_VARIABLE)


@queue.command("ls")
@storage_option()
@output_option()
def ls(*, storage: str, output: str) -> None:
    """List the queues of the store."""

    async def call() -> list[QueueStats]:
        async with opened(shared_storage(storage)) as store:
            sweeping = await reapers(store)
            return [await queue_stats(store, name, sweeping=sweeping) for name in await store.queues()]

    found = run(call())
    if output == "json":
        emit_json({"queues": [_value(stats) for stats in found]})
    elif found:
        columns, rows = ["queue", *_SHOWN, "oldest", "workers"], [_row(stats) for stats in found]
        if any(stats.paused for stats in found):
            columns.append("state")
            for row, stats in zip(rows, found, strict=True):
                row.append(_state(stats))
        show(*fitted(columns, rows))
    else:
        click.echo("this store holds no queue yet", err=True)


_SHOWN = (JobState.QUEUED, JobState.PROCESSING, JobState.SCHEDULED, JobState.FAILING, JobState.FAILED)
"""The states of which people want to know at a glance."""


def _row(stats: QueueStats) -> list[object]:
    return [
        stats.name,
        *(stats.counts[state] for state in _SHOWN),
        _seconds(stats.oldest_age),
        len(stats.workers),
    ]


@queue.command("show")
@_name()
@storage_option()
@output_option()
def show_queue(*, name: str, storage: str, output: str) -> None:
    """Show the figures of queue NAME: its jobs, its workers, how fast it goes."""
    stats = run(_with_store(storage, name, lambda store: queue_stats(store, name)))
    if output == "json":
        emit_json(_value(stats))
        return
    at = now()
    fields = {
        "queue": stats.name,
        "state": _state(stats),
        **{state.value: stats.counts[state] for state in JobState},
        "oldest": _seconds(stats.oldest_age),
        "rate": _rate(stats),
        "wait p50": _seconds(stats.wait_p50),
        "wait p95": _seconds(stats.wait_p95),
        "reaper": None if stats.reaper is None else stats.reaper.id,
    }
    rows = [
        [known.worker_id, known.host, known.pid, known.running, ago_or_in(known.seen_at, at)]
        for known in stats.workers
    ]
    workers = fitted(["worker", "host", "pid", "running", "seen"], rows) if rows else []
    show(fields_table(fields), *workers)


@queue.command("pause")
@_name()
@storage_option()
@output_option()
def pause(*, name: str, storage: str, output: str) -> None:
    """Start no more jobs of queue NAME, on any worker, until it is resumed. Running ones go on."""
    _hold(storage, name, output, paused=True)


@queue.command("resume")
@_name()
@storage_option()
@output_option()
def resume(*, name: str, storage: str, output: str) -> None:
    """Start the jobs of queue NAME again."""
    _hold(storage, name, output, paused=False)


def _hold(storage: str, name: str, output: str, *, paused: bool) -> None:
    async def call(asked: Queue[Any, Any]) -> bool:
        await (asked.pause() if paused else asked.resume())
        return await is_used(asked.storage, name)

    if not run(_with_queue(storage, name, call)):  # a name to come, or a wrong one
        click.echo(f"queue {name} has neither jobs nor workers yet", err=True)
    _print({"queue": name, "paused": paused}, output)


@queue.command("drain")
@_name()
@storage_option()
@output_option()
@option("--timeout", type=seconds_or_zero, metavar="SECONDS", show_default=False,
        help="Seconds to wait at the most.  [default: as long as it takes]")  # fmt: skip
def drain(*, name: str, storage: str, output: str, timeout: float | None) -> None:
    """Wait until no job of queue NAME is queued, running or due. Those of later do not count.

    Exit code 4 if some are left after --timeout.
    """

    async def call(asked: Queue[Any, Any]) -> bool:
        await require_queues(asked.storage, [name], storage)
        return await asked.drain(timeout)

    drained = run(_with_queue(storage, name, call))
    fields = {"queue": name, "drained": drained}
    if not drained:
        raise Failure(f"queue {name!r} has jobs left after {timeout:g} s", Exit.TIMEOUT, data=fields)
    _print(fields, output)


@queue.command("clear")
@_name()
@storage_option()
@output_option()
@option("--ended", is_flag=True, help="Delete them, and those that have ended, too.")
@confirm_options()
def clear(*, name: str, storage: str, output: str, ended: bool, yes: bool, dry_run: bool) -> None:
    """Cancel all jobs of queue NAME that wait. Running ones stay."""
    states = WAITING | ENDED if ended else WAITING
    verb, done = ("Remove", "removed") if ended else ("Cancel", "cancelled")

    async def matching(store: Storage) -> int:
        counts = await store.counts(name)
        return sum(getattr(counts, state.value) for state in states)

    number = run(_with_store(storage, name, matching))
    if dry_run:
        _print({"queue": name, "dry_run": True, "matching": number}, output)
        return
    if number and not yes:
        confirm(f"{verb} {number:,} job{'' if number == 1 else 's'} of queue {name}?")
    _print({"queue": name, done: run(_with_queue(storage, name, lambda it: it.clear(ended=ended)))}, output)


async def _with_queue(storage: str, name: str, call: Callable[[Queue[Any, Any]], Awaitable[T]]) -> T:
    async with client(storage, name) as asked:
        return await call(asked)


async def _with_store(storage: str, name: str, call: Callable[[Storage], Awaitable[T]]) -> T:
    async with opened(shared_storage(storage)) as store:
        await require_queues(store, [name], storage)
        return await call(store)


# -- how it is shown ----------------------------------------------------------------------------------


def _value(stats: QueueStats) -> dict[str, object]:
    fields = asdict(stats)
    fields["counts"] = {state.value: number for state, number in stats.counts.items()}
    return {("queue" if name == "name" else name): _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    """Return a value with its instants as text."""
    match value:
        case datetime():
            return iso(value)
        case float():
            return round(value, 3)
        case Mapping():
            return {name: _plain(one) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _state(stats: QueueStats) -> object:
    return styled("paused", "yellow") if stats.paused else "open"


def _rate(stats: QueueStats) -> str | None:
    return None if stats.rate is None else f"{stats.rate:.3g}/s"


def _seconds(value: float | None) -> str | None:
    return None if value is None else duration(value)


def _print(fields: Mapping[str, object], output: str) -> None:
    if output == "json":
        emit_json(fields)
    else:
        shown = {
            name: ("no", "yes")[value] if isinstance(value, bool) else value for name, value in fields.items()
        }
        show(fields_table({name.replace("_", " "): value for name, value in shown.items()}))
