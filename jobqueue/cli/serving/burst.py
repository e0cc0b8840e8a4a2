"""Serves an app until there is nothing to do: for tests, cron jobs and containers that end."""

from __future__ import annotations

import asyncio

from jobqueue.app import App
from jobqueue.runtime.loggers import get_logger

__all__ = ["Burst"]

log = get_logger("jobqueue.cli")


class Burst:
    """An app that stops of itself once no job of its queues is ready and none runs here."""

    def __init__(self, app: App, timeout: float | None) -> None:
        self._app = app
        self._timeout = timeout

    @property
    def ready(self) -> bool:
        """Whether the app is."""
        return self._app.ready

    async def start(self) -> None:
        """Start the app."""
        await self._app.start()

    async def stop(self) -> None:
        """Stop the app."""
        await self._app.stop(self._timeout)

    def hurry(self) -> None:
        """Make a running or later `stop` end sooner."""
        self._app.hurry()

    async def until_broken(self) -> None:
        """Stop the app when there is nothing to do, and return then; raise what breaks it."""
        empty = asyncio.ensure_future(self._app.until_empty())
        broken = asyncio.ensure_future(self._app.until_broken())
        try:
            await asyncio.wait({empty, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                broken.result()
            else:
                empty.result()
                log.info("no job is ready: ending")
                await self.stop()
        finally:
            empty.cancel()
            broken.cancel()
