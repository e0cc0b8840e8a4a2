"""Names by which the users of one store find what others of them have left in it."""

from __future__ import annotations

import re

__all__ = ["REAPERS", "REAPER_LOCK", "place_of", "reports_space"]

REAPER_LOCK = "reaper"
"""Name of the lock that the reapers of all queues of a store contend for."""
REAPERS = "_reapers"
"""Name of the queue whose workers are the reapers that sweep."""

_DRAWN = re.compile(r"([A-Za-z0-9_-]+)-([0-9]{1,10})-[A-Za-z0-9]{8}")


def reports_space(queue: str) -> str:
    """Return the space of the documents in which the workers of a queue report, each under its own name."""
    return f"workers:{queue}"


def place_of(name: str) -> tuple[str, int] | tuple[None, None]:
    """Return the host and process id that a drawn name tells; ``None`` twice for one that was given."""
    found = _DRAWN.fullmatch(name)
    return (None, None) if found is None else (found[1], int(found[2]))
