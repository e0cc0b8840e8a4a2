"""A transport between a store and its connections that meddles with chosen calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from jobqueue.errors import StorageUnavailableError
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.net.scripts import Script
from jobqueue.storage.redis.net.transport import Transport

Step = Callable[[], Awaitable[object]]


async def nothing() -> None:
    """Let nothing happen."""


class Meddler:
    """Loses the first reply of a script, lets something happen, and has the script sent again."""

    def __init__(self, storage: RedisStorage) -> None:
        session = storage._open_session()
        self._inner: Transport = session.transport
        self.flags = self._inner.flags
        self._lost: dict[str, Step] = {}
        self._failing: dict[str, int] = {}
        self.refused: set[bytes] = set()
        """Commands that fail."""
        self.sent: list[tuple[Script, Sequence[bytes], Sequence[bytes]]] = []
        self.replies: list[Any] = []
        session.transport = session.steps._transport = session.names._transport = self

    def lose(self, name: str, between: Step = nothing) -> None:
        """Lose the next reply of a script; then ``between`` happens before it is sent again."""
        self._lost[name] = between

    def fail(self, name: str, calls: int) -> None:
        """Have all calls of a script fail after so many, once they have been carried out."""
        self._failing[name] = calls

    def mend(self) -> None:
        """Let everything pass again."""
        self._failing.clear()
        self.refused.clear()

    async def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        confirm: Confirm | None = None,
    ) -> Any:
        name = script.name
        self.sent.append((script, keys, args))
        between = self._lost.pop(name, None)
        if between is not None:
            await self._inner.call(script, keys, args, confirm)
            await between()
        reply = await self._inner.call(script, keys, args, confirm)
        self.replies.append(reply)
        if name in self._failing:
            self._failing[name] -= 1
            if self._failing[name] < 0:
                raise StorageUnavailableError("the reply was lost, and all that were to follow")
        return reply

    async def again(self, number: int) -> Any:
        """Deliver a late copy of a call."""
        return await self._inner.call(*self.sent[number])

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:
        if command[0] in self.refused:
            raise StorageUnavailableError(f"{command[0]!r} does not get through")
        return await self._inner.command(*command, key=key)

    async def everywhere(self, *command: bytes) -> dict[str, Any]:
        return await self._inner.everywhere(*command)

    async def close(self) -> None:
        await self._inner.close()
