"""Where the messages of a channel come from, and how to get there: what `PubSub` asks for each channel."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jobqueue.storage.redis.net.connection import Connection
from jobqueue.storage.redis.net.target import Address
from jobqueue.storage.redis.net.transport import Connector

__all__ = ["PubSubCommands", "Route", "SingleRoute"]


class PubSubCommands(NamedTuple):
    """The commands of one kind of pub/sub. The server confirms them by their names in small letters."""

    subscribe: bytes
    unsubscribe: bytes
    message: bytes
    """The name of a message."""


class Route(Protocol):
    """Finds the server that delivers a channel's messages, and connects to it."""

    words: PubSubCommands

    async def find(self, channel: bytes) -> Address:
        """Return the place of a channel. Raises `ConnectionLostError` or a `ReplyError`."""
        ...

    async def connect(self, place: Address) -> Connection:
        """Connect to a place. Raises `ConnectionLostError` or a `ReplyError`."""
        ...

    def doubt(self) -> None:
        """Channels may have moved: look them up again."""


class SingleRoute:
    """One server delivers all messages: the one to which the connector leads."""

    words = PubSubCommands(b"SUBSCRIBE", b"UNSUBSCRIBE", b"message")

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def find(self, channel: bytes) -> Address:  # noqa: ARG002 - there is one place
        return Address("", 0)

    async def connect(self, place: Address) -> Connection:  # noqa: ARG002
        return await self._connector("pubsub")

    def doubt(self) -> None:
        pass
