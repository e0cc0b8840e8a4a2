"""The stored form of `Rules`: the one place that names its fields.

It is a JSON object of the fields that are not at their default, so that a script or a function of a database
can read it as well. Rules that restrict nothing are stored as nothing. A field that this release does not
know is a rule that it cannot keep: reading it is an error, and nothing is claimed while it stands.
"""

from __future__ import annotations

import json
from typing import Any, cast

from jobqueue.errors import StorageError
from jobqueue.storage.values import Rules

__all__ = ["pack_rules", "parse_rules", "read_rules"]

_FIELDS: dict[str, type] = {"paused": bool}
"""The type of each field in the stored form, by name."""
_NONE = Rules()


def pack_rules(rules: Rules | None) -> str:
    """Return the stored form, always the same for equal rules; empty for rules that restrict nothing."""
    if rules is None:
        return ""
    found = {name: getattr(rules, name) for name in _FIELDS if getattr(rules, name) != getattr(_NONE, name)}
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
    return Rules(**rules)


def read_rules(queue: str, text: str | bytes | None) -> Rules:
    """Read the stored form of the rules of a queue. Raises `StorageError`."""
    try:
        return parse_rules(text or "")
    except ValueError as error:
        raise StorageError(
            f"the rules of queue {queue!r} cannot be read: {error}. None of its jobs is started meanwhile"
        ) from error
