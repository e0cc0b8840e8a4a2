"""Actions on all jobs that match, in the background: a million of them takes longer than a request may."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobqueue.errors import JobQueueError
from jobqueue.jobs import JobFilter
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.loops import Home
from jobqueue.runtime.tasks import apart
from jobqueue.web.source import Desk

__all__ = ["Act", "Bulk", "Operation"]

log = get_logger("jobqueue.web")

BATCH = 500
"""Jobs that one step reads and changes."""
MOST = 4
"""Operations that run at the same time."""
KEPT = 8
"""Operations that are shown, those that have ended included."""
SHOWN_FOR = 120.0
"""Seconds that one is shown after its end."""


@dataclass(slots=True)
class Operation:
    """One action on all jobs that match."""

    queue: str
    verb: str
    """What is done: ``cancel``."""
    what: str
    """The jobs in words."""
    total: int
    """How many there were at the beginning, at the most."""
    seen: int = 0
    done: int = 0
    ended_at: float | None = None
    error: str = ""

    @property
    def share(self) -> float:
        """The part of it that is done, from 0 to 1."""
        return min(1.0, self.seen / self.total) if self.total else 1.0


Act = Callable[[Sequence[str]], Awaitable[int]]


class Bulk:
    """The operations of a dashboard."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._operations: deque[Operation] = deque(maxlen=KEPT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._home: Home | None = None

    def running(self) -> bool:
        """Return whether one has not ended."""
        return bool(self._tasks)

    def shown(self) -> list[Operation]:
        """Return those to show, latest first."""
        now = self._now()
        return [
            each
            for each in reversed(self._operations)
            if each.ended_at is None or now - each.ended_at < SHOWN_FOR
        ]

    def facts(self) -> tuple[Any, ...]:
        """Return what tells a change."""
        return tuple((each.seen, each.done, each.ended_at) for each in self.shown())

    def start(self, desk: Desk, operation: Operation, jobs: JobFilter, act: Act) -> bool:
        """Begin; return False if too many are under way."""
        if self._home is not None and self._home.is_gone:
            self._tasks.clear()
        if len(self._tasks) >= MOST:
            return False
        self._home = Home()
        self._operations.append(operation)
        task = apart(self._run(desk, operation, jobs, act), "web-bulk")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """End those that run, where they are."""
        if self._home is None or self._home.is_gone:
            return
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, desk: Desk, operation: Operation, jobs: JobFilter, act: Act) -> None:
        try:
            await _on_all(desk, operation, jobs, act)
        except JobQueueError as error:
            operation.error = str(error)
        except BaseException as error:
            operation.error = f"it broke off: {type(error).__name__}"
            raise
        finally:
            operation.ended_at = self._now()
            desk.changed()
            log.info(
                "dashboard: %s %s of queue %s: %d jobs%s",
                operation.verb, operation.what, operation.queue, operation.done,
                f", then: {operation.error}" if operation.error else "",
            )  # fmt: skip


async def _on_all(desk: Desk, operation: Operation, jobs: JobFilter, act: Act) -> None:
    cursor: str | None = None
    # Not for ever: new ones may come as fast as these go.
    while operation.seen <= operation.total + BATCH:
        page = await desk.jobs.list(jobs, limit=BATCH, cursor=cursor)
        ids = [job.id for job in page.jobs]
        if ids:
            operation.done += await act(ids)
            operation.seen += len(ids)
        cursor = page.cursor
        if cursor is None:
            return
