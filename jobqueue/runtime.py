"""The clock, ids, randomness and sleep. No other module names them.

Tests replace the `Clock` by building a store with ``clock=FakeClock()``; queues, workers and
reapers run by the clock of their store.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import re
import secrets
import socket
import string
import time as _time
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = [
    "SYSTEM_CLOCK",
    "Clock",
    "SystemClock",
    "Timer",
    "all_end",
    "apart",
    "calm_collector",
    "end_cancellation",
    "make_tuple",
    "process_mark",
    "process_name",
    "random_secret",
    "unique_id",
]

T = TypeVar("T", bound="tuple[Any, ...]")


class _MakeTuple(Protocol):
    def __call__(self, kind: type[T], fields: tuple[Any, ...], /) -> T: ...


_tuple: Any = tuple
make_tuple: _MakeTuple = _tuple.__new__
"""Build a NamedTuple of all its fields, in order, in half the time of its generated constructor.

Only for the few values that are built for every job; everywhere else, call the class.
"""


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Cancel the callback. Does nothing if it has already been called."""


@runtime_checkable
class Clock(Protocol):
    """The source of time, delays and jitter for the whole package."""

    virtual: bool
    """True if time only moves when a test moves it: no thread may wait for it."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back once in the running loop after ``delay`` seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller."""

    def uniform(self, low: float, high: float) -> float:
        """Draw a random number for jitter."""
        ...


class SystemClock:
    """The machine's clock."""

    virtual = False
    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Use the running loop's timer."""
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, seconds: float) -> None:
        """Sleep, as `asyncio.sleep` does."""
        await asyncio.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        """Draw from the process's own generator."""
        return random.uniform(low, high)  # noqa: S311 - jitter needs no secrecy


SYSTEM_CLOCK = SystemClock()


async def all_end(clock: Clock, tasks: Collection[asyncio.Task[Any]], seconds: float) -> bool:
    """Wait up to ``seconds`` for the tasks; return whether all have finished. Cancels nothing."""
    waiting = asyncio.ensure_future(asyncio.wait(tasks))

    def give_up() -> None:
        waiting.cancel()

    timer = clock.call_later(seconds, give_up)
    try:
        await asyncio.wait([waiting])
    finally:
        timer.cancel()
        waiting.cancel()
    return not waiting.cancelled()


def apart(call: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run a call in an empty context: what it leaves running carries no context variables of a request."""
    return asyncio.create_task(call, name=f"jobqueue-{name}", context=Context())


async def end_cancellation() -> None:
    """Take back what is left of a cancellation of the running task: it was not meant for what comes now."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # one that is still to be raised
    while task.uncancel():
        pass


_ALPHABET = string.ascii_letters + string.digits
_UNUSUAL = re.compile("[^A-Za-z0-9_-]")
_counter = itertools.count()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _new_prefix() -> str:
    return _random(12)


_prefix = _new_prefix()


def unique_id() -> str:
    """Return an id that no other process, thread or call gets.

    71 random bits per process and a counter: a tenth of the cost of ``uuid4`` on the enqueue path, and
    short, because a store keeps a job's id twice: with its record and in an index.
    """
    return f"{_prefix}-{next(_counter):x}"


def random_secret(size: int) -> bytes:
    """Return random bytes that nobody can guess."""
    return secrets.token_bytes(size)


def process_mark() -> str:
    """Return random text that stays the same in this process, and is another in each forked child."""
    return _prefix


def process_name() -> str:
    """Return a new name for something in this process: host, process id and eight random characters.

    Of the host only the first label, without unusual characters, and its last 40: that is where names made by
    machines differ.
    """
    host = _UNUSUAL.sub("-", socket.gethostname().partition(".")[0])[-40:].lstrip("-")
    return f"{host or 'host'}-{os.getpid()}-{_random(8)}"


def _renew_prefix() -> None:
    global _prefix  # noqa: PLW0603 - the one thing that a fork has to change
    _prefix = _new_prefix()


# A forked child shares the counter's value: only a new prefix keeps its ids apart.
os.register_at_fork(after_in_child=_renew_prefix)


def calm_collector() -> None:
    """Tune Python's cycle collector for a process that serves jobs.

    Objects that exist now are never scanned again (`gc.freeze`), and a collection waits for 50,000 new
    objects instead of 700: a worker makes many and holds few, and hardly any are in cycles. Measured on
    the memory store: a fifth more jobs per second. `jobqueue worker` calls it; call it in a process of
    your own after its imports.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
