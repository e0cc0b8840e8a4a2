"""Serves until stopped, and keeps health probes and process managers informed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.health import health_server
from jobqueue.cli.notify import Notifier
from jobqueue.runtime import SYSTEM_CLOCK
from jobqueue.signals import serve_until_signal

__all__ = ["Service", "serve"]

EAGER = 0.05
"""Seconds between two looks while a change is awaited."""
CALM = 1.0
"""Seconds between two looks otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A worker, a reaper, or a fleet of processes."""

    start: Callable[[], Coroutine[Any, Any, None]]
    stop: Callable[[], Awaitable[None]]
    hurry: Callable[[], None]
    until_broken: Callable[[], Awaitable[None]]
    ready: Callable[[], bool]


def together(main: Service, other: Service) -> Service:
    """Return both as one service, which is ready when ``main`` is."""

    async def start() -> None:
        await main.start()
        try:
            await other.start()
        except BaseException:
            await main.stop()
            raise

    async def stop() -> None:
        # Neither waits for the other, nor misses its stop because the other failed.
        ends = await asyncio.gather(main.stop(), other.stop(), return_exceptions=True)
        for error in filter(None, ends):
            raise error

    def hurry() -> None:
        main.hurry()
        other.hurry()

    async def until_broken() -> None:
        waits = [asyncio.ensure_future(service.until_broken()) for service in (main, other)]
        try:
            over, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for wait in over:
            wait.result()
        if waits[0] in over:  # somebody else has stopped it
            await other.stop()

    return Service(start=start, stop=stop, hurry=hurry, until_broken=until_broken, ready=main.ready)


async def serve(service: Service, notifiers: Sequence[Notifier], host: str, port: int | None) -> None:
    """Start, serve until SIGTERM or SIGINT, stop.

    Raises the error that broke it, and `Failure` if Ctrl-C came before it had started.
    """

    async def stop() -> None:
        watching.cancel()
        for notifier in notifiers:
            notifier.tell("STOPPING=1", "STATUS=stopping")
        await service.stop()

    async with health_server(host, port, service.ready):
        watching = asyncio.create_task(_watch(service, notifiers), name="jobqueue-watch")
        following = [asyncio.create_task(notifier.follow()) for notifier in notifiers]
        try:
            number = await serve_until_signal(service.start, stop, service.hurry, service.until_broken)
        finally:
            for task in (watching, *following):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    if number == signal.SIGINT:
        raise Failure("interrupted", Exit.INTERRUPTED)


async def _watch(service: Service, notifiers: Sequence[Notifier]) -> None:
    """Report every change of readiness, and that the event loop turns."""
    limits = [notifier.watchdog for notifier in notifiers if notifier.watchdog is not None]
    calm = min([CALM, *(limit / 3 for limit in limits)])
    told: bool | None = None
    while True:
        ready = service.ready()
        for notifier in notifiers:
            if ready and told is None:
                notifier.tell("READY=1")
            if ready is not told and (ready or told is not None):
                notifier.tell(f"X_READY={int(ready)}", f"STATUS={'ready' if ready else 'not ready'}")
            if notifier.watchdog is not None:
                notifier.tell("WATCHDOG=1")
        if ready or told is not None:
            told = ready
        await SYSTEM_CLOCK.sleep(min(EAGER, calm) if not ready else calm)
