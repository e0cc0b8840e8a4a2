"""Waiting until a lock is free, or a queue is resumed: both are announced on a channel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.storage.redis.net.pubsub import PubSub
from jobqueue.storage.redis.pushes import LOOK_EVERY
from jobqueue.storage.redis.scripted_calls import ScriptedCalls

__all__ = ["Unlocks"]


class Unlocks:
    """Makes callers wait for locks and for paused queues."""

    def __init__(self, pubsub: PubSub, steps: ScriptedCalls, clock: Clock) -> None:
        self._pubsub = pubsub
        self._steps = steps
        self._clock = clock
        self._waiters: set[_Waiter] = set()

    async def wait(self, lock: str, timeout: float) -> bool:
        """Wait until a lock is free; return False after ``timeout`` seconds."""

        async def is_held() -> bool:
            return await self._steps.lock_holder(lock) is not None

        return await self._wait(self._steps.lock_channel(lock), is_held, timeout)

    async def wait_for_resume(self, queue: str, timeout: float) -> bool:
        """Wait until a queue is not paused; return False after ``timeout`` seconds."""

        async def is_closed() -> bool:
            return await self._steps.is_closed(queue)

        return await self._wait(self._steps.resumed_channel(queue), is_closed, timeout)

    async def _wait(self, channel: bytes, is_shut: Callable[[], Awaitable[bool]], timeout: float) -> bool:
        waiter = _Waiter()
        self._waiters.add(waiter)
        timer = self._clock.call_later(timeout, waiter.close)
        try:
            await self._pubsub.subscribe(channel, waiter)
            # Looked at behind the subscription: what happens between the two is announced. And again whenever
            # something comes, since anybody who may publish can say that the lock is free.
            while await is_shut():
                looked_at = SYSTEM_CLOCK.monotonic()
                if not await waiter.news():
                    return False
                await SYSTEM_CLOCK.sleep(looked_at + LOOK_EVERY - SYSTEM_CLOCK.monotonic())
            return True
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
            self._pubsub.unsubscribe(channel, waiter)

    def close(self) -> None:
        """End all waits, since the store is closed."""
        for waiter in self._waiters:
            waiter.close()


class _Waiter:
    """One call that waits: a listener of its channel."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._over = False

    async def news(self) -> bool:
        """Wait until something has come; False if nothing is waited for any more."""
        await self._news.wait()
        self._news.clear()
        return not self._over

    def message(self, data: bytes) -> None:  # noqa: ARG002 - that it comes is all it says
        self._news.set()

    def resync(self) -> None:
        self._news.set()

    def close(self) -> None:
        self._over = True
        self._news.set()
