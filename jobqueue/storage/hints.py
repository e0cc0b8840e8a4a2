"""Wake-ups and pushes inside one process, for stores built on the `Engine`.

Safe across threads: what belongs to another event loop is handed to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jobqueue.runtime import Clock
from jobqueue.storage.base import Sink
from jobqueue.storage.engine import Effects

__all__ = ["Hints"]


class _Subscription(NamedTuple):
    sink: Sink
    loop: asyncio.AbstractEventLoop

    def call(self, here: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        if self.loop is here:
            function()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function)


class _Hint(NamedTuple):
    future: asyncio.Future[bool]
    loop: asyncio.AbstractEventLoop

    def set(self, *, woken: bool) -> None:
        if not self.future.done():
            self.future.set_result(woken)


class Hints:
    """Who waits for what, and the sinks by address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sinks: dict[str, _Subscription] = {}
        self._waiting: dict[tuple[str, str], list[_Hint]] = {}

    def subscribe(self, address: str, sink: Sink) -> None:
        self._sinks[address] = _Subscription(sink, asyncio.get_running_loop())

    def unsubscribe(self, address: str) -> None:
        self._sinks.pop(address, None)

    @contextmanager
    def waiting(self, topic: tuple[str, str]) -> Iterator[_Hint]:
        """Stand as a waiter for ``("work", queue)`` or ``("lock", name)``."""
        loop = asyncio.get_running_loop()
        hint = _Hint(loop.create_future(), loop)
        self._waiting.setdefault(topic, []).append(hint)
        try:
            yield hint
        finally:
            standing = self._waiting[topic]
            standing.remove(hint)
            if not standing:
                del self._waiting[topic]

    async def wait(self, hint: _Hint, timeout: float) -> bool:
        """Wait for the hint; False after ``timeout`` seconds."""
        timer = self._clock.call_later(timeout, lambda: hint.set(woken=False))
        try:
            return await hint.future
        finally:
            timer.cancel()

    def wake(self, topic: tuple[str, str]) -> None:
        """Wake all who wait for a topic."""
        here = asyncio.get_running_loop()
        for hint in tuple(self._waiting.get(topic, ())):
            if hint.loop is here:
                hint.set(woken=True)
            elif not hint.loop.is_closed():
                hint.loop.call_soon_threadsafe(lambda hint=hint: hint.set(woken=True))

    def publish(self, effects: Effects) -> None:
        """Tell everybody in this process what the engine wants told."""
        here = asyncio.get_running_loop()
        for queue in effects.woken:
            self.wake(("work", queue))
        for lock in effects.unlocked:
            self.wake(("lock", lock))
        for request in effects.cancels:
            target = self._sinks.get(request.address)
            if target is not None:
                sink, (_, queue, id, fence) = target.sink, request
                target.call(here, lambda s=sink, q=queue, i=id, f=fence: s.cancel(q, i, f))
        for address, replies in effects.replies.items():
            target = self._sinks.get(address)
            if target is not None:
                target.call(here, lambda s=target.sink, r=replies: s.deliver(r))

    def resync(self) -> None:
        """Tell every sink that messages may have been missed."""
        here = asyncio.get_running_loop()
        for target in tuple(self._sinks.values()):
            target.call(here, target.sink.resync)
