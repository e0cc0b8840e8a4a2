"""Listens to the channels of this process: replies, cancel requests and unlock notices.

Duties: keep every channel that somebody listens to subscribed, at the server that its messages come to;
hand each message to its listeners; notice a dead connection by a ping that is not answered; after every
new subscription tell the listeners that messages may be missing. Messages are hints: losing one is harmless.

One server, or the master that Sentinel names, delivers the messages of all channels on one connection. On a
cluster a channel belongs to a slot, and its messages come only to the node of that slot: there is one
connection for each node that is listened to. A channel is always in one of two places: with a
`_SubscribedConnection`, which is one such connection from its beginning to its end, or on its way to one, in
`PubSub._bring`. Whatever separates the two, a lost connection, a slot that has moved, sends the channel on
its way again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Protocol, cast

from jobqueue.errors import StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.redis.net.connection import LOGIN_OVER, Connection, ReplyError
from jobqueue.storage.redis.net.faults import REFUSED_FOR, RIGHTS, ConnectionLostError, Remedy, remedy_for
from jobqueue.storage.redis.net.notices import warn_once
from jobqueue.storage.redis.net.routes import Route
from jobqueue.storage.redis.net.target import Address

__all__ = ["Listener", "PubSub"]

log = get_logger("jobqueue.storage.redis")

_PING_EVERY, _PONG_WITHIN = 10.0, 5.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_UNSETTLED_PAUSE = 0.5
"""Seconds until the next try at a server that cannot serve a channel now."""


class Listener(Protocol):
    """Receives the messages of a channel. Equal listeners are one."""

    def message(self, data: bytes) -> None:
        """Receive a message."""

    def resync(self) -> None:
        """Read everything waited for again: messages may have been missed."""

    def close(self) -> None:
        """Handle the end of the subscription: no message comes any more."""


class PubSub:
    """All subscriptions of a store. Connects when the first channel is subscribed."""

    def __init__(self, route: Route, confirm_within: float) -> None:
        self.route = route
        self._confirm_within = confirm_within
        self._listeners: dict[bytes, list[Listener]] = {}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._lines: dict[Address, _SubscribedConnection] = {}
        self._silent: set[Address | None] = set()
        """Servers whose failure was logged; None: the one that knows the place of a channel."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusal = ""
        """The server's reason for refusing this user's subscriptions."""

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
            self.bring({channel}, 0.0)
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
        """Stop listening to a channel. Does nothing without a listener."""
        listeners = self._listeners.get(channel, [])
        if listener in listeners:
            listeners.pop(listeners.index(listener)).close()
        if listeners or channel not in self._listeners:
            return
        del self._listeners[channel]
        future = self._confirmed.pop(channel, None)
        if future is not None:
            future.cancel()
        for line in self._lines.values():
            line.drop(channel)

    async def close(self) -> None:
        """End the connections, and close all listeners."""
        for listener in itertools.chain(*self._listeners.values()):
            listener.close()
        self._listeners.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for future in self._confirmed.values():
            future.cancel()
        self._confirmed.clear()

    # -- for the lines ----------------------------------------------------------------------------

    def bring(self, channels: Collection[bytes], pause: float) -> None:
        """Bring channels to their lines, after a random part of ``pause`` seconds."""
        self._spawn(self._bring(set(channels), pause))

    def deliver(self, channel: bytes, data: bytes) -> None:
        """Hand a message to the listeners."""
        for listener in tuple(self._listeners.get(channel, ())):
            listener.message(data)

    def confirm(self, channel: bytes) -> None:
        """Note that the messages of a channel come from now on."""
        future = self._confirmed.get(channel)
        if future is not None and not future.done():
            future.set_result(None)
            return
        # Not the first time. Only now nothing can slip between reading again and the pushes.
        for listener in tuple(self._listeners.get(channel, ())):
            listener.resync()

    def give_up(self, channels: Collection[bytes], refusal: str) -> None:
        """Let subscribing callers go on without pushes, since the server refuses subscriptions."""
        self.refusal = refusal
        for channel in channels:
            future = self._confirmed.get(channel)
            if future is not None and not future.done():
                future.set_result(None)

    # -- tasks ------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="jobqueue-redis-pubsub")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring(self, channels: set[bytes], pause: float) -> None:
        while channels:
            await SYSTEM_CLOCK.sleep(SYSTEM_CLOCK.uniform(0, pause))
            for channel in tuple(channels):
                if channel in self._listeners:
                    try:
                        place = await self.route.find(channel)
                    except (ConnectionLostError, ReplyError) as error:
                        self._tell_failure(None, error)
                        continue
                    self._line(place, pause).add(channel)
                channels.remove(channel)
            pause = _longer(pause)

    def _tell_failure(self, place: Address | None, error: Exception) -> None:
        # Twice a second while a server is away: said once for each outage.
        level = logging.DEBUG if place in self._silent else logging.WARNING
        self._silent.add(place)
        log.log(level, "replies are not pushed now, waiters poll instead: %s", error)

    def _tell_success(self, place: Address) -> None:
        if self._silent & {place, None}:
            self._silent -= {place, None}
            log.info("replies are pushed again")

    def _line(self, place: Address, pause: float) -> _SubscribedConnection:
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _SubscribedConnection(self, place)
            self._spawn(self._serve(line, pause))
        return line

    async def _serve(self, line: _SubscribedConnection, pause: float) -> None:
        """Run a line from its beginning to its end."""
        try:
            connection = await self.route.connect(line.place)
        except (ConnectionLostError, ReplyError) as error:
            self._tell_failure(line.place, error)
            pause = _longer(pause)
        else:
            self._tell_success(line.place)
            try:
                await line.listen(connection)
            finally:
                await connection.close("the subscription ended")
            pause = _SHORTEST_PAUSE
        del self._lines[line.place]
        self.route.doubt()
        await self._bring(line.channels, pause)


class _SubscribedConnection:
    """One subscribed connection."""

    def __init__(self, hub: PubSub, place: Address) -> None:
        self.place = place
        self.channels: set[bytes] = set()
        """The channels that it listens to, or will."""
        self._hub = hub
        self._words = hub.route.words
        self._confirmed: set[bytes] = set()
        self._leaving: set[bytes] = set()
        self._connection: Connection | None = None

    def add(self, channel: bytes) -> None:
        """Listen to a channel from now on."""
        self.channels.add(channel)
        if self._connection is not None and channel not in self._confirmed:
            self._connection.post(self._words.subscribe, channel)

    def drop(self, channel: bytes) -> None:
        """Stop listening to a channel."""
        if channel not in self.channels:
            return
        self._forget({channel})
        if self._connection is not None:
            self._leaving.add(channel)
            self._connection.post(self._words.unsubscribe, channel)

    async def listen(self, connection: Connection) -> None:
        """Serve until the connection is lost."""
        lost = asyncio.Event()
        connection.on_lost = lost.set
        connection.on_push = self._push
        self._connection = connection
        for channel in self.channels:  # one by one: a command on a cluster is for one slot
            connection.post(self._words.subscribe, channel)
        while not connection.closed:
            if await _set_within(lost, _PING_EVERY):
                return
            received = connection.received
            connection.post(b"PING")
            if await _set_within(lost, _PONG_WITHIN):
                return
            if connection.received == received:
                connection.abort("the server did not answer a ping")

    def _push(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self._failed(reply)
            return
        parts = cast("Sequence[Any]", reply) if isinstance(reply, list) else ()
        if len(parts) != 3:
            return  # the answer to a ping
        kind, channel, data = parts
        if not isinstance(channel, bytes):
            return
        if kind == self._words.message:
            self._hub.deliver(channel, data)
        elif kind == self._words.subscribe.lower():
            if channel in self.channels:
                self._confirmed.add(channel)
            self._hub.confirm(channel)
        elif channel in self._leaving:
            self._leaving.remove(channel)
        elif channel in self.channels:  # the node has given the slot away
            self._send_away({channel}, _SHORTEST_PAUSE)

    def _failed(self, error: ReplyError) -> None:
        if error.code == "NOAUTH" and self._connection is not None:
            self._connection.abort(LOGIN_OVER)
            return
        remedy, unconfirmed = remedy_for(error.code), self.channels - self._confirmed
        if not unconfirmed:
            return  # the answer to a ping
        if remedy is Remedy.RAISE:
            assert self._connection is not None
            where = f"Redis at {self._connection.address}"
            warn_once(f"{where}: results are not pushed, waiters poll instead: {error}. {RIGHTS}")
            self._hub.give_up(unconfirmed, str(error))
            self._send_away(unconfirmed, REFUSED_FOR)
        else:
            self._send_away(unconfirmed, _SHORTEST_PAUSE if remedy is Remedy.REDIRECT else _UNSETTLED_PAUSE)

    def _send_away(self, channels: set[bytes], pause: float) -> None:
        """Subscribe channels at the servers that serve them now."""
        self._forget(channels)
        self._hub.route.doubt()
        self._hub.bring(channels, pause)

    def _forget(self, channels: set[bytes]) -> None:
        self.channels -= channels
        self._confirmed -= channels


def _longer(pause: float) -> float:
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, 2 * pause))


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
