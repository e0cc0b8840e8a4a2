"""Makes objects refuse use in a forked child, which shares sockets, locks and event loop with its parent.

Such objects register here. In the child, before it runs anything else, `forked` is called on each,
so that using it fails with an error that names the remedy instead of hanging or taking the parent's
replies. It costs nothing until a fork.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forkable", "tell_in_child"]


class Forkable(Protocol):
    """An object that belongs to one process."""

    def forked(self) -> None:
        """Refuse use from now on; called on the copy in a forked child. Must neither block nor raise."""


_told: WeakSet[Forkable] = WeakSet()


def tell_in_child(target: Forkable) -> None:
    """Call ``target.forked()`` in every child forked from now on, as long as ``target`` lives."""
    _told.add(target)


def _tell_all() -> None:
    for target in _told:
        target.forked()


os.register_at_fork(after_in_child=_tell_all)
