"""Random cases of `admit` and `opens_at`, the same each time: what every language has to reproduce."""

from __future__ import annotations

import random
from typing import NamedTuple

from jobqueue.model.limits import Limit, Rate, admit, opens_at

__all__ = ["Vector", "vectors"]

SEED = 20_251
NOW = 1_764_000_000_000


class Vector(NamedTuple):
    """Arguments of `admit`; what it returns; and `opens_at` behind it."""

    limit: Limit
    running: int
    tat: int
    now: int
    want: int
    granted: int
    after: int
    opens: int | None


def vectors(count: int) -> list[Vector]:
    """Return the first ``count`` cases."""
    dice = random.Random(SEED)
    return [_vector(dice) for _ in range(count)]


def _vector(dice: random.Random) -> Vector:
    rate = None
    if dice.random() < 0.8:
        per = dice.choice((0.001, 0.02, 1.0, 1.001, 60.0, 86_400.0))
        rate = Rate(dice.choice((1, 3, 7, 50, 999, 30_000)), per, dice.choice((1, 1, 2, 10, 100)))
    limit = Limit(dice.choice((None, 1, 3, 1_000)), rate)
    now = NOW + dice.randrange(10**11)
    interval = 1_000 if rate is None else rate.interval
    tolerance = 999 if rate is None else rate.tolerance
    edge = dice.choice(
        (0, tolerance, tolerance + 1, interval, tolerance + interval, tolerance + 3 * interval)
    )
    tat = dice.choice((0, now * 1000 + edge, now * 1000 + dice.randint(-2_000, 2_000) + edge, 2**52))
    running, want = dice.choice((0, 0, 1, 2, 3, 999)), dice.choice((0, 1, 2, 10, 1_000))
    granted, after = admit(limit, running, tat, now, want)
    return Vector(limit, running, tat, now, want, granted, after, opens_at(limit, running, after))
