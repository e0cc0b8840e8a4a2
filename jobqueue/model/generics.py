"""The type variables of payloads and results, ``Any`` where a program names none.

So ``Queue(storage)`` and ``Job`` pass a strict type checker as they are, and ``Queue[P, R]`` checks more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["P", "R"]

if TYPE_CHECKING:
    # Type checkers bring this module with them; `typing` has defaults from Python 3.13 on.
    from typing_extensions import TypeVar

    P = TypeVar("P", default=Any)
    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    P = TypeVar("P")
    R = TypeVar("R")
