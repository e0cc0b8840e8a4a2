"""The display of a chaos run: living processes, the leader and the jobs, as it happens."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from bench.chaos.processes import Child

__all__ = ["View"]

REFRESH = 10
"""Pictures per second."""


class View:
    """A picture on a terminal that changes; elsewhere a line for every event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=REFRESH, transient=True)

    def tell(self, text: str) -> None:
        """Write down an event."""
        self._console.print(f"{time.monotonic() - self._began:6.2f} s  {text}", markup=False, highlight=False)

    def show(self, children: Sequence[Child], counts: Mapping[str, int], running: Mapping[str, int]) -> None:
        """Draw the processes and the jobs as they are now."""
        if self._live.is_started:
            self._live.update(_picture(children, counts, running))

    @contextmanager
    def drawing(self) -> Generator[View]:
        """Draw meanwhile, if this is a terminal."""
        if not self._console.is_terminal:
            yield self
            return
        with self._live:
            yield self


def _picture(
    children: Sequence[Child], counts: Mapping[str, int], running: Mapping[str, int]
) -> RenderableType:
    table = Table("process", "pid", "now", box=None, header_style="bold")
    for child in children:
        table.add_row(child.role, str(child.pid), _doing(child, running))
    jobs = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none yet"
    return Group(table, f"jobs: {jobs}")


def _doing(child: Child, running: Mapping[str, int]) -> str:
    if child.killed:
        return "killed"
    if not child.alive:
        return "ended"
    if child.role == "worker":
        return f"runs {running.get(f'worker-{child.pid}', 0)} jobs"
    recovered = f", recovered {child.recovered} jobs" if child.recovered else ""
    return (f"leads, term {child.term}" if child.term is not None else "stands by") + recovered
