"""How many turns a group takes for one of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import check_count
from jobqueue.model.limits import MAX_WEIGHT

__all__ = ["GroupWeight", "check_group_weight", "weight_of"]

GroupWeight = Callable[[str], int] | Mapping[str, int]


def check_group_weight(value: object) -> GroupWeight | None:
    """Return what weighs groups: a function of their names, or a mapping."""
    if isinstance(value, Mapping):
        weights = cast("Mapping[str, Any]", value)
        for name, weight in weights.items():
            check_count(f"group_weight[{name!r}]", weight, high=MAX_WEIGHT)
        return dict(weights)
    if value is not None and not callable(value):
        kind = type(value).__name__
        raise InvalidArgumentError("group_weight", f"must be a function of a group, or a mapping, not {kind}")
    return cast("GroupWeight | None", value)


def weight_of(group: str, weights: GroupWeight | None) -> int:
    """Return the weight of a group: 1 unless something else is known of it."""
    if weights is None or not group:
        return 1
    if callable(weights):
        return check_count("group_weight", weights(group), high=MAX_WEIGHT)
    return weights.get(group, 1)
