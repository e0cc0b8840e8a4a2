"""What a worker reports of itself now and then, in a document of its own.

Figures are those of the last `SPAN` seconds before the report. Waits are counted in classes whose bounds rise
by a twelfth, so that those of several workers can be added up; what is read from them is off by a twentieth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["SPAN", "WorkerReport", "class_of", "merged", "pack_report", "parse_report", "quantile"]

SPAN = 60.0
"""Seconds over which a worker counts."""
MAX_REPORT = 60_000
"""Bytes of a report. One with more names of tasks leaves them out."""
_STEPS = 8
"""Classes in which a wait doubles."""
_LAST = 8 * 48
"""The class of the longest waits: of years."""


class WorkerReport(NamedTuple):
    """A report of one worker."""

    host: str
    pid: int
    ended: int = 0
    """Jobs that have ended here, in any way."""
    waits: Mapping[int, int] = {}
    """Number of jobs by the class of their wait, from due to claimed."""
    handler: bool = False
    """Whether it runs jobs without a task."""
    tasks: tuple[str, ...] | None = None
    """The tasks that it runs; ``None``: unknown."""

    def handles(self, task: str) -> bool | None:
        """Return whether it runs the jobs of a task (``""``: those without); ``None``: unknown."""
        if not task:
            return self.handler
        return None if self.tasks is None else task in self.tasks


def class_of(milliseconds: float) -> int:
    """Return the class of a wait."""
    return min(_LAST, int(_STEPS * math.log2(1.0 + max(0.0, milliseconds))))


def merged(several: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Add up waits that were counted in several places."""
    total: dict[int, int] = {}
    for waits in several:
        for place, count in waits.items():
            total[place] = total.get(place, 0) + count
    return total


def quantile(waits: Mapping[int, int], part: float) -> float | None:
    """Return the wait in seconds that a ``part`` of the jobs did not exceed; ``None`` without any."""
    wanted = part * sum(waits.values())
    for place in sorted(waits):
        wanted -= waits[place]
        if wanted <= 0:
            return round((math.exp2((place + 0.5) / _STEPS) - 1.0) / 1000, 6)
    return None


def pack_report(report: WorkerReport) -> bytes:
    """Write a report."""
    data = json.dumps(report._asdict(), separators=(",", ":"), sort_keys=True).encode()
    return data if len(data) <= MAX_REPORT else pack_report(report._replace(tasks=None))


def parse_report(data: bytes) -> WorkerReport | None:
    """Read a report of this release or another; ``None`` for what cannot be read."""
    try:
        found: Any = json.loads(data)
        tasks = found.get("tasks")
        return WorkerReport(
            host=str(found["host"]),
            pid=int(found["pid"]),
            ended=int(found.get("ended", 0)),
            waits={int(place): int(count) for place, count in dict(found.get("waits", {})).items()},
            handler=bool(found.get("handler")),
            tasks=None if tasks is None else tuple(map(str, tasks)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
