"""Waiting for work and for locks: for a notification, or a time, whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jobqueue.errors import JobQueueError
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.postgres.listener import Listener

__all__ = ["WakeUp"]

log = get_logger("jobqueue.storage.postgres")


class WakeUp:
    """Wakes those of this store that wait for one thing, which is announced on a channel.

    ``channel`` returns its name. ``look`` returns the milliseconds until the thing is there, 0 if it is, and
    ``None`` if that is not known.
    """

    def __init__(
        self,
        listener: Listener,
        channel: Callable[[], Awaitable[str]],
        look: Callable[[], Awaitable[int | None]],
        clock: Clock,
    ) -> None:
        self._listener = listener
        self._channel = channel
        self._listening_to: str | None = None
        self._look = look
        self._clock = clock
        self._waiting: dict[asyncio.Future[bool], asyncio.Event] = {}
        self._news = 0
        """Number of notifications so far."""
        self._absent: tuple[int, float | None] | None = None
        """After how many notifications the thing was not there, and when it may be."""

    def mark(self) -> int | None:
        """Return what `missed` is told after a look that begins now; ``None`` if nothing is heard now."""
        return self._news if self._listening_to is not None and not self._listener.polls else None

    def missed(self, mark: int | None, due: int | None) -> None:
        """Note that the thing was not there: a wait need not look, unless something is heard in between.

        ``due``: milliseconds until it may be there, ``None`` if that is not known.
        """
        if mark is not None:
            self._absent = mark, None if due is None else self._clock.monotonic() + due / 1000

    async def wait(self, timeout: float, *, surely: bool = False) -> bool:
        """Return True early if the thing may be there, False after ``timeout`` seconds.

        With ``surely`` a notification only makes it look again.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        news = asyncio.Event()
        self._waiting[future] = news
        # The timer first of all: a clock of a test may move before the server has answered.
        timer = self._clock.call_later(timeout, lambda: _resolve(future, woken=False))
        looking = asyncio.create_task(self._watch(future, news, surely=surely), name="jobqueue-postgres-look")
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(future, None)
            looking.cancel()
            if not self._waiting and surely:
                self.stop()

    async def _watch(self, future: asyncio.Future[bool], news: asyncio.Event, *, surely: bool) -> None:
        try:
            if self._listening_to is None:
                channel = await self._channel()
                await self._listener.listen(channel, self)
                self._listening_to = channel
            while True:
                due = await self._due()
                if due is not None:
                    if due <= 0:
                        _resolve(future, woken=True)
                        return
                    self._clock.call_later(due, lambda: _resolve(future, woken=True))
                await news.wait()  # or it came since the call began
                news.clear()
                if not surely and not self._listener.polls:
                    _resolve(future, woken=True)
                    return
        except JobQueueError as error:
            # The wait goes on until its timeout; the next call meets the fault and tells of it.
            log.debug("cannot look: %s", error)

    async def _due(self) -> float | None:
        """Return in how many seconds the thing is there, ``None`` if that is not known."""
        absent, self._absent = self._absent, None
        if absent is not None and absent[0] == self.mark():
            return None if absent[1] is None else absent[1] - self._clock.monotonic()
        due = await self._look()
        return None if due is None else due / 1000

    def hint(self) -> None:
        """Wake those that wait: the thing may be there."""
        self._news += 1
        for news in self._waiting.values():
            news.set()

    def message(self, payload: str) -> None:  # noqa: ARG002 - that it comes is all it says
        """Wake those that wait."""
        self.hint()

    def resync(self) -> None:
        """Wake those that wait."""
        self.hint()

    def stop(self) -> None:
        """Listen no more."""
        channel, self._listening_to = self._listening_to, None
        if channel is not None:
            self._listener.unlisten(channel, self)


def _resolve(future: asyncio.Future[bool], *, woken: bool) -> None:
    if not future.done():
        future.set_result(woken)
