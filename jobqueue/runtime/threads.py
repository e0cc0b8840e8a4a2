"""Threads: one for each call of a user's plain function, which may block, and those with an event loop.

All hand over by `call_soon_threadsafe` and by nothing else.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["start_loop", "start_thread"]


def start_thread(function: Callable[[], Any], name: str) -> asyncio.Future[tuple[bool, Any]]:
    """Call a function in a thread of its own; the future gives (raised, value or error).

    A daemon thread and no pool: an executor's threads are joined at exit, so that one function that
    never ends would keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[bool, Any]] = loop.create_future()
    context = contextvars.copy_context()

    def post(outcome: tuple[bool, Any]) -> None:
        if not future.done():
            future.set_result(outcome)

    def call() -> None:
        try:
            outcome = False, context.run(function)
        except BaseException as error:  # noqa: BLE001 - the user's code
            outcome = True, error
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(post, outcome)

    threading.Thread(target=call, name=name, daemon=True).start()
    return future


def start_loop(
    main: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[BaseException | None], None], name: str
) -> asyncio.AbstractEventLoop:
    """Run ``main`` in a daemon thread, in an event loop of its own; return that loop.

    ``ended`` is called in the thread, after its end, with what broke it. Raises `RuntimeError` if the system
    has no thread left.
    """
    # Made here, so that calls to it are kept until the thread runs it.
    loop = asyncio.new_event_loop()

    def serve() -> None:
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001 - `ended` raises it again where somebody sees it
            failure = error
        ended(failure)

    try:
        threading.Thread(target=serve, name=name, daemon=True).start()
    except RuntimeError:
        loop.close()
        raise
    return loop
