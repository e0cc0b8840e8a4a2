"""The display of the demo: its progress and a table."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from jobqueue.cli.output import fields_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Progress", "progress", "table"]

Progress: TypeAlias = Callable[[str, int], Callable[[], None]]
"""Begins a step of so many parts; returns a function to call when a part is done."""


def table(numbers: dict[str, Any]) -> Table:
    """Lay the summary out for people."""
    latency = numbers["latency_ms"]
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(numbers["skipped"].items()))
    known = numbers["verified"] + numbers["unreadable"]
    fields = {
        "files": f"{numbers['files']:,}" + (f" (left out: {skipped})" if skipped else ""),
        "counted": f"{numbers['lines']:,} lines, {numbers['words']:,} words, {numbers['bytes']:,} bytes",
        "jobs": f"{numbers['jobs']:,} ({numbers['requests']:,} request/response, "
                f"{numbers['fire_and_forget']:,} fire and forget)",
        "duplicates joined": f"{numbers['duplicates_joined']:,}",
        "cached replies": f"{numbers['cached_replies']:,}",
        "retries": f"{numbers['retries']:,}",
        "cancelled": f"{numbers['cancelled']:,}",
        "rate": f"{numbers['jobs_per_second']:,} jobs/s ({numbers['seconds']:.2f} s)",
        "latency": f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms",
        "verified": f"{known:,} of {numbers['files']:,} answers equal a direct computation",
    }  # fmt: skip
    if numbers["unreadable"]:
        fields["unreadable"] = f"{numbers['unreadable']:,} jobs failed, as they must"
    if numbers["changed"]:
        fields["changed"] = f"{numbers['changed']:,} files were written meanwhile, so nobody can tell"
    return fields_table(fields)


@contextmanager
def progress(console: Console) -> Generator[Progress]:
    """Show a bar for every step on a terminal, a line elsewhere."""
    if not console.is_terminal:
        yield lambda what, total: _line(console, what, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<16}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console) as bars:

        def begin(what: str, total: int) -> Callable[[], None]:
            task = bars.add_task(what, total=total)
            return lambda: bars.advance(task)

        yield begin


def _line(console: Console, what: str, total: int) -> Callable[[], None]:
    console.print(f"{what}: {total:,}")
    return lambda: None
