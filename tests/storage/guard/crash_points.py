"""A process that dies by SIGKILL at the n-th thing that it sends, to whichever server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio import selector_events
from collections.abc import Callable, Coroutine
from typing import Any

PLACES = ("before", "sent")
"""The server never gets it; it does, and nobody reads its answer."""
MOST = 200
"""Things that one comparison may send."""


def every_point(
    prepare: Callable[[], Coroutine[Any, Any, None]],
    compare: Callable[[Callable[[], None]], Coroutine[Any, Any, None]],
    check: Callable[[str], Coroutine[Any, Any, None]],
    place: str,
) -> int:
    """Kill a comparison at each thing that it sends; return how many these are.

    Each time all is prepared anew, and checked afterwards. ``compare`` gets a function that it calls when it
    begins: what is sent before does not count.
    """
    for at in range(1, MOST):
        asyncio.run(prepare())
        killed = _compare_in_child(compare, at, place)
        asyncio.run(check(f"killed at {at}, {place}" if killed else "not killed"))
        if not killed:
            return at - 1
    raise AssertionError("it never comes to its end")


def _compare_in_child(
    compare: Callable[[Callable[[], None]], Coroutine[Any, Any, None]], at: int, place: str
) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(compare(lambda: _die_at(at, place)))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}, "it failed, and was not killed"
    return code != 0


def _die_at(at: int, place: str) -> None:
    """Have this process die at the ``at``-th write to a connection from now on."""
    sent = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(*args: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent == at and place == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = write(*args)
            if sent == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return written

    transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    transport.write = dying(transport.write)
    transport.writelines = lambda self, parts: self.write(b"".join(parts))
    sockets: Any = socket.socket
    sockets.sendall = dying(sockets.sendall)
