"""The life of a service, written once for queues, reapers and apps: start, serve, stop, break, start again.

A service belongs to one event loop and one process. In another loop it is refused while it is started, and
forgets a start whose loop has ended; a forked child is told to make its own. What it has from a start to
the next stop is a `Session`, which opens no second time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, Self, TypeVar

from jobqueue.errors import BrokenError, JobQueueError, WrongLoopError, own_copy
from jobqueue.runtime.forks import tell_in_child
from jobqueue.runtime.loops import Home
from jobqueue.runtime.signals import serve_until_signal

__all__ = ["Servable", "Service", "Session", "check_unstarted", "is_started", "loop_of", "runs_in"]


class Servable(Protocol):
    """An object to serve until a signal: a service, or a fleet of processes."""

    @property
    def ready(self) -> bool:
        """Whether it is started and able to work."""
        ...

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End in order."""

    def hurry(self) -> None:
        """Make a running or later `stop` end sooner."""

    async def until_broken(self) -> None:
        """Wait for an error that only a restart can fix, and raise it; return when stopped."""


class Session(ABC):
    """The resources of a service from one start to the next stop.

    ``label`` and ``kind`` name the service in errors: ``queue 'mail'`` and ``Queue``.
    """

    def __init__(self, label: str, kind: str, home: Home) -> None:
        self._label = label
        self._kind = kind
        self.is_here = home.is_here
        """Return whether the caller runs in the event loop of this session."""
        self.over = asyncio.Event()
        """Set when a background task has failed, and when the service has stopped."""
        self.defect: JobQueueError | None = None
        """The error of every later call: a background task has failed, or the process is a forked child."""
        self.in_child = False
        """True for a copy in a forked child, which can neither be used nor stopped."""
        tell_in_child(self)

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the service can do its work now."""

    def runs(self, task: asyncio.Task[Any] | None) -> bool:  # noqa: ARG002 - for those that run something
        """Return whether ``task`` is one that `drain` waits for."""
        return False

    async def drain(self, timeout: float | None) -> None:  # noqa: B027 - most have nothing to wait for
        """Accept nothing new, and wait up to ``timeout`` seconds for the work under way."""

    def hurry(self) -> None:  # noqa: B027 - as above
        """Make a running or later `drain` end at once."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Call it after `drain`; it need not be called after a start that failed."""

    def forked(self) -> None:
        """Refuse use in a forked child: tasks, sockets and event loop belong to the parent."""
        self.in_child = True
        self.defect = WrongLoopError(
            f"{self._label} was started before a fork: make a new {self._kind}, on a new store, in the child"
        )

    def broke(self, defect: BaseException) -> BrokenError:
        """Note that only a restart helps; return the error of every later call."""
        self.defect = error = BrokenError(f"{self._label} broke and must be restarted: {defect!r}")
        error.__cause__ = defect
        self.over.set()
        return error


S = TypeVar("S", bound=Session)


class Service(ABC, Generic[S]):
    """Something that starts and stops, any number of times. Use it as a context manager, or call both."""

    def __init__(self, label: str, kind: str) -> None:
        self._label = label
        self._kind = kind
        self._forget_start()

    def _forget_start(self) -> None:
        """Be as never started."""
        self._session: S | None = None
        self._home: Home | None = None
        """The event loop of the current or last start."""
        self._changing = asyncio.Lock()
        tell_in_child(self)

    def forked(self) -> None:
        """Wait for no start or stop in a forked child: one that was under way goes on in the parent only."""
        self._changing = asyncio.Lock()

    # -- what each kind of service defines -------------------------------------------------------------

    @abstractmethod
    async def _begin(self, home: Home) -> S:
        """Open the resources of the service, and return them. Leaves nothing open when it raises."""

    def _has_started(self) -> None:
        """Emit the event that the service has started."""

    async def _has_stopped(self) -> None:
        """Emit the event that the service has stopped, and wait a bounded time for its listeners."""

    async def _until_told(self) -> None:
        """Wait a bounded time for the listeners of events."""

    # -- life ------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it is started, not stopping, and its last request reached the store."""
        return self._session is not None and self._session.ready

    async def start(self) -> None:
        """Open the store and begin to work. Does nothing if started.

        Raises `StorageUnavailableError` or `StorageError` if the store cannot be used.
        """
        self._check_loop()
        async with self._changing:
            if self._session is not None:
                if self._session.in_child:
                    self._check_sound(self._session)
                return
            self._home = Home()
            self._session = await self._begin(self._home)
        self._has_started()

    @abstractmethod
    async def stop(self) -> None:
        """Stop in order. Does nothing if not started."""

    async def _stop(self, timeout: float | None = None, *, only: S | None = None) -> None:
        """Stop; with ``only``, that session and none that was started after it."""
        if runs_in(self, asyncio.current_task()):
            raise JobQueueError("a handler cannot stop its own queue: stop() would wait for itself")
        self._check_loop()
        async with self._changing:
            session = self._session
            if session is None or (only is not None and session is not only):
                return
            if session.in_child:  # what is there to stop is the parent's
                self._session = None
                return
            try:
                await session.drain(timeout)
            finally:
                self._session = None
                try:
                    await session.close()
                finally:
                    session.over.set()
        await self._has_stopped()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, let running jobs end, stop.

        A second signal gives running jobs back at once. Also returns when another task calls `stop`.
        Raises the error of a background task that only a restart can fix, as `until_broken` does.
        """
        await serve_until_signal(self.start, self.stop, self.hurry, self.until_broken)
        await self._until_told()  # of a stop by another task, which may be at it still

    def hurry(self) -> None:
        """Make a running or later `stop` give running jobs back at once."""
        if self._session is not None:
            self._session.hurry()

    async def until_broken(self) -> None:
        """Wait until a background task fails in a way only a restart can fix, and raise that error.

        Returns when it is stopped.
        """
        session = self._session
        if session is None:
            return
        self._check_loop()
        if session.defect is None:
            await session.over.wait()
        self._check_sound(session)

    # -- checks ----------------------------------------------------------------------------------------

    def _check_unstarted(self) -> None:
        """Raise `JobQueueError` if the service is started, or about to be."""
        if self._session is not None or self._changing.locked():
            raise JobQueueError(f"{self._label} is started: configure it before start()")

    def _check_sound(self, session: S) -> None:
        """Raise the error of a session that broke, or whose process is a forked child."""
        if session.defect is not None:
            raise own_copy(session.defect)

    def _check_loop(self) -> None:
        """Raise `WrongLoopError` in another event loop than that of the start; forget one that has ended."""
        home, session = self._home, self._session
        if home is None or home.is_here() or (session is not None and session.in_child):
            return
        if home.is_gone:
            self._home, self._session, self._changing = None, None, asyncio.Lock()
        elif session is not None or self._changing.locked():
            raise WrongLoopError(
                f"{self._label} was started in another event loop: use it there, "
                f"or make another {self._kind}, on a store of its own, in this one"
            )


def check_unstarted(service: Service[Any]) -> None:
    """Raise `JobQueueError` if a part of another service is started, or about to be."""
    service._check_unstarted()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def is_started(service: Service[Any]) -> bool:
    """Return whether a service is between start and stop."""
    return service._session is not None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def loop_of(service: Service[Any]) -> asyncio.AbstractEventLoop | None:
    """Return the event loop in which a service is started, ``None`` if it is not, or that loop has ended."""
    home = service._home  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return home.loop if home is not None and not home.is_gone and is_started(service) else None


def runs_in(service: Service[Any], task: asyncio.Task[Any] | None) -> bool:
    """Return whether a stop of the service would wait for ``task``."""
    # Part of the same life, and no business of users.
    session = service._session  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return session is not None and session.runs(task)
