"""Opens the connections of a store to its one server."""

from __future__ import annotations

from jobqueue.storage.redis.net.connection import Connection
from jobqueue.storage.redis.net.login import Timeouts, connect
from jobqueue.storage.redis.net.target import Target

__all__ = ["SingleConnector"]


class SingleConnector:
    """Connects to the one server that the target names."""

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._target = target
        self._timeouts = timeouts

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:  # noqa: ARG002 - one server has all
        return await connect(self._target.addresses[0], self._target.login, kind, self._timeouts)
