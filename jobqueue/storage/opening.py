"""Opening and closing of stores whose resources belong to one event loop of one process, written once.

Such a store counts its openings. The first makes a `StoreSession`, the last closing ends it. While it is
open, another event loop and a forked child are refused with an error that names the remedy; a store whose
event loop has ended without closing it counts as closed.
"""

from __future__ import annotations

import asyncio
import copy
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Self, TypeVar

from jobqueue.errors import StorageError
from jobqueue.runtime.forks import tell_in_child
from jobqueue.runtime.loops import Home

__all__ = ["LoopBoundStorage", "StoreSession", "forked_error"]


class StoreSession(ABC):
    """The resources of a store from its first opening to its last closing."""

    def __init__(self) -> None:
        self.is_here = Home().is_here
        """Return whether the caller runs in the event loop of these resources."""

    @abstractmethod
    async def start(self) -> None:
        """Connect. Raises `StorageUnavailableError` or `StorageError`; `close` is called then."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything, also after a `start` that has failed half way."""

    def abandon(self) -> None:  # noqa: B027 - most have nothing that outlives the loop
        """Let go of what outlives the event loop, which has ended before `close`."""


S = TypeVar("S", bound=StoreSession)


class LoopBoundStorage(ABC, Generic[S]):
    """A store that is opened in one event loop at a time."""

    _kind: ClassVar[str]
    """The store's name in errors: ``Redis``."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """Be as never opened."""
        self._session: S | None = None
        self._opened = 0
        self._in_child = False
        self._home: Home | None = None
        self._changing: asyncio.Lock = asyncio.Lock()
        """Held while the session is made or ended."""

    @abstractmethod
    def _make_session(self) -> S:
        """Return a session that is not started."""

    async def open(self) -> None:
        self._enter_loop()
        async with self._changing:
            if self._session is None:
                session = self._make_session()
                try:
                    await session.start()
                except BaseException:
                    await session.close()
                    raise
                self._session = session
            self._opened += 1

    async def close(self) -> None:
        if self._in_child:
            return  # it has nothing of its own to close
        self._enter_loop()
        async with self._changing:
            self._opened = max(0, self._opened - 1)
            if self._session is not None and not self._opened:
                session, self._session = self._session, None
                await session.close()

    def clone(self) -> Self:
        twin = copy.copy(self)
        twin._forget()  # noqa: SLF001 - of the same class
        return twin

    def forked(self) -> None:
        """Refuse use in a forked child: the session belongs to the parent."""
        if self._session is not None or self._changing.locked():
            self._in_child = True
        else:
            self._forget()

    def _open_session(self) -> S:
        """Return the session for a call. Raises `StorageError` where the store is not open."""
        session = self._session
        if session is None or self._in_child:
            self._check_process()
            raise StorageError(f"the {self._kind} store is not open: call open() first")
        if not session.is_here():
            raise self._elsewhere()
        return session

    def _enter_loop(self) -> None:
        """Belong to the running event loop, unless the store is open in another one, or in the parent."""
        self._check_process()
        if self._home is not None and self._home.is_here():
            return
        if self._session is not None or self._changing.locked():
            if self._home is not None and not self._home.is_gone:
                raise self._elsewhere()
            if self._session is not None:
                self._session.abandon()
        self._forget()
        self._home = Home()
        tell_in_child(self)

    def _check_process(self) -> None:
        if self._in_child:
            raise forked_error(self._kind, type(self).__name__)

    def _elsewhere(self) -> StorageError:
        return StorageError(
            f"this {self._kind} store was opened in another event loop: use it there, or a clone() of it here"
        )


def forked_error(kind: str, name: str) -> StorageError:
    """Return the error of a store that is used in a child forked after its opening."""
    return StorageError(f"this {kind} store was opened before a fork: make a new {name} in the child process")
