"""Finds the master through Sentinel.

Every new connection asks the sentinels anew and then asks the server itself for its role, because a
sentinel may not have noticed a failover yet. A master that was demoted refuses writes (``READONLY``) and
unblocks its waiters (``UNBLOCKED``): both make the store connect again, and so find the new one.

Which master to believe is decided by redis-py's `Sentinel`, with the options of the user's (such as
``min_other_sentinels``). What it asks its clients is answered by connections of ours: so they have the time
limits of the store and belong to its event loop, and nothing is repeated but by the store.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from jobqueue.storage.redis.net.connection import Connection, ReplyError
from jobqueue.storage.redis.net.faults import REFUSALS, ConnectionLostError
from jobqueue.storage.redis.net.login import Timeouts, connect
from jobqueue.storage.redis.net.target import Address, Login, Target

__all__ = ["SentinelConnector"]


class SentinelConnector:
    """Connects to the master of the service that the target names."""

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._rules: Any = target.sentinel
        self._nodes = [
            _SentinelNode(address, target.sentinel_login, target.service, timeouts)
            for address in target.addresses
        ]
        self._service = target.service
        self._login = target.login
        self._timeouts = timeouts

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:  # noqa: ARG002
        connection = await connect(await self._master(), self._login, kind, self._timeouts)
        try:
            role = await connection.send(b"ROLE")
        except BaseException as error:
            if isinstance(error, ReplyError) and error.code in REFUSALS:
                return connection  # then a demoted master is noticed by the first write
            await connection.close("its role is unknown")
            raise
        if role[0] != b"master":
            await connection.close("it is not the master")
            raise ConnectionLostError("the sentinels name a server that is not the master (yet)")
        return connection

    async def _master(self) -> Address:
        rules = copy.copy(self._rules)
        rules.sentinels = list(self._nodes)
        try:
            host, port = await rules.discover_master(self._service)
            address = Address(str(host), int(port))
        except (RedisError, ValueError) as error:
            problems = "; ".join(f"{node}: {node.problem}" for node in self._nodes if node.problem)
            text = f"no sentinel names a master of {self._service!r}: {problems or error}"
            raise ConnectionLostError(text) from error
        # The one that answered is asked first the next time.
        self._nodes = rules.sentinels
        return address


class _SentinelNode:
    """What redis-py's `Sentinel` asks of a client of one sentinel."""

    def __init__(self, address: Address, login: Login, service: str, timeouts: Timeouts) -> None:
        self._address = address
        self._login = login
        self._service = service
        self._timeouts = timeouts
        self.problem = ""
        """The reason for which it did not answer the last time."""

    def __repr__(self) -> str:
        return str(self._address)

    async def sentinel_masters(self) -> dict[str, dict[str, Any]]:
        """Return the state of the service, if this sentinel knows it. Raises redis-py's `ConnectionError`."""
        try:
            connection = await connect(self._address, self._login, "sentinel", self._timeouts)
            try:
                # Not all masters: a user with few rights may ask for one only.
                reply = await connection.send(b"SENTINEL", b"MASTER", self._service)
            finally:
                await connection.close("asked")
            state = _state(reply)
        except (ConnectionLostError, ReplyError, ValueError) as error:
            self.problem = str(error)
            if isinstance(error, ReplyError) and "No such master" in str(error):
                return {}
            raise RedisConnectionError(self.problem) from error
        self.problem = ""
        return {self._service: state}


def _state(reply: object) -> dict[str, Any]:
    """Read names and values in turn. Raises `ValueError`."""
    listed = cast("Sequence[object]", reply) if isinstance(reply, list) else ()
    parts = [part.decode(errors="replace") for part in listed if isinstance(part, bytes)]
    fields = dict(zip(parts[::2], parts[1::2], strict=True))
    flags = fields.get("flags", "").split(",")
    return {
        "ip": fields.get("ip", ""),
        "port": int(fields.get("port", "")),
        "is_master": "master" in flags,
        "is_sdown": "s_down" in flags,
        "is_odown": "o_down" in flags,
        "num-other-sentinels": int(fields.get("num-other-sentinels", "0")),
    }
