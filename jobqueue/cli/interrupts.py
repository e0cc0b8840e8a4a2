"""Ctrl-C while no command runs: the process ends at once, without a traceback."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["heard", "leave", "quiet"]


def quiet() -> None:
    """End the process at once on Ctrl-C: there is nothing that would have to end in order.

    Does nothing where SIGINT is ignored, as in a background job of a shell: it stays so.
    """
    _replace(signal.default_int_handler, leave)


def heard() -> None:
    """Raise `KeyboardInterrupt` on Ctrl-C again: a command begins."""
    _replace(leave, signal.default_int_handler)


def _replace(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    if signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


def leave(number: int, _frame: object) -> None:
    """End the process at once: a handler of signals."""
    os._exit(128 + number)
