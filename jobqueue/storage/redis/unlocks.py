"""Waiting until a lock is free."""

from __future__ import annotations

import asyncio

from jobqueue.runtime import SYSTEM_CLOCK, Clock
from jobqueue.storage.redis.pubsub import PubSub
from jobqueue.storage.redis.pushes import LOOK_EVERY
from jobqueue.storage.redis.steps import Steps

__all__ = ["Unlocks"]


class Unlocks:
    """Makes callers wait for locks. The release of a lock is announced on its channel."""

    def __init__(self, pubsub: PubSub, steps: Steps, clock: Clock) -> None:
        self._pubsub = pubsub
        self._steps = steps
        self._clock = clock

    async def wait(self, lock: str, timeout: float) -> bool:
        """Wait until a lock is free; return False after ``timeout`` seconds."""
        waiter, channel = _Waiter(), self._steps.lock_channel(lock)
        timer = self._clock.call_later(timeout, waiter.close)
        try:
            await self._pubsub.subscribe(channel, waiter)
            # Looked at behind the subscription: a release between the two is announced. And again whenever
            # something comes, since anybody who may publish can say that the lock is free.
            while await self._steps.holder(lock) is not None:
                looked_at = SYSTEM_CLOCK.monotonic()
                if not await waiter.news():
                    return False
                await SYSTEM_CLOCK.sleep(looked_at + LOOK_EVERY - SYSTEM_CLOCK.monotonic())
            return True
        finally:
            timer.cancel()
            self._pubsub.unsubscribe(channel, waiter)


class _Waiter:
    """One call that waits: a listener of the channel of its lock."""

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
