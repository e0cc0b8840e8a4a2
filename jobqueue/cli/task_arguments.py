"""The arguments of a task, as JSON on a command line."""

from __future__ import annotations

from typing import Any, cast

from jobqueue.cli.exits import Failure

__all__ = ["as_arguments"]


def as_arguments(given: Any) -> dict[str, Any]:
    """Return the payload of a task's job: of an array by position, of an object by name.

    An object of ``args`` and ``kwargs`` alone is such a payload already, as ``job show`` prints it.
    """
    if isinstance(given, list):
        return {"args": given, "kwargs": {}}
    if not isinstance(given, dict):
        raise Failure.usage(
            "the payload of a task's job has its arguments: an array of them, or an object by their names"
        )
    named = cast("dict[str, Any]", given)
    if named.keys() == {"args", "kwargs"} and isinstance(named["args"], list):
        return named
    return {"args": [], "kwargs": named}
