"""What the demo shows while it runs, and its result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobqueue.cli.demo.guarded.scenario import Seen
from jobqueue.cli.output import fields_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["live", "result"]


@contextmanager
def live(console: Console, jobs: int) -> Generator[Callable[[Seen], None]]:
    """Show bars on a terminal, and a line for each turn of events elsewhere."""
    if not console.is_terminal:
        told: set[str] = set()

        def tell(seen: Seen) -> None:
            if seen.redis not in told:
                told.add(seen.redis)
                console.print(
                    f"{seen.seconds:6.2f} s  Redis is {seen.redis}; {seen.ran:,} of {jobs:,} have run"
                )

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    name = TextColumn("{task.description:<24}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {
            name: bars.add_task(name, total=jobs) for name in ("enqueued", "runs", "completed in ledger")
        }
        redis = bars.add_task("Redis: up", total=None)

        def draw(seen: Seen) -> None:
            for name, count in (
                ("enqueued", seen.enqueued),
                ("runs", seen.ran),
                ("completed in ledger", seen.completed),
            ):
                bars.update(tasks[name], completed=min(count, jobs))
            bars.update(redis, description=f"Redis: {seen.redis}")

        yield draw


def result(numbers: dict[str, Any]) -> Table:
    """Lay the result out for people."""
    killed = numbers["at_kill"]
    had = f"{killed['enqueued']:,} enqueued, {killed['ran']:,} had run"
    restarted, back = f"after {numbers['restarted_at']:.1f} s", f"after {numbers['back_at']:.1f} s"
    return fields_table({
        "jobs": f"{numbers['jobs']:,} in {numbers['seconds']:.1f} s, {numbers['slots']} at once",
        "Redis killed": f"after {numbers['killed_at']:.1f} s: {had}",
        "back, empty": f"{restarted}; jobs ran again {back}",
        "brought back": f"{numbers['brought_back']:,} jobs, from the ledger",
        "enqueues made again": f"{numbers['enqueued_again']:,}",
        "never ran": f"{numbers['never_ran']:,}",
        "ledger": f"{numbers['rows']:,} jobs, {numbers['completed']:,} completed",
        "second runs": f"{numbers['second_runs']:,}, {numbers['attributed']:,} with a reason in the ledger",
        "lost": f"{numbers['lost']:,}",
    })  # fmt: skip
