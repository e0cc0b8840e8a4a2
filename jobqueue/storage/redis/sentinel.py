"""Finds the master through Sentinel.

Every new connection asks the sentinels anew and then asks the server itself for its role, because a
sentinel may not have noticed a failover yet. A master that was demoted refuses writes (``READONLY``) and
unblocks its waiters (``UNBLOCKED``): both make the store connect again, and so find the new one.
"""

from __future__ import annotations

import os

from jobqueue.storage.redis.connection import Connection, Login, ReplyError, connect
from jobqueue.storage.redis.connector import Timeouts
from jobqueue.storage.redis.faults import REFUSALS, ConnectionLostError
from jobqueue.storage.redis.url import Address, Target

__all__ = ["SentinelConnector"]


class SentinelConnector:
    """Connects to the master of the service that the URL names."""

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._sentinels = list(target.addresses)
        self._service = target.service
        self._login = Login(target)
        self._sentinel_login = Login(target, sentinel=True)
        self._timeouts = timeouts

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:  # noqa: ARG002
        connection = await self._connect(await self._master(), self._login, kind)
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
        problem = "no sentinel was asked"
        for sentinel in tuple(self._sentinels):
            try:
                answer = await self._ask(sentinel)
            except (ConnectionLostError, ReplyError) as error:
                problem = f"{sentinel}: {error}"
                continue
            if answer is None:
                problem = f"{sentinel} does not know a service {self._service!r}"
                continue
            # The one that answered is asked first the next time.
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return answer
        raise ConnectionLostError(f"no sentinel names a master; the last problem: {problem}")

    async def _ask(self, sentinel: Address) -> Address | None:
        connection = await self._connect(sentinel, self._sentinel_login, "sentinel")
        try:
            reply = await connection.send(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._service)
        finally:
            await connection.close("asked")
        return None if reply is None else Address(reply[0].decode(), int(reply[1]))

    async def _connect(self, address: Address, login: Login, kind: str) -> Connection:
        return await connect(
            address,
            login,
            f"jobqueue-{kind}-{os.getpid()}",
            connect_timeout=self._timeouts.connect,
            reply_timeout=self._timeouts.reply,
        )
