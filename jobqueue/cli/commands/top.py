"""The command ``top``: the overview of a store, again and again on a terminal, once elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobqueue.cli.client import opened, require_queues, shared_storage
from jobqueue.cli.options import option, output_option, queue_name, seconds, storage_option
from jobqueue.cli.output import cell, console, emit_json, write
from jobqueue.cli.overview import Overview, Trends, as_data, look, rendered
from jobqueue.cli.running import run
from jobqueue.errors import StorageError
from jobqueue.runtime.bounded import within
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import redact

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["top"]

PATIENCE = 5.0
"""Seconds after which a store that does not answer is told to be away."""


@click.command()
@storage_option()
@output_option()
@option("-q", "--queue", type=queue_name, metavar="NAME", multiple=True, show_default=False,
        help="Only this queue; may be repeated.  [default: all]")  # fmt: skip
@option("--interval", type=seconds, default=2.0, help="Seconds between two looks.")
@option("--once", is_flag=True, help="Show it once, also on a terminal.")
def top(*, storage: str, output: str, queue: tuple[str, ...], interval: float, once: bool) -> None:
    """Show queues, workers, reapers and problems, live on a terminal, until Ctrl-C.

    Where the output is no terminal, and with -o json, it is shown once. While the store is away the last
    figures stay, with the error.
    """
    live = not once and output != "json" and sys.stdout.isatty()

    async def call() -> None:
        async with opened(shared_storage(storage)) as store:
            await require_queues(store, queue, storage)
            if live:
                await _watch(store, queue, redact(storage), interval)
            else:
                _show_once(await look(store, queue), output)

    try:
        run(call())
    except KeyboardInterrupt:
        if not live:
            raise


def _show_once(found: Overview, output: str) -> None:
    if output == "json":
        emit_json(as_data(found))
        return
    trends, out = Trends(), console()
    trends.add(found.queues)
    with out.capture() as captured:
        out.print(rendered(found, trends, out.width))
    write("\n".join(line.rstrip() for line in captured.get().splitlines()))


async def _watch(store: Storage, names: Sequence[str], name: str, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    trends, out = Trends(), console()
    found: Overview | None = None
    with Live(console=out, screen=True, auto_refresh=False) as screen:
        while True:
            problem = ""
            try:
                found = await within(store.clock, look(store, names), PATIENCE)
                trends.add(found.queues)
            except StorageError as error:
                problem = str(error)
            except TimeoutError:
                problem = f"the store does not answer within {PATIENCE:g} s"
            title = Text(f"jobqueue on {cell(name)}", style="bold")
            if found is not None:
                title.append(f"  {found.at:%H:%M:%S}", style="not bold")
            parts: list[RenderableType] = [title]
            if problem:
                parts.append(Text(f"away: {cell(problem)}", style="bold red"))
            if found is not None:
                parts += ["", rendered(found, trends, out.width, out.height - len(parts) - 1)]
            screen.update(Group(*parts), refresh=True)
            await store.clock.sleep(interval)
