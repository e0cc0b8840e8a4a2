"""Durations as people read them: ``5 min ago``."""

from __future__ import annotations

from datetime import datetime

__all__ = ["ago_or_in", "duration"]

_SHOWN = ((172_800.0, 86_400.0, "d"), (7_200.0, 3_600.0, "h"), (120.0, 60.0, "min"))
"""From so many seconds on, in this unit: two figures at the least, so that rounding loses little."""


def duration(seconds: float) -> str:
    """Return a duration in one unit: ``0.3 s``, ``95 s``, ``12 min``, ``30 h``, ``5 d``."""
    for least, unit, name in _SHOWN:
        if seconds >= least:
            return f"{int(seconds / unit)} {name}"
    return f"{int(seconds)} s" if seconds >= 10 else f"{round(seconds, 1):g} s"


def ago_or_in(instant: datetime | None, at: datetime) -> str | None:
    """Return how far an instant lies from ``at``: ``5 min ago``, ``in 20 s``."""
    if instant is None:
        return None
    seconds = (at - instant).total_seconds()
    if seconds >= 0:
        return f"{duration(seconds)} ago"
    return f"in {duration(-seconds)}"
