"""Serves until stopped, and keeps health probes and process managers informed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.serving.health import Exporter, health_server
from jobqueue.cli.serving.notify import Notifier
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.lifecycle import Servable
from jobqueue.runtime.signals import serve_until_signal

__all__ = ["serve"]

EAGER = 0.05
"""Seconds between two looks while a change is awaited."""
CALM = 1.0
"""Seconds between two looks otherwise."""


async def serve(
    service: Servable,
    stop: Callable[[], Awaitable[None]],
    notifiers: Sequence[Notifier],
    host: str,
    port: int | None,
    metrics: Exporter | None = None,
) -> None:
    """Start, serve until SIGTERM or SIGINT, then call ``stop``.

    Raises the error that broke it, and `Failure` if Ctrl-C came before it had started.
    """

    async def end() -> None:
        watching.cancel()
        for notifier in notifiers:
            notifier.tell("STOPPING=1", "STATUS=stopping")
        await stop()

    async with health_server(host, port, lambda: service.ready, metrics):
        watching = asyncio.create_task(_watch(service, notifiers), name="jobqueue-watch")
        following = [asyncio.create_task(notifier.follow()) for notifier in notifiers]
        try:
            number = await serve_until_signal(service.start, end, service.hurry, service.until_broken)
        finally:
            for task in (watching, *following):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    if number == signal.SIGINT:
        raise Failure("interrupted", Exit.INTERRUPTED)


async def _watch(service: Servable, notifiers: Sequence[Notifier]) -> None:
    """Report every change of readiness, and that the event loop turns."""
    limits = [notifier.watchdog for notifier in notifiers if notifier.watchdog is not None]
    calm = min([CALM, *(limit / 3 for limit in limits)])
    told: bool | None = None
    while True:
        ready = service.ready
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
