"""The event loop that an object belongs to: its futures are completed there and nowhere else."""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import Protocol

from jobqueue.runtime.tasks import apart

__all__ = ["Home", "open_apart"]


class Home:
    """The event loop in which something was started."""

    __slots__ = ("_loop", "_runs", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._runs = self._loop.is_running
        self._thread = get_ident()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._loop

    @property
    def is_gone(self) -> bool:
        """Whether the loop has ended for good."""
        return self._loop.is_closed()

    def is_here(self) -> bool:
        """Return whether the caller runs in this loop."""
        # Only one loop runs in a thread at a time. To ask for it takes a system call on CPython 3.11.
        runs = self._runs  # called so, as in `Timers.start`
        if get_ident() == self._thread and runs():
            return True
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False
        if here:
            self._thread = get_ident()  # it goes on in another thread
        return here


class Openable(Protocol):
    """A store, as far as it is opened and closed."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Undo one `open`."""


async def open_apart(storage: Openable) -> None:
    """Open a store in an empty context, which its connections keep. Raises `StorageError`."""
    opening = apart(storage.open(), "open")
    try:
        await opening
    except asyncio.CancelledError:
        if not opening.cancelled() and opening.exception() is None:  # it was faster, and nobody will close it
            await storage.close()
        raise
