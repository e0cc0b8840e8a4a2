"""Watches Python sources for ``--reload``, through the system's notifications."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
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

from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger

__all__ = ["changes", "is_source", "source_trees"]

log = get_logger("jobqueue.cli")

SETTLE = 0.2
"""Seconds within which changes count as one: to save a file, an editor writes, renames and removes."""

_SKIPPED = {"__pycache__", "node_modules"}
_WATCHED: list[type[FileSystemEvent]] = [
    FileModifiedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
]


def source_trees(root: Path) -> list[Path]:
    """Return the directories directly below ``root`` that may hold sources.

    Hidden ones, caches and virtual environments are left out: watching every directory of a large
    environment takes seconds, and nobody edits there.
    """
    return sorted(path for path in root.iterdir() if path.is_dir() and _is_source_tree(path))


def _is_source_tree(directory: Path) -> bool:
    return not _is_skipped(directory.name) and not (directory / "pyvenv.cfg").exists()


def is_source(path: Path) -> bool:
    """Return whether a path below the watched directory is a Python file of the project."""
    return path.suffix == ".py" and not any(map(_is_skipped, path.parts))


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED


async def changes(root: Path) -> AsyncGenerator[list[Path]]:
    """Yield the files that were written, created, moved or removed, after every change."""
    watch = _Watch(root, asyncio.get_running_loop())
    try:
        await asyncio.to_thread(watch.start)
        log.info("watching the Python files below %s", root)
        while True:
            found = {await watch.changed.get()}
            await SYSTEM_CLOCK.sleep(SETTLE)
            while not watch.changed.empty():
                found.add(watch.changed.get_nowait())
            yield sorted(found)
    finally:
        watch.stop()


class _Watch(FileSystemEventHandler):
    """Passes events from the threads of `watchdog` to the event loop."""

    def __init__(self, root: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._root = root
        self._loop = loop
        self._observer = Observer()
        self.changed: asyncio.Queue[Path] = asyncio.Queue()

    def start(self) -> None:
        self._observer.schedule(self, str(self._root), event_filter=_WATCHED)
        for tree in source_trees(self._root):
            self._add(tree)
        self._observer.start()

    def stop(self) -> None:
        if self._observer.is_alive():
            self._observer.stop()

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = Path(os.fsdecode(event.src_path))
        if not event.is_directory:
            self._tell(path)
            if event.dest_path:
                self._tell(Path(os.fsdecode(event.dest_path)))
        elif path.parent == self._root and _is_source_tree(path):
            self._add(path)
            for file in path.rglob("*.py"):  # written before the watch began
                self._tell(file)

    def _add(self, tree: Path) -> None:
        try:
            self._observer.schedule(self, str(tree), recursive=True, event_filter=_WATCHED)
        except OSError as error:  # gone meanwhile, or more directories than the system watches for a user
            log.warning("%s is not watched: %s", tree, error)

    def _tell(self, path: Path) -> None:
        if is_source(path.relative_to(self._root)) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.changed.put_nowait, path)
