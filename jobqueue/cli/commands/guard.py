"""The commands of ``guard``: what the ledger of a guarded store knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from jobqueue.cli.client import opened, shared_storage
from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.options import job_id, option, output_option, queue_option, storage_option
from jobqueue.cli.output import emit_json, fields_table, rows_table, show, write
from jobqueue.cli.running import run

if TYPE_CHECKING:
    from jobqueue.storage.guard import Guard

__all__ = ["guard"]

T = TypeVar("T")

MOST = 1000


@click.group()
def guard() -> None:
    """Ask the guard of a store: counts, a comparison now, the history of a job."""


@guard.command("status")
@storage_option()
@output_option()
def status(*, storage: str, output: str) -> None:
    """Count the jobs of the ledger."""
    stats = run(_ask(storage, lambda asked: asked.stats()))
    values = stats._asdict()
    for of_this_process in ("buffered", "breaker"):
        del values[of_this_process]
    if output == "json":
        emit_json(values)
    else:
        show(fields_table({name: f"{count:,}" for name, count in values.items() if isinstance(count, int)}))


@guard.command("reconcile")
@storage_option()
@output_option()
def reconcile(*, storage: str, output: str) -> None:
    """Compare the ledger with the store now, and bring back what the store has lost."""
    done = run(_ask(storage, lambda asked: asked.reconcile()))
    if output == "json":
        emit_json(done._asdict())
    else:
        write(
            f"{done.compared:,} compared, {done.requeued:,} brought back, {done.updated:,} rows updated, "
            f"{done.stuck:,} stuck, {done.set_aside:,} unreadable"
        )


@guard.command("history")
@click.argument("id", type=job_id)
@storage_option()
@queue_option("guard history")
@output_option()
@option("--limit", type=click.IntRange(1, MOST), default=10, help="Jobs of this id, the last ones.")
def history(*, id: str, storage: str, queue: str, output: str, limit: int) -> None:
    """Show what happened to the jobs of ID."""
    events = run(_ask(storage, lambda asked: asked.history(queue, id, limit=limit)))
    if not events:
        raise Failure(f"the ledger knows no job {id!r} of queue {queue}", Exit.NOT_FOUND)
    rows = [{**event._asdict(), "at": event.at.isoformat(timespec="milliseconds")} for event in events]
    if output == "json":
        emit_json({"queue": queue, "id": id, "history": rows})
    else:
        show(rows_table(list(rows[0]), [[str(cell) for cell in row.values()] for row in rows]))


async def _ask(url: str, call: Callable[[Guard], Awaitable[T]]) -> T:
    from jobqueue.storage.guard import GuardedStorage  # needs an extra that other commands do not

    store = shared_storage(url)
    if not isinstance(store, GuardedStorage):
        raise Failure.usage("the store is not guarded: name its ledger with --ledger or JOBQUEUE_LEDGER")
    async with opened(store):
        return await call(store.guard)
