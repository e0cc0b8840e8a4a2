"""Calls the listeners of events."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Self

from jobqueue.errors import InvalidArgumentError
from jobqueue.events import Event, Listener
from jobqueue.model.checks import check_callable
from jobqueue.runtime.bounded import all_end
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.loggers import get_logger

__all__ = ["Emitter"]

log = get_logger("jobqueue")

LISTENER_DRAIN = 5.0
"""Seconds that asynchronous listeners get to end when their queue or reaper stops."""
CANCELLED_LISTENER_DRAIN = 1.0
"""Seconds that asynchronous listeners get to end after their cancellation."""


class Emitter:
    """Calls the listeners of each event. One that raises is logged; the others are still called."""

    def __init__(self, *kinds: type[Event]) -> None:
        self._listeners: dict[str, tuple[tuple[Listener[Any]], ...]] = {kind.name: () for kind in kinds}
        self.kinds = {kind.name: kind for kind in kinds}
        """The classes of the events, by name."""
        self._tasks: dict[asyncio.Task[None], str] = {}  # to the event's name
        self.heard: set[type[Event]] = set()
        """Event types with at least one listener; others are not even built."""

    def on(self, event: str | type[Event], listener: Listener[Any]) -> Callable[[], None]:
        """Add a listener for an event, given by name or class; return a function that removes it.

        Raises `InvalidArgumentError`.
        """
        kind = self._kind(event)
        check_callable("listener", listener)
        entry = (listener,)  # an object of its own: one function may listen twice
        self._listeners[kind.name] += (entry,)
        self.heard.add(kind)

        def unsubscribe() -> None:
            left = [known for known in self._listeners[kind.name] if known is not entry]
            self._listeners[kind.name] = tuple(left)
            if not left:
                self.heard.discard(kind)

        return unsubscribe

    def apart(self) -> Self:
        """Return an emitter with these listeners, those to come included, for another event loop."""
        twin = copy.copy(self)
        twin._tasks = {}  # noqa: SLF001 - of the same class
        return twin

    def has(self, kind: type[Event]) -> bool:
        """Return whether this emitter has events of a class."""
        return kind in self.kinds.values()

    def _kind(self, event: str | type[Event]) -> type[Event]:
        for name, kind in self.kinds.items():
            if event is kind or event == name:
                return kind
        raise InvalidArgumentError("name", f"must be one of {', '.join(self.kinds)}, not {event!r}")

    def emit(self, event: Event) -> None:
        """Call every listener; asynchronous ones run as tasks of their own."""
        for (listener,) in self._listeners[event.name]:
            try:
                answer = listener(event)
            except BaseException:
                log.exception("a listener of %r raised", event.name)
                continue
            if inspect.isawaitable(answer):
                task = asyncio.ensure_future(_logged(event.name, answer))
                self._tasks[task] = event.name
                task.add_done_callback(self._forget)

    async def drain(self, clock: Clock) -> None:
        """Wait for the asynchronous listeners called so far; cancel them after a bounded time."""
        current = asyncio.current_task()
        tasks = {task: name for task, name in self._tasks.items() if task is not current}
        if not tasks or await all_end(clock, tasks, LISTENER_DRAIN):
            return
        left = [task for task in tasks if not task.done()]
        names = ", ".join(sorted({repr(tasks[task]) for task in left}))
        log.warning("listeners of %s had not ended after %g s and were cancelled", names, LISTENER_DRAIN)
        for task in left:
            task.cancel()
            self._forget(task)  # one that ignores this is waited for once
        await all_end(clock, left, CANCELLED_LISTENER_DRAIN)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)


async def _logged(name: str, answer: Awaitable[None]) -> None:
    try:
        await answer
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException:
        log.exception("a listener of %r raised", name)
