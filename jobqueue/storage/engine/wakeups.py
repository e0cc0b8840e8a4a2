"""Wake-ups and pushes inside one process, for stores built on the `Engine`.

Safe across threads: a call for another event loop is handed to that loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self, TypeVarTuple

from jobqueue.runtime.clock import Clock
from jobqueue.storage.contract import Sink
from jobqueue.storage.engine.effects import Effects

__all__ = ["WakeUps"]

Ts = TypeVarTuple("Ts")

Topic = tuple[str, str]
"""``("work", queue)`` or ``("lock", name)``."""


class _Subscription(NamedTuple):
    queue: str
    sink: Sink
    loop: asyncio.AbstractEventLoop


class _Wait:
    """A waiter for a topic, within its context. An idle worker begins one after each job."""

    __slots__ = ("_standing", "_topic", "future", "loop")

    def __init__(self, topics: dict[Topic, list[_Wait]], topic: Topic) -> None:
        self._standing = topics
        self._topic = topic
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[bool] = self.loop.create_future()

    def __enter__(self) -> Self:
        self._standing.setdefault(self._topic, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        standing = self._standing[self._topic]
        standing.remove(self)
        if not standing:
            del self._standing[self._topic]

    def set(self, woken: bool) -> None:  # noqa: FBT001
        """End the wait."""
        if not self.future.done():
            self.future.set_result(woken)


class WakeUps:
    """The waiters by topic, and the sinks by address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sinks: dict[str, tuple[_Subscription, ...]] = {}
        self.topics: dict[Topic, list[_Wait]] = {}
        """All topics that have a waiter."""

    def __len__(self) -> int:
        """Return how many sinks are subscribed and waits under way. For tests."""
        return sum(map(len, (*self._sinks.values(), *self.topics.values())))

    def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Add a sink, to be called in the running loop."""
        self.unsubscribe(queue, address, sink)
        new = _Subscription(queue, sink, asyncio.get_running_loop())
        self._sinks[address] = (*self._sinks.get(address, ()), new)

    def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Remove a sink, if it is there."""
        standing = self._sinks.pop(address, ())
        left = tuple(s for s in standing if s.sink is not sink or s.queue != queue)
        if left:
            self._sinks[address] = left

    def waiting(self, topic: Topic) -> _Wait:
        """Be a waiter for a topic within this context."""
        return _Wait(self.topics, topic)

    async def wait(self, hint: _Wait, timeout: float, due: int | None = None) -> bool:
        """Wait for a wake-up or until ``due`` (milliseconds); return False after ``timeout`` seconds."""
        until_due = math.inf if due is None else due / 1000
        woken = until_due <= timeout
        timer = self._clock.call_later(min(until_due, timeout), partial(hint.set, woken))
        try:
            return await hint.future
        finally:
            timer.cancel()

    def wake(self, topic: Topic) -> None:
        """Wake all waiters of a topic."""
        standing = self.topics.get(topic)
        if standing is not None:
            for hint in tuple(standing):
                _call_in(hint.loop, hint.set, True)  # noqa: FBT003

    def publish(self, effects: Effects) -> None:
        """Deliver the engine's notifications to waiters and sinks in this process."""
        if self.topics:
            for queue in effects.woken:
                self.wake(("work", queue))
            for lock in effects.unlocked:
                self.wake(("lock", lock))
        for request in effects.cancels:
            for queue, sink, loop in self._sinks.get(request.address, ()):
                if queue == request.queue:
                    _call_in(loop, sink.cancel_requested, queue, request.id, request.fence)
        for address, replies in effects.replies.items():
            for queue, sink, loop in self._sinks.get(address, ()):
                mine = tuple([reply for reply in replies if reply.queue == queue])
                if mine:
                    _call_in(loop, sink.deliver, mine)

    def resync(self) -> None:
        """Wake every waiter and have every sink read again, since messages may have been missed."""
        for topic in tuple(self.topics):
            self.wake(topic)
        for subscriptions in tuple(self._sinks.values()):
            for _, sink, loop in subscriptions:
                _call_in(loop, sink.resync)


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[*Ts], None], *arguments: *Ts) -> None:
    # A loop is closed when its thread has ended without unsubscribing: no receiver is left.
    if loop is asyncio.get_running_loop():
        function(*arguments)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)
