"""Runs the coroutine of a command: Ctrl-C cancels it, a second one ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from jobqueue.cli import interrupts

__all__ = ["run", "run_fast"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on the event loop of asyncio. Raises `KeyboardInterrupt`."""
    return _run(lambda: asyncio.run, main)


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop if it is installed, on asyncio if not. Raises `KeyboardInterrupt`."""
    return _run(_runner, main)


def _run(choose: Callable[[], Callable[[Coroutine[Any, Any, T]], T]], main: Coroutine[Any, Any, T]) -> T:
    try:
        # Chosen before it runs: an error raised while the missing import is handled would show that too.
        runner = choose()
        whole = _interruptible(main)
        try:
            return runner(whole)
        finally:
            whole.close()
    finally:  # Ctrl-C may come before the loop has begun it, or is imported: Python would warn of it
        main.close()


def _runner() -> Callable[[Coroutine[Any, Any, T]], T]:
    try:
        import uvloop  # optional
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _interruptible(main: Coroutine[Any, Any, T]) -> T:
    # Not the handler of asyncio: its second Ctrl-C raises amid any code, some of which then never ends.
    loop, task, before = asyncio.get_running_loop(), asyncio.current_task(), signal.getsignal(signal.SIGINT)
    assert task is not None
    interrupted, owner = False, os.getpid()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if os.getpid() != owner:  # a handler has forked: that process has a life of its own
            signal.default_int_handler(number, frame)
        interrupted = True
        signal.signal(signal.SIGINT, interrupts.leave)
        loop.call_soon_threadsafe(task.cancel)

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        return await main
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if not interrupted:
            signal.signal(signal.SIGINT, before)
