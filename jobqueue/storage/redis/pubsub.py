"""The one subscribed connection of a store: pushes replies, cancel requests and unlock notices.

Duties: keep a connection subscribed to every channel somebody listens to; hand each message to its
listeners; notice a dead connection by a ping that is not answered; after every reconnection subscribe
again and tell the listeners that messages may be missing. Messages are hints: losing one is harmless.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol, cast

from jobqueue.errors import StorageUnavailableError
from jobqueue.runtime import SYSTEM_CLOCK
from jobqueue.storage.base import Reply, Sink
from jobqueue.storage.redis import codec
from jobqueue.storage.redis.connection import Connection, ReplyError
from jobqueue.storage.redis.faults import ConnectionLostError, code_of, error_for
from jobqueue.storage.redis.transport import Connector

__all__ = ["Listener", "PubSub", "SinkListener"]

log = logging.getLogger("jobqueue.redis")

_PING_EVERY, _PONG_WITHIN = 10.0, 5.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class Listener(Protocol):
    """Who takes the messages of a channel. Equal listeners are one."""

    def message(self, data: bytes) -> None:
        """Take a message."""

    def resync(self) -> None:
        """Learn that messages may have been missed."""


class SinkListener:
    """Hands messages to a `Sink`."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SinkListener) and other._sink is self._sink

    def __hash__(self) -> int:
        return id(self._sink)

    def message(self, data: bytes) -> None:
        replies: list[Reply] = []
        try:
            for item in codec.frames(data):
                if isinstance(item, Reply):
                    replies.append(item)
                else:
                    self._sink.cancel(*item)
        except ValueError as error:  # anybody who may publish can send anything
            log.warning("a message that cannot be read was dropped: %s", error)
        if replies:
            self._sink.deliver(replies)

    def resync(self) -> None:
        self._sink.resync()


class PubSub:
    """See the module. Connects when the first channel is wanted."""

    def __init__(self, connector: Connector, confirm_within: float) -> None:
        self._connector = connector
        self._confirm_within = confirm_within
        self._listeners: dict[bytes, list[Listener]] = {}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard = False
        self._missed = False  # whether this connection follows a lost one

    async def subscribe(self, channel: bytes, listener: Listener) -> None:
        """Listen to a channel; returns when the server has confirmed it.

        Raises `StorageUnavailableError` if that takes too long; nobody listens then.
        """
        listeners = self._listeners.setdefault(channel, [])
        if listener not in listeners:
            listeners.append(listener)
        future = self._confirmed.get(channel)
        if future is None:
            future = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            if self._connection is not None:
                self._connection.post(b"SUBSCRIBE", channel)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jobqueue-redis-pubsub")
        try:
            async with asyncio.timeout(self._confirm_within):
                await asyncio.shield(future)
        except BaseException as error:
            self.unsubscribe(channel, listener)
            if self._confirmed.get(channel) is future and future.done():
                del self._confirmed[channel]  # the next one asks again
            if isinstance(error, TimeoutError):
                raise StorageUnavailableError("the server did not confirm a subscription in time") from None
            raise

    def unsubscribe(self, channel: bytes, listener: Listener) -> None:
        """Stop listening to a channel. Harmless if nobody does."""
        listeners = self._listeners.get(channel, [])
        if listener in listeners:
            listeners.remove(listener)
        if listeners or channel not in self._listeners:
            return
        del self._listeners[channel]
        future = self._confirmed.pop(channel, None)
        if future is not None:
            future.cancel()
        if self._connection is not None:
            self._connection.post(b"UNSUBSCRIBE", channel)

    async def close(self) -> None:
        """End the connection; listeners are forgotten."""
        self._listeners.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for future in self._confirmed.values():
            future.cancel()
        self._confirmed.clear()

    async def _run(self) -> None:
        """Stay connected until cancelled."""
        pause, first = _SHORTEST_PAUSE, True
        while True:
            try:
                connection = await self._connector("pubsub")
            except (ConnectionLostError, ReplyError) as error:
                log.warning("replies are not pushed now, waiters poll instead: %s", error)
                await SYSTEM_CLOCK.sleep(SYSTEM_CLOCK.uniform(0, pause))
                pause = min(_LONGEST_PAUSE, pause * 2)
                continue
            pause = _SHORTEST_PAUSE
            try:
                self._missed = not first
                await self._listen(connection)
            finally:
                self._connection = None
                await connection.close("the subscription ended")
            first = False

    async def _listen(self, connection: Connection) -> None:
        """Serve one connection until it is lost."""
        lost = asyncio.Event()
        connection.on_lost = lost.set
        connection.on_push = self._push
        self._connection = connection
        if self._listeners:
            connection.post(b"SUBSCRIBE", *self._listeners)
        while not connection.closed:
            if await _set_within(lost, _PING_EVERY):
                return
            self._heard = False
            connection.post(b"PING")
            if await _set_within(lost, _PONG_WITHIN):
                return
            if not self._heard:
                connection.abort("the server did not answer a ping")

    def _push(self, reply: Any) -> None:
        self._heard = True
        if isinstance(reply, ReplyError):
            self._refused(reply)
        elif isinstance(reply, list) and reply[0] in {b"message", b"subscribe"}:
            kind, channel, data = cast("tuple[bytes, bytes, Any]", reply)
            if kind == b"message":
                for listener in tuple(self._listeners.get(channel, ())):
                    listener.message(data)
            else:
                self._subscribed(channel)

    def _subscribed(self, channel: bytes) -> None:
        future = self._confirmed.get(channel)
        if future is not None and not future.done():
            future.set_result(None)
        # Only now nothing can slip between what is read again and what is pushed.
        if self._missed:
            for listener in tuple(self._listeners.get(channel, ())):
                listener.resync()

    def _refused(self, error: ReplyError) -> None:
        log.error("the server refuses to push replies, waiters poll instead: %s", error)
        for future in self._confirmed.values():
            if not future.done():
                future.set_exception(error_for(code_of(str(error)), str(error), "SUBSCRIBE"))


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
