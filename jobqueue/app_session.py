"""An `App` from one start to the next stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from jobqueue.client.session import worker_of
from jobqueue.maintenance.reaper import Reaper
from jobqueue.queue import Queue
from jobqueue.runtime.lifecycle import Servable, Session, runs_in
from jobqueue.runtime.loops import Home
from jobqueue.runtime.tasks import all_at_once

__all__ = ["AppSession", "AppWeb"]


class AppWeb(Servable, Protocol):
    """A dashboard that is served together with an app: `jobqueue.web.DashboardServer`."""

    def show(self, app: Any, /) -> None:
        """Show the queues of this app from the next start on."""


class AppSession(Session):
    """An app from one start to the next stop: its parts are started."""

    def __init__(
        self,
        home: Home,
        queues: Sequence[Queue[Any, Any]],
        working: Sequence[Queue[Any, Any]],
        reaper: Reaper | None,
        web: AppWeb | None,
    ) -> None:
        super().__init__("this app", "App", home)
        self._queues = queues
        self._working = working
        self._reaper = reaper
        self._web = web

    @property
    def ready(self) -> bool:
        """Whether every queue is ready, or without queues the reaper, and the dashboard accepts requests."""
        if self._web is not None and not self._web.ready:
            return False
        if self._queues:
            return all(queue.ready for queue in self._queues)
        return self._web is not None if self._reaper is None else self._reaper.ready

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a task is the run of a job here."""
        return any(runs_in(queue, task) for queue in self._queues)

    async def drain(self, timeout: float | None) -> None:
        """Stop all parts at once. None waits for another, nor misses its stop because another failed."""
        stops = [queue.stop(timeout) for queue in self._queues]
        stops += [other.stop() for other in (self._reaper, self._web) if other is not None]
        await all_at_once(stops)

    def hurry(self) -> None:
        """Give the running jobs back now, in a running or later stop."""
        for queue in self._queues:
            queue.hurry()
        if self._web is not None:
            self._web.hurry()

    async def close(self) -> None:
        """Do nothing: each part has closed the store for itself."""

    async def until_empty(self) -> None:
        """Wait until no job of the queues is ready and none runs here."""
        workers = [worker for queue in self._working if (worker := worker_of(queue)) is not None]
        while True:
            # A job of one queue may enqueue in another that was found empty before: until none did.
            before = sum(worker.claimed for worker in workers)
            at_rest = not any(worker.running for worker in workers)
            for worker in workers:
                await worker.until_empty()
            if at_rest and before == sum(worker.claimed for worker in workers):
                return

    async def until_stopped(self) -> None:
        """Wait until others have stopped every queue, or the reaper alone; raise what breaks any part."""
        parts: list[Servable] = [*self._queues]
        parts += [other for other in (self._reaper, self._web) if other is not None]
        waits = [asyncio.ensure_future(part.until_broken()) for part in parts]
        awaited = set(waits[: len(self._queues) or 1])
        try:
            left = set(waits)
            while awaited & left:
                over, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for wait in over:
                    wait.result()
        finally:
            for wait in waits:
                wait.cancel()
