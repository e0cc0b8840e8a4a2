"""Numbers for reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["percentile"]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that ``part`` (0 to 1) of all values do not exceed; 0 of none.

    The nearest-rank method: the result is always one of the values.
    """
    if not values:
        return 0.0
    # Rounded first: 0.99 * 100 is a little more than 99.
    rank = math.ceil(round(part * len(values), 9))
    return sorted(values)[max(0, rank - 1)]
