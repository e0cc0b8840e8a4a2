"""Notices a blocked event loop, from another thread.

The thread posts a callback into the loop on every round. A callback that has not run by the next round
means that a handler, or anything else, keeps the loop from turning; the stack of the loop's thread shows
where. Code that holds the interpreter lock all the time stops the watching thread too, and is noticed
only when it lets go.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from contextlib import suppress

from jobqueue.runtime.clock import Clock
from jobqueue.runtime.loggers import get_logger

__all__ = ["LoopWatch"]

log = get_logger("jobqueue")

SECOND_CHANCE = 0.05
"""Seconds a loop that looks blocked gets to answer: after a pause of the whole process it wakes late."""
DEEPEST = 20
"""Innermost frames to show."""


class LoopWatch:
    """Warns once per blockage, with the stack, when the loop did not answer for a while.

    Made in the thread that runs ``loop``; `look` is called from another, by one or several tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._what = ""
        """Name in the warning: the first worker that noticed."""
        self._thread = threading.get_ident()
        self._asked: float | None = None
        """Instant of the callback that has not run yet."""
        self._warned = False

    async def look(self, bound: float, what: str) -> None:
        """Post a callback, or check whether the last one has run; call it every ``bound`` seconds or so.

        Warns on behalf of ``what`` if the loop did not answer for ``bound`` seconds.
        """
        if self._asked is None:
            self._ask()
        elif not self._warned and self._clock.monotonic() - self._asked >= bound:
            await self._clock.sleep(SECOND_CHANCE)
            self._warn(what)

    def _ask(self) -> None:
        self._warned = False
        self._asked = self._clock.monotonic()
        with suppress(RuntimeError):  # the loop has closed: nobody is blocked any more
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        asked, self._asked = self._asked, None
        if self._warned and asked is not None:
            blocked = self._clock.monotonic() - asked
            log.warning("%s: the event loop turns again after %.3g s", self._what, blocked)

    def _warn(self, what: str) -> None:
        if self._warned:  # another task was faster
            return
        asked = self._asked
        # The documented way to see another thread's stack.
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if asked is None or frame is None:
            return
        self._warned, self._what = True, what
        log.warning(
            "%s: the event loop has been blocked for %.3g s. Leases are renewed meanwhile, but nothing else "
            "goes on: use a plain function as handler, which runs in a thread, or await. It stands at:\n%s",
            what, self._clock.monotonic() - asked,
            "".join(traceback.format_stack(frame, limit=DEEPEST)).rstrip(),
        )  # fmt: skip
