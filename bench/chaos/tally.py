"""The judgement of a run of the comparison, from the notes of its runs and the answers of the library."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ["Facts", "Run", "Tally", "read_notes", "tally"]

STORED_WITHIN = 0.5
"""Seconds after the end of a run in which a worker that lives has stored its outcome."""
SETTLED_WITHIN = 5.0
"""Seconds after the restart of Redis in which a worker that lost its connection stores its outcome."""


@dataclass(slots=True)
class Run:
    """One run of a job."""

    id: str
    worker: str
    started: float
    """Seconds since the epoch, as all times here."""
    ended: float | None = None
    """``None`` if its worker did not live to note it."""


@dataclass
class Facts:
    """What happened."""

    accepted: dict[str, float] = field(default_factory=dict[str, float])
    """When the library had taken each job."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """The error of each enqueue that raised: such a job may run, and nothing is promised."""
    outcomes: dict[str, Sequence[Any] | None] = field(default_factory=dict[str, "Sequence[Any] | None"])
    runs: list[Run] = field(default_factory=list[Run])
    kills: dict[str, float] = field(default_factory=dict[str, float])
    """When each worker was killed."""
    outage: tuple[float, float] = (0.0, 0.0)
    """When Redis was killed, and when it answered again."""
    restarts: int = 0
    """Workers that ended by themselves and had to be started again."""


@dataclass
class Tally:
    """The row of a library."""

    accepted: int = 0
    refused: int = 0
    kills: int = 0
    restarts: int = 0
    lost: int = 0
    """Accepted, and without any outcome."""
    failed: int = 0
    """Accepted, and ended as failed, although its handler never raises."""
    wrong: int = 0
    """With a result that is not its own, or a success without a whole run."""
    cut_off: int = 0
    """Runs beyond a job's first whose run before had been cut off by a kill."""
    outage: int = 0
    """Runs beyond a job's first whose run before was under way at the restart of Redis."""
    unexplained: int = 0
    """Other runs beyond a job's first: a living worker had run it."""
    recovery: list[float] = field(default_factory=list[float])
    """Seconds from each kill to the next start of a job that it cut off, in order."""
    seconds: float = 0.0
    """From the first enqueue to the last end of a run."""


def read_notes(lines: Iterable[str]) -> list[Run]:
    """Return the runs, in the order in which they began."""
    runs: list[Run] = []
    open_runs: dict[tuple[str, str], Run] = {}
    for line in lines:
        kind, id, worker, at = json.loads(line)
        if kind == "start":
            run = open_runs[id, worker] = Run(id, worker, at)
            runs.append(run)
        else:
            open_runs[id, worker].ended = at
    return runs


def tally(facts: Facts) -> Tally:
    """Count what happened to the accepted jobs."""
    result = Tally(len(facts.accepted), len(facts.refused), len(facts.kills), facts.restarts)
    by_id: defaultdict[str, list[Run]] = defaultdict(list)
    for run in facts.runs:
        by_id[run.id].append(run)
    for id in facts.accepted:
        outcome, runs = facts.outcomes.get(id), by_id[id]
        if outcome is None:
            result.lost += 1
        elif outcome[0] != "completed":
            result.failed += 1
        elif outcome[1] != _right(id) or not any(run.ended for run in runs):
            result.wrong += 1
        for before, after in pairwise(runs):
            _count(before, after, facts, result)
    result.recovery.sort()
    last = max((run.ended for run in facts.runs if run.ended), default=0.0)
    result.seconds = max(0.0, last - min(facts.accepted.values(), default=last))
    return result


def _right(id: str) -> int:
    return int(id.removeprefix("job-")) ** 2


def _count(before: Run, after: Run, facts: Facts, result: Tally) -> None:
    """Count a further run by its cause."""
    if _cut_off(before, facts.kills):
        result.cut_off += 1
        result.recovery.append(after.started - facts.kills[before.worker])
    elif _under_way(before, after, facts.outage):
        result.outage += 1
    else:
        result.unexplained += 1


def _cut_off(run: Run, kills: Mapping[str, float]) -> bool:
    """Whether a kill came between the start of a run and the moment that its outcome was stored."""
    at = kills.get(run.worker)
    return at is not None and (run.ended is None or run.ended > at - STORED_WITHIN)


def _under_way(run: Run, after: Run, outage: tuple[float, float]) -> bool:
    """Whether Redis was gone between the start of a run and the moment that its outcome was stored."""
    down, up = outage
    end = after.started if run.ended is None else run.ended
    return run.started < up + SETTLED_WITHIN and end > down - STORED_WITHIN
