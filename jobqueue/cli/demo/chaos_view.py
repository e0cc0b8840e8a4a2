"""The display of the chaos demo: living processes, the leader and the jobs, as it happens."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobqueue.cli.demo.chaos_processes import Child
from jobqueue.cli.output import fields_table, rows_table
from jobqueue.runtime import SYSTEM_CLOCK
from jobqueue.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

__all__ = ["View", "chaos_table", "viewing"]

REFRESH = 10
"""Pictures per second."""


class View:
    """A picture on a terminal that changes; elsewhere a line for every event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = SYSTEM_CLOCK.monotonic()
        self._live: Live | None = None

    def tell(self, text: str) -> None:
        """Write down an event."""
        line = f"{SYSTEM_CLOCK.monotonic() - self._began:6.2f} s  {text}"
        (self._live.console if self._live else self._console).print(printable(line))

    def show(self, children: Sequence[Child], counts: Mapping[str, int], running: Mapping[str, int]) -> None:
        """Draw the processes and the jobs as they are now."""
        if self._live is not None:
            self._live.update(_picture(children, counts, running))

    def begin(self) -> None:
        """Start to draw, on a terminal."""
        if self._console.is_terminal:
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(console=self._console, refresh_per_second=REFRESH, transient=True)
            self._live.start()

    def end(self) -> None:
        """Take the picture away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


@contextmanager
def viewing(console: Console) -> Generator[View]:
    """Show what happens meanwhile."""
    view = View(console)
    view.begin()
    try:
        yield view
    finally:
        view.end()


def _picture(
    children: Sequence[Child], counts: Mapping[str, int], running: Mapping[str, int]
) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415

    jobs = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none yet"
    rows = [[child.role, child.pid, _doing(child, running)] for child in children]
    return Group(rows_table(["process", "pid", "now"], rows), f"jobs: {jobs}")


def _doing(child: Child, running: Mapping[str, int]) -> str:
    if child.killed:
        return "killed"
    if not child.alive:
        return "ended"
    if child.role == "worker":
        return f"runs {running.get(f'worker-{child.pid}', 0)} jobs"
    recovered = f", recovered {child.recovered} jobs" if child.recovered else ""
    return (f"leads, term {child.term}" if child.term is not None else "stands by") + recovered


def chaos_table(numbers: dict[str, Any]) -> Table:
    """Lay the summary out for people."""
    recovery = numbers["recovery_seconds"]
    took = f"{recovery['max']:.2f} s at the most" if numbers["duplicates"] else "nothing to recover"
    killed = [f"{kill['role']} {kill['pid']} at {kill['seconds']:.2f} s" for kill in numbers["kills"]]
    fields = {
        "jobs": f"{numbers['jobs']:,} in {numbers['seconds']:.2f} s",
        "killed": ", ".join(killed),
        "ended exactly once": f"{numbers['ended']:,} of {numbers['jobs']:,}",
        "lost": f"{numbers['lost']:,}",
        "verified": f"{numbers['verified']:,} answers equal a direct computation",
        "duplicates": f"{numbers['duplicates']:,}, of which {numbers['attributed']:,} cut off by a kill",
        "recovered in": f"{took} (lease {numbers['lease']:g} s, lock {numbers['lock_ttl']:g} s)",
        "leadership": f"term {numbers['terms'][0]}, then term {numbers['terms'][-1]}",
    }  # fmt: skip
    if numbers["changed"]:
        fields["changed"] = f"{numbers['changed']:,} files were written meanwhile, so nobody can tell"
    return fields_table(fields)
