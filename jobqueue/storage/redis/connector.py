"""Opens the connections of a store: names them, and finds the server."""

from __future__ import annotations

import os

from jobqueue.storage.redis.connection import Connection, Login, connect
from jobqueue.storage.redis.url import Target

__all__ = ["SingleConnector", "Timeouts"]


class Timeouts:
    """Time limits of I/O, in seconds."""

    __slots__ = ("connect", "reply")

    def __init__(self, connect: float, reply: float) -> None:
        self.connect = connect
        """For opening a connection and logging in."""
        self.reply = reply
        """For the reply to a command; a blocking command has its own time on top."""


class SingleConnector:
    """Connects to the one server that the URL names."""

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._target = target
        self._login = Login(target)
        self._timeouts = timeouts

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:  # noqa: ARG002 - one server has all
        return await connect(
            self._target.addresses[0],
            self._login,
            f"jobqueue-{kind}-{os.getpid()}",
            connect_timeout=self._timeouts.connect,
            reply_timeout=self._timeouts.reply,
        )
