"""Watches what is looked at, and tells the open streams what has changed.

One background task, which runs while somebody has the dashboard open and for some minutes after. In each
turn it reads, once for each different page that is open, the few facts by which a change of it is told.
Turns take no more than a part of the time, so that many pages make them rarer and the store no slower. When
nobody has asked for long enough, the store is closed and the task ends; the next request begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from typing import NamedTuple

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.runtime.bounded import within
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.loops import Home
from jobqueue.runtime.tasks import apart
from jobqueue.web.samples import EVERY, Samples
from jobqueue.web.source import Source

__all__ = ["Facts", "Listener", "Pulse", "Topic"]

log = get_logger("jobqueue.web")

IDLE = 600.0
"""Seconds without a request after which the store is closed."""
SHARE = 0.2
"""Part of the time that the turns take at the most."""
AT_ONCE = 8
"""Pages that are looked at at the same time."""
LOOK = 5.0
"""Seconds that one look may take."""


class Topic(NamedTuple):
    """A page that somebody has open."""

    page: str
    query: tuple[tuple[str, str], ...]
    """What it was asked for, sorted."""


Facts = Callable[[Source, Mapping[str, str]], Awaitable[Mapping[str, Hashable]]]
"""Reads what tells a change of a page: named parts of it."""


class Listener:
    """One open stream. It is told names of parts; what it has not taken yet is a set, and cannot grow."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.over = False
        """No more will come."""
        self.news = asyncio.Event()
        self._parts: set[str] = set()
        self._fresh = True

    def tell(self, *parts: str) -> None:
        """Note that parts have changed."""
        self._parts.update(parts)
        self.news.set()

    def first(self) -> bool:
        """Return whether this is the first look on its behalf: its page was made some time before."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def take(self) -> list[str]:
        """Return what has changed, and forget it."""
        parts, self._parts = sorted(self._parts), set()
        self.news.clear()
        return parts

    def end(self) -> None:
        """Have the stream end."""
        self.over = True
        self.news.set()


class Pulse:
    """The background task of a dashboard, and the streams that it tells."""

    def __init__(
        self,
        source: Source,
        samples: Samples,
        facts: Mapping[str, Facts],
        refresh: float,
        max_streams: int,
        busy: Callable[[], bool],
    ) -> None:
        self._source = source
        self._samples = samples
        self._facts = facts
        self._refresh = refresh
        self._max_streams = max_streams
        self._busy = busy
        self._forget()

    def _forget(self) -> None:
        self._home: Home | None = None
        self._task: asyncio.Task[None] | None = None
        self._listeners: set[Listener] = set()
        self._seen: dict[Topic, Mapping[str, Hashable]] = {}
        self._touched = 0.0
        self._sampled: float | None = None
        self._away = False

    @property
    def streams(self) -> int:
        """Number of open streams."""
        return len(self._listeners)

    def touch(self) -> None:
        """Note a request, and begin to watch if nothing does. Raises if it serves another loop."""
        if self._home is not None and self._home.is_gone:
            self._forget()
        self._touched = self._source.clock.monotonic()
        if self._task is None:
            self._home = Home()
            self._task = apart(self._run(), "web-pulse")

    def join(self, topic: Topic) -> Listener | None:
        """Return a new stream's listener; ``None`` if there are too many streams."""
        self.touch()
        if len(self._listeners) >= self._max_streams:
            return None
        listener = Listener(topic)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a stream."""
        self._listeners.discard(listener)
        if not any(other.topic == listener.topic for other in self._listeners):
            self._seen.pop(listener.topic, None)

    async def close(self) -> None:
        """End the task and all streams."""
        if self._home is not None and self._home.is_gone:
            self._forget()
        for listener in self._listeners:
            listener.end()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        clock = self._source.clock
        pause = self._refresh
        try:
            while True:
                await clock.sleep(pause)
                started = clock.monotonic()
                if not self._listeners and not self._busy() and started - self._touched > IDLE:
                    break
                await self._turn(started)
                pause = max(self._refresh, (clock.monotonic() - started) / SHARE)
        except Exception:
            log.exception("the dashboard has stopped to watch, until the next request")
            for listener in self._listeners:  # whose browsers open others, and so begin anew
                listener.end()
        finally:
            self._task = None
        self._samples.forget()
        await self._source.close()

    async def _turn(self, now: float) -> None:
        self._touch_listeners(now)
        gate = asyncio.Semaphore(AT_ONCE)
        topics = {listener.topic for listener in self._listeners}
        found = await asyncio.gather(*(self._look(topic, gate) for topic in topics))
        away = bool(found) and not any(found)
        if self._sampled is None or now - self._sampled >= EVERY - self._refresh / 2:
            self._sampled = now
            away = not await self._sample() or away
        if self._away and not away:
            log.info("the store of the dashboard answers again")
        elif away and not self._away:
            log.warning("the store of the dashboard does not answer")
        self._away = away

    def _touch_listeners(self, now: float) -> None:
        if self._listeners:
            self._touched = now

    async def _look(self, topic: Topic, gate: asyncio.Semaphore) -> bool:
        """Look at a page; return whether the store has answered."""
        listeners = [listener for listener in self._listeners if listener.topic == topic]
        facts: Mapping[str, Hashable] = {}
        try:
            async with gate:
                facts = await within(
                    self._source.clock, self._facts[topic.page](self._source, dict(topic.query)), LOOK
                )
        except (StorageError, TimeoutError):
            self._seen.pop(topic, None)
            for listener in listeners:
                listener.tell("away")
            return False
        except JobQueueError:
            pass  # its page says what is wrong
        before = self._seen.get(topic)
        self._seen[topic] = facts
        changed = {part for part in facts if before is None or before.get(part) != facts[part]}
        for listener in listeners:
            if listener.first():
                listener.tell("page")
            elif changed:
                listener.tell(*changed)
        return True

    async def _sample(self) -> bool:
        try:
            taking = self._samples.take(await self._source.store(), self._source.counting)
            await within(self._source.clock, taking, LOOK)
        except (StorageError, TimeoutError):
            self._samples.forget()
            return False
        return True
