"""The stored form of `Rules`: the one place that names its fields.

It is a JSON object of the fields that are not at their default, so that a script or a function of a database
can read it as well. Rules that restrict nothing are stored as nothing. A field that this release does not
know is a rule that it cannot keep: reading it is an error, and nothing is claimed while it stands.
"""

from __future__ import annotations

import json
from typing import Any, cast

from jobqueue.errors import InvalidArgumentError, StorageError
from jobqueue.storage.values import Limit, Rate, Rules

__all__ = ["pack_rules", "parse_rules", "read_rules"]

_NONE = Rules()
_FIELDS: dict[str, type] = {"paused": bool, "queue": dict, "group": dict, "operator": bool}
"""The type of each field in the stored form, by name."""
_RATE = frozenset({"count", "per", "burst"})


def pack_rules(rules: Rules | None) -> str:
    """Return the stored form, always the same for equal rules; empty for rules that restrict nothing.

    A limit is an object of ``running`` and ``rate``, without those that are absent, and a rate one of
    ``count``, ``per`` in milliseconds and ``burst``.
    """
    if rules is None:
        return ""
    found: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(rules, name)
        if value != getattr(_NONE, name):
            found[name] = _pack_limit(value) if isinstance(value, Limit) else value
    return json.dumps(found, separators=(",", ":"), sort_keys=True) if found else ""


def parse_rules(text: str | bytes) -> Rules:
    """Read the stored form. Raises `ValueError`, also for rules that this release does not know."""
    if not text:
        return _NONE
    try:
        found: Any = json.loads(text)
    except RecursionError as error:
        raise ValueError("the rules of a queue are nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("the rules of a queue are no JSON object")  # noqa: TRY004 - it is the data
    rules = cast("dict[str, Any]", found)
    for name, value in rules.items():
        if type(value) is not _FIELDS.get(name):
            raise ValueError(f"the rule {name!r} is one that this version of jobqueue does not know")
        if isinstance(value, dict):
            rules[name] = _parse_limit(name, cast("dict[str, Any]", value))
    return Rules(**rules)


def read_rules(queue: str, text: str | bytes | None) -> Rules:
    """Read the stored form of the rules of a queue. Raises `StorageError`."""
    try:
        return parse_rules(text or "")
    except ValueError as error:
        raise StorageError(
            f"the rules of queue {queue!r} cannot be read: {error}. None of its jobs is started meanwhile"
        ) from error


def _pack_limit(limit: Limit) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    if limit.running is not None:
        packed["running"] = limit.running
    if limit.rate is not None:
        rate = limit.rate
        packed["rate"] = {"count": rate.count, "per": round(rate.per * 1000), "burst": rate.burst}
    return packed


def _parse_limit(name: str, found: dict[str, Any]) -> Limit:
    running, rate = found.pop("running", None), found.pop("rate", None)
    if found or (running is not None and (type(running) is not int or running < 1)):
        raise ValueError(f"the limit {name!r} is one that this version of jobqueue does not know")
    if rate is None:
        return Limit(running)
    fields = cast("dict[str, Any]", rate) if isinstance(rate, dict) else {}
    if fields.keys() != _RATE or any(type(value) is not int for value in fields.values()):
        raise ValueError(f"the rate of {name!r} is one that this version of jobqueue does not know")
    try:
        return Limit(running, Rate(fields["count"], fields["per"] / 1000, fields["burst"]))
    except InvalidArgumentError as error:
        raise ValueError(f"the rate of {name!r} is none: {error}") from error
