"""Shows progress while a large store is loaded."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from jobqueue.cli.output import console
from jobqueue.cli.serving.notify import LINK_VARIABLE
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.capabilities import ReportsLoading
from jobqueue.storage.contract import Storage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Reading", "announced"]

log = get_logger("jobqueue.cli")

SILENT = 0.3
"""Seconds of loading before anything is shown."""
REDRAWN = 0.1
"""Seconds between two redraws of the bar."""
LOGGED = 5.0
"""Seconds between two log lines."""


def announced(storage: Storage) -> Storage:
    """Show on stderr the progress of a store that takes long to load; return the store.

    As a bar on a terminal, which is gone afterwards, and as lines of the log elsewhere.
    """
    if isinstance(storage, ReportsLoading):
        reading = Reading(bar=_can_draw())
        storage.report_loading(reading.tell)
        context = click.get_current_context(silent=True)
        if context is not None:
            context.call_on_close(reading.close)  # were it to end in the middle
    return storage


def _can_draw() -> bool:
    # The processes of a fleet have one terminal: their bars would overwrite each other.
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and LINK_VARIABLE not in os.environ


class Reading:
    """The progress shown for one store. Updated by the thread that reads, closed by any."""

    def __init__(self, *, bar: bool, clock: Clock = SYSTEM_CLOCK) -> None:
        self._bar = bar
        self._clock = clock
        self._guard = threading.Lock()
        self._began: float | None = None
        self._next = 0.0
        self._spoke = self._closed = False
        self._shown: tuple[Progress, TaskID] | None = None

    def tell(self, done: int, total: int) -> None:
        """Update the bytes read and the bytes to read."""
        # A terminal that has gone away is no reason not to open a store.
        with self._guard, suppress(OSError):
            now = self._clock.monotonic()
            if self._began is None:
                self._began, self._next = now, now + SILENT
            if self._closed:
                return
            if done >= total:
                self._end(now - self._began)
            elif now >= self._next:
                self._next = now + (REDRAWN if self._bar else LOGGED)
                self._spoke = True
                if self._bar:
                    self._draw(done, total)
                else:
                    log.info("reading the store: %.0f %% of %.0f MB", 100 * done / total, total / 1e6)

    def close(self) -> None:
        """Remove the bar and show nothing more."""
        with self._guard, suppress(OSError):
            self._closed = True
            self._erase()

    def _end(self, seconds: float) -> None:
        self._erase()
        if self._spoke and not self._bar:
            log.info("the store is read, in %.1f s", seconds)
        self._began, self._spoke = None, False  # it is read again if it falls far behind

    def _erase(self) -> None:
        if self._shown is not None:
            progress, self._shown = self._shown[0], None
            progress.stop()

    def _draw(self, done: int, total: int) -> None:
        if self._shown is None:
            self._shown = _begin(done, total)
        progress, task = self._shown
        progress.update(task, completed=done, total=total, refresh=True)


def _begin(done: int, total: int) -> tuple[Progress, TaskID]:
    from rich.progress import (  # a tenth of a second that most openings do not need
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task("Reading the store", completed=done, total=total)
    progress.start()
    return progress, task
