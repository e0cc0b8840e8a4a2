"""Functions that RQ and arq run."""

from __future__ import annotations

from typing import Any


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def fail() -> None:
    """Fail."""
    raise ValueError("as it must")


async def triple(context: dict[str, Any], number: int) -> int:
    """Triple a number, for arq."""
    context.setdefault("ran", []).append(number)
    return 3 * number
