"""A store whose server forgets the scripts again and again, and whose replies get lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.confirm import Confirm
from jobqueue.storage.redis.scripts import Script
from jobqueue.storage.redis.transport import Transport

FLUSH_EVERY, LOSE_EVERY = 499, 7
INSERT_FIXED = 6
"""Arguments of insert before the ids."""
REPEATABLE = {"insert", "exchange", "extend", "get", "scan", "counts", "keep", "lock_acquire", "lock_renew"}
"""Scripts that give the same answer when they are sent again. The others only have no further effect."""


def _answers_alike(script: Script, args: Sequence[bytes]) -> bool:
    """Whether a call that is sent again has the very same answer.

    Not so for an insert that names an id twice: its first may find an ended job, which its second replaces.
    Sent again, the first finds the new job, as it would have a moment later.
    """
    ids = args[INSERT_FIXED : (INSERT_FIXED + len(args)) // 2]
    return script.name in REPEATABLE and (script.name != "insert" or len(set(ids)) == len(ids))


class RestlessTransport:
    """Flushes the scripts before some calls, and loses the first reply of others."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._calls = 0
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
        if self._calls % LOSE_EVERY == 0 and _answers_alike(script, args):
            await self._inner.call(script, keys, args, confirm)
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
