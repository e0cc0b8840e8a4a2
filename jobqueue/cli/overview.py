"""The overview of a store: queues, workers, reapers and the guard, as data and as it is shown."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobqueue.cli.output import cell
from jobqueue.model.states import JobState
from jobqueue.observe.gauges import GuardGauges, guard_gauges
from jobqueue.stats import QueueStats, ReaperStats, queue_stats, reapers
from jobqueue.storage.contract import Storage

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Overview", "Trends", "as_data", "look", "rendered"]

MOST_QUEUES = 200
"""Queues that are read in one look."""
KEPT = 20
"""Looks of which a trend is drawn."""
_SPARED = ("trend", "completed", "scheduled", "wait p95", "failing", "rate")
"""Columns that a narrow terminal does without, in this order."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_SHOWN = (
    (JobState.QUEUED, "ready"), (JobState.SCHEDULED, "scheduled"), (JobState.PROCESSING, "running"),
    (JobState.FAILING, "failing"), (JobState.FAILED, "dead"), (JobState.COMPLETED, "completed"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is in a store, as of one look."""

    at: datetime
    queues: list[QueueStats]
    unread: int
    """Queues beyond `MOST_QUEUES`."""
    reapers: list[ReaperStats]
    guard: GuardGauges | None


class Trends:
    """The rates of the last looks, drawn as small bars."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}

    def add(self, queues: Iterable[QueueStats]) -> None:
        """Take the rates of a look; forget queues that are gone."""
        self._rates = {queue.name: self._rates.get(queue.name, deque(maxlen=KEPT)) for queue in queues}
        for queue in queues:
            self._rates[queue.name].append(queue.rate or 0.0)

    def bars(self, queue: str) -> str:
        """Return a bar for each look; the highest is the largest of these rates."""
        rates = self._rates.get(queue, deque())
        top = max(rates, default=0.0)
        return "".join(_BLOCKS[0 if not top else min(7, int(8 * rate / top))] for rate in rates)


async def look(store: Storage, names: Sequence[str]) -> Overview:
    """Read the figures of some queues, or of all; Raises `StorageError`."""
    chosen = sorted(names or await store.queues())
    sweeping = await reapers(store)
    queues = await asyncio.gather(
        *(queue_stats(store, name, sweeping=sweeping) for name in chosen[:MOST_QUEUES])
    )
    at = datetime.fromtimestamp(store.clock.time()).astimezone()
    return Overview(at, list(queues), max(0, len(chosen) - MOST_QUEUES), sweeping, guard_gauges(store))


def as_data(found: Overview) -> dict[str, Any]:
    """Return the overview for JSON. Ages are in seconds, rates in ended jobs per second."""
    return {
        "queues": [
            {
                "queue": queue.name,
                "paused": queue.paused,
                **{state.value: count for state, count in queue.counts.items()},
                "oldest_age": _rounded(queue.oldest_age),
                "rate": queue.rate,
                "wait_p50": queue.wait_p50,
                "wait_p95": queue.wait_p95,
                "workers": [
                    {
                        "worker": worker.worker_id,
                        "host": worker.host,
                        "pid": worker.pid,
                        "running": worker.running,
                        "seen": _ago(worker.seen_at, found.at),
                    }
                    for worker in queue.workers
                ],
            }
            for queue in found.queues
        ],
        "unread": found.unread,
        "reapers": [
            {
                "reaper": reaper.id,
                "term": reaper.term,
                "seen": None if reaper.seen_at is None else _ago(reaper.seen_at, found.at),
            }
            for reaper in found.reapers
        ],
        "guard": None if found.guard is None else {
            "breaker": found.guard.breaker, "buffered": found.guard.buffered, "lost": found.guard.lost,
        },
    }  # fmt: skip


def rendered(found: Overview, trends: Trends, width: int, lines: int | None = None) -> RenderableType:
    """Lay the overview out, in so many lines if a terminal has no more: the busiest queues and workers.

    Where it is too narrow for all columns the less important ones are left out.
    """
    from rich.console import Group
    from rich.text import Text

    by_load = sorted(found.queues, key=_load, reverse=True) if lines else found.queues
    workers = [(queue, worker) for queue in found.queues for worker in queue.workers]
    workers.sort(key=lambda known: known[1].running, reverse=True)
    room = None if lines is None else max(2, lines - len(found.reapers) - 8)
    for_queues = None if room is None else max(1, min(len(by_load), room - min(len(workers), room // 3)))
    for_workers = None if room is None or for_queues is None else max(1, room - for_queues)
    parts: list[RenderableType] = [_queues(by_load[:for_queues], trends, width)]
    hidden = found.unread + len(by_load) - len(by_load[:for_queues])
    if hidden:
        parts.append(Text(f"and {hidden} more queues"))
    if workers:
        shown = workers[:for_workers]
        parts += ["", _table(["queue", "worker", "running", "seen"], [
            [queue.name, worker.worker_id, worker.running, f"{_ago(worker.seen_at, found.at):g} s ago"]
            for queue, worker in shown
        ])]  # fmt: skip
        if len(shown) < len(workers):
            parts.append(Text(f"and {len(workers) - len(shown)} more workers"))
    parts += ["", _problems(found)]
    return Group(*parts)


def _queues(queues: Sequence[QueueStats], trends: Trends, width: int) -> Table:
    head: list[object] = ["queue", *(name for _, name in _SHOWN), "oldest", "rate", "wait p95", "trend"]
    rows: list[list[object]] = [
        [
            f"{queue.name} (paused)" if queue.paused else queue.name,
            *(queue.counts[state] for state, _ in _SHOWN),
            _seconds(queue.oldest_age), None if queue.rate is None else f"{queue.rate:g}/s",
            _seconds(queue.wait_p95), trends.bars(queue.name),
        ]
        for queue in queues
    ]  # fmt: skip
    table = [head, *rows]
    for name in _SPARED:
        widths = [max(len(cell(value)) for value in column) for column in zip(*table, strict=True)]
        if sum(widths) + 2 * len(widths) <= width:
            break
        place = head.index(name)
        for row in table:
            del row[place]
    return _table([str(name) for name in head], rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    made = [list(row) for row in rows]
    for place, name in enumerate(columns):
        numeric = bool(made) and all(isinstance(row[place], int | float) for row in made)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in made:
        table.add_row(*map(cell, row))
    return table


def _problems(found: Overview) -> RenderableType:
    """Say who sweeps, and what an operator should look at."""
    from rich.text import Text

    text = Text()
    if found.reapers:
        text.append(f"reaper {cell(found.reapers[0].id)}")
        if len(found.reapers) > 1:
            text.append(f" and {len(found.reapers) - 1} more")
    else:
        text.append("no reaper sweeps this store", style="bold red")
    if found.guard is not None:
        good = found.guard.breaker == "closed" and not found.guard.lost
        text.append(f"; guard: breaker {found.guard.breaker}, {found.guard.buffered} writes buffered",
                    style="" if good else "bold red")  # fmt: skip
    for queue in found.queues:
        if queue.counts[JobState.QUEUED] and not queue.workers and not queue.paused:
            text.append(f"\nqueue {cell(queue.name)} has jobs and no worker", style="bold red")
    return text


def _load(queue: QueueStats) -> tuple[int, int]:
    return queue.counts[JobState.PROCESSING] + queue.counts[JobState.QUEUED], queue.total


def _ago(instant: datetime, now: datetime) -> float:
    return round(max(0.0, (now - instant).total_seconds()), 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g} s"
