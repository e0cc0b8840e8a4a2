"""What a job saves for its next attempt: a checkpoint, and the results of steps that run once.

All of it is one value of the store, written with a renewal of the lease, so that a run which has lost its
lease can change nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from jobqueue.errors import JobQueueError, SerializationError
from jobqueue.model.checks import check_callable, check_id
from jobqueue.model.serde import MsgpackSerde, Serde, dump, load

__all__ = ["SavedState"]

_VALUE, _STEPS = "v", "s"
_WHAT = "the saved state of the job: its checkpoint and steps"


class _Begun(NamedTuple):
    """A step that runs."""

    task: asyncio.Task[Any] | None
    done: asyncio.Future[None]


class SavedState:
    """The saved state of one run, read when it is asked for first."""

    def __init__(
        self, data: bytes | None, serde: Serde[Any], max_bytes: int, write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Raise `SerializationError` if the stored bytes cannot be read."""
        self._serde = serde
        self._max_bytes = max_bytes
        self._write = write
        self._value, self._steps = _parsed(data)
        self._begun: dict[str, _Begun] = {}
        self._turn = asyncio.Lock()  # a write holds everything: a later one must not be overtaken

    def checkpoint(self) -> Any:
        """Return the last checkpoint, ``None`` if there is none."""
        return None if self._value is None else load(self._serde, self._value, "the checkpoint")

    async def save(self, value: Any) -> None:
        """Store a checkpoint in place of the last one."""
        data = dump(self._serde, value, "the checkpoint", self._max_bytes)
        async with self._turn:
            await self._store(data, self._steps)

    async def run_once(self, key: str, function: Callable[[], Any]) -> Any:
        """Call a function and store its result, or return the stored one."""
        check_id(key, "key")
        check_callable("function", function)
        while (begun := self._begun.get(key)) is not None:
            if begun.task is asyncio.current_task():
                raise JobQueueError(f"step {key!r} calls itself")
            await asyncio.wait([begun.done])  # another task of this handler has begun it
        if key in self._steps:
            return load(self._serde, self._steps[key], f"the result of step {key!r}")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun[key] = _Begun(asyncio.current_task(), done)
        try:
            value = function()
            if inspect.isawaitable(value):
                value = await value
            data = dump(self._serde, value, f"the result of step {key!r}", self._max_bytes)
            async with self._turn:
                await self._store(self._value, {**self._steps, key: data})
            return load(self._serde, data, f"the result of step {key!r}")  # as later attempts get it
        finally:
            del self._begun[key]
            done.set_result(None)

    async def _store(self, value: bytes | None, steps: dict[str, bytes]) -> None:
        packed = dump(MsgpackSerde(), {_VALUE: value, _STEPS: steps}, _WHAT, self._max_bytes)
        # Known here before it is stored: an answer that is lost or late must not make a later write drop it.
        self._value, self._steps = value, steps
        await self._write(packed)


def _parsed(data: bytes | None) -> tuple[bytes | None, dict[str, bytes]]:
    if data is None:
        return None, {}
    state: Any = load(MsgpackSerde(), data, _WHAT)
    try:
        value: Any = state[_VALUE]
        steps: dict[Any, Any] = dict(state[_STEPS])
    except (TypeError, KeyError, ValueError) as error:
        raise SerializationError(f"{_WHAT} cannot be read: {error!r}") from error
    if not (value is None or isinstance(value, bytes)) or not all(
        isinstance(key, str) and isinstance(step, bytes) for key, step in steps.items()
    ):
        raise SerializationError(f"{_WHAT} cannot be read: it is not what a job has saved")
    return value, steps
