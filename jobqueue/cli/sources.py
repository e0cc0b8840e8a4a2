"""Watches Python sources for ``--reload``, through the system's notifications."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from jobqueue.runtime import SYSTEM_CLOCK

__all__ = ["changes", "is_source", "source_directories"]

log = logging.getLogger("jobqueue.cli")

SETTLE = 0.2
"""Seconds that one save may take: an editor writes, renames and removes, and that is one change."""

_SKIPPED = {"__pycache__", "node_modules"}
_WATCHED = [FileModifiedEvent, FileCreatedEvent, FileMovedEvent, FileDeletedEvent, DirCreatedEvent]


def source_directories(root: Path) -> list[Path]:
    """Return ``root`` and the directories below it in which people edit.

    Hidden directories, caches and virtual environments are left out.
    """
    found: list[Path] = []
    for directory, names, files in os.walk(root):
        if "pyvenv.cfg" in files:
            names.clear()
            continue
        names[:] = [name for name in names if not _is_skipped(name)]
        found.append(Path(directory))
    return found


def is_source(path: str) -> bool:
    """Tell whether a path names a Python file that somebody edits."""
    return path.endswith(".py") and not Path(path).name.startswith(".")


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED


async def changes(root: Path) -> AsyncGenerator[str]:
    """Yield the path of one changed file after every change."""
    loop = asyncio.get_running_loop()
    paths: asyncio.Queue[str] = asyncio.Queue()
    observer: BaseObserver = Observer()
    handler = _Handler(
        on_source=lambda path: _from_thread(loop, paths, path),
        on_directory=lambda path: _watch_new(observer, handler, Path(path)),
    )
    try:
        count = await asyncio.to_thread(_watch_all, observer, handler, root)
        observer.start()
        log.info(
            "watching the Python files of %d %s below %s",
            count,
            "directory" if count == 1 else "directories",
            root,
        )
        while True:
            path = await paths.get()
            await SYSTEM_CLOCK.sleep(SETTLE)
            while not paths.empty():
                paths.get_nowait()
            yield path
    finally:
        observer.unschedule_all()
        if observer.is_alive():
            observer.stop()


class _Handler(FileSystemEventHandler):
    """Picks the events of sources, and those of new directories, in which there may be more."""

    def __init__(self, *, on_source: Callable[[str], None], on_directory: Callable[[str], object]) -> None:
        self._on_source = on_source
        self._on_directory = on_directory

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.is_directory:
            path = os.fsdecode(event.src_path)
            if not _is_skipped(Path(path).name):
                self._on_directory(path)
            return
        for end in (event.src_path, event.dest_path):
            path = os.fsdecode(end)
            if is_source(path):
                self._on_source(path)
                return


def _watch_all(observer: BaseObserver, handler: _Handler, root: Path) -> int:
    directories = source_directories(root)
    for directory in directories:
        try:
            observer.schedule(handler, str(directory), event_filter=_WATCHED)
        except OSError as error:  # gone meanwhile, or more directories than the system watches for a user
            log.warning("%s is not watched: %s", directory, error)
    return len(directories)


def _watch_new(observer: BaseObserver, handler: _Handler, directory: Path) -> None:
    _watch_all(observer, handler, directory)
    # What was written before the watch began tells nobody.
    for path in directory.rglob("*.py"):
        handler.on_any_event(FileCreatedEvent(str(path)))


def _from_thread(loop: asyncio.AbstractEventLoop, paths: asyncio.Queue[str], path: str) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(paths.put_nowait, path)
