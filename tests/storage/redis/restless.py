"""A store whose server forgets the scripts again and again, and whose replies get lost.

Calls also arrive once more much later, as from a lost connection that still had them on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jobqueue.errors import StorageError
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.net.scripts import Script
from jobqueue.storage.redis.net.transport import Transport

FLUSH_EVERY, LOSE_EVERY, DELAY_EVERY = 499, 7, 5
DELAYED = 3
"""Calls that are made before a copy of an earlier one arrives."""
NOT_REPEATABLE = {"purge"}
"""Scripts that give another answer when they are sent again: how much was left to do."""
REMEMBERED = {"insert", "exchange", "cancel", "set_rules", "set_ttl", "sweep"}
"""Scripts whose late copies have no effect."""


class RestlessTransport:
    """Flushes the scripts before some calls, loses the first reply of others, delivers others late."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._calls = 0
        self._sent: deque[tuple[Script, Sequence[bytes], Sequence[bytes]]] = deque(maxlen=DELAYED)
        self.flags = inner.flags

    async def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        confirm: Confirm | None = None,
    ) -> Any:
        self._calls += 1
        if self._calls % FLUSH_EVERY == 0:
            await self._inner.command(b"SCRIPT", b"FLUSH", b"ASYNC")
        if self._calls % DELAY_EVERY == 0 and len(self._sent) == DELAYED:
            with suppress(StorageError):
                await self._inner.call(*self._sent[0])
        if self._calls % LOSE_EVERY == 0 and script.name not in NOT_REPEATABLE:
            await self._inner.call(script, keys, args, confirm)
        if script.name in REMEMBERED:
            self._sent.append((script, keys, args))
        return await self._inner.call(script, keys, args, confirm)

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:
        return await self._inner.command(*command, key=key)

    async def everywhere(self, *command: bytes) -> dict[str, Any]:
        return await self._inner.everywhere(*command)

    async def close(self) -> None:
        await self._inner.close()


class RestlessRedisStorage(RedisStorage):
    """See the module."""

    async def open(self) -> None:
        await super().open()
        session = self._open_session()
        if not isinstance(session.transport, RestlessTransport):
            session.transport = session.steps._transport = RestlessTransport(session.transport)
