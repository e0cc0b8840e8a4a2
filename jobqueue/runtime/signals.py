"""Serves until a stop signal: the first drains, the second hurries, the third ends the process at once.

All that is served at one time shares the signals. A process that a handler forks does not: it is ended by
them as any other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jobqueue.errors import JobQueueError

__all__ = ["serve_until_signal"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_before: dict[signal.Signals, Any] = {}
"""The handlers that ours have replaced, while something is served."""


class _Served:
    """One call of `serve_until_signal`, and the signals it has received."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hurry = hurry
        self.numbers: list[int] = []
        self.started = False
        self.told: asyncio.Future[None] = self._loop.create_future()
        """Done at the first signal. No task, which other code could cancel."""

    @property
    def patient(self) -> bool:
        """Whether no third signal has come, or second one before it had started: then it ends at once."""
        return len(self.numbers) <= (2 if self.started else 1)

    def take(self, number: int) -> None:
        """Receive a signal, in its handler."""
        self.numbers.append(number)
        self._loop.call_soon_threadsafe(self._tell if len(self.numbers) == 1 else self._hurry)

    def _tell(self) -> None:
        if not self.told.done():
            self.told.set_result(None)


_served: list[_Served] = []


async def serve_until_signal(
    start: Callable[[], Coroutine[Any, Any, None]],
    stop: Callable[[], Awaitable[None]],
    hurry: Callable[[], None],
    broken: Callable[[], Awaitable[None]],
) -> int | None:
    """Start, wait for SIGTERM or SIGINT, stop. Stops as well when ``broken`` raises, and raises that.

    Ends without stopping when ``broken`` returns: then somebody else has stopped what is served.
    A second signal calls ``hurry``, a third ends the process with 128 + its number.

    A signal during ``start`` cancels it, and a second one ends the process. Returns the number of the
    signal that kept it from starting, ``None`` if it has started.

    Raises `JobQueueError` outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise JobQueueError(
            "only the main thread can handle signals: call run() there, and start() and stop() in others"
        )
    served = _Served(hurry)
    with _handling(served):
        served.started = await _start(start, stop, served.told)
        if not served.started:
            return served.numbers[0]
        await _serve(served.told, stop, broken)
    return None


async def _start(
    start: Callable[[], Coroutine[Any, Any, None]],
    stop: Callable[[], Awaitable[None]],
    told: asyncio.Future[None],
) -> bool:
    """Start, and give it up when ``told`` ends first; return whether it has started."""
    starting = asyncio.create_task(start())
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if await _completed(starting):
            await stop()
        raise
    if await _completed(starting):
        return True
    if not (starting.cancelled() and told.done()):
        starting.result()  # raises its error, if it failed
    return False


async def _completed(task: asyncio.Task[None]) -> bool:
    """Cancel a task unless it has ended; return whether it has done its work."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    return not task.cancelled() and task.exception() is None


async def _serve(
    told: asyncio.Future[None], stop: Callable[[], Awaitable[None]], broken: Callable[[], Awaitable[None]]
) -> None:
    breaking = asyncio.ensure_future(broken())
    try:
        await asyncio.wait({breaking, told}, return_when=asyncio.FIRST_COMPLETED)
        while breaking.cancelled() and not told.done():  # by other code, which says nothing of the service
            breaking = asyncio.ensure_future(broken())
            await asyncio.wait({breaking, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        over = breaking.done() and not breaking.cancelled()
        breaking.cancel()
        if not over or breaking.exception() is not None:
            await stop()
    if over:
        breaking.result()


# -- the handlers -----------------------------------------------------------------------------------


@contextmanager
def _handling(served: _Served) -> Generator[None]:
    _served.append(served)
    try:
        if not _before:
            _install()
        yield
    finally:
        if _served == [served]:
            _restore()
        _served.remove(served)


def _install() -> None:
    # Not the event loop's own handlers: those wait for their turn, and a handler that blocks the loop
    # must not keep a third signal from ending the process.
    _before.update({number: signal.signal(number, _take) for number in _SIGNALS if not _ignored(number)})


def _restore() -> None:
    for number, handler in _before.items():
        # None is one that was not made by Python, which cannot put it back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _before.clear()


def _take(number: int, _frame: FrameType | None) -> None:
    for served in tuple(_served):
        served.take(number)
    if not any(served.patient for served in _served):
        os._exit(128 + number)


def _ignored(number: signal.Signals) -> bool:
    # A shell starts background jobs with SIGINT ignored: Ctrl-C is not meant for them.
    return number is signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN


def _leave_to_child() -> None:
    """In a forked child: let signals end it, and keep them from the event loop of the parent."""
    if not _before:
        return
    signal.set_wakeup_fd(-1)
    for number in _before:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    _before.clear()
    _served.clear()


os.register_at_fork(after_in_child=_leave_to_child)
