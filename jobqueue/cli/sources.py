"""Watching Python sources, for ``--reload``: the times of the files, looked at twice a second."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from jobqueue.runtime import SYSTEM_CLOCK

__all__ = ["changed_file", "changes", "snapshot"]

log = logging.getLogger("jobqueue.cli")

INTERVAL = 0.5

Snapshot = dict[str, tuple[int, int]]


def snapshot(root: Path) -> Snapshot:
    """Return time and size of every Python file below ``root``.

    Hidden directories, caches and virtual environments are left out: nobody edits there.
    """
    found: Snapshot = {}
    for directory, names, files in os.walk(root):
        if "pyvenv.cfg" in files:
            names.clear()
            continue
        names[:] = [name for name in names if not name.startswith(".") and name not in _SKIPPED]
        for file in files:
            if file.endswith(".py"):
                path = str(Path(directory, file))
                try:
                    known = Path(path).stat()
                except OSError:  # gone between the listing and the look, as editors do it
                    continue
                found[path] = known.st_mtime_ns, known.st_size
    return found


_SKIPPED = {"__pycache__", "node_modules"}


def changed_file(before: Snapshot, after: Snapshot) -> str | None:
    """Return the first path that was written, created or removed."""
    return min((path for path, _ in before.items() ^ after.items()), default=None)


async def changes(root: Path) -> AsyncGenerator[str]:
    """Yield the path of one changed file after every change."""
    before = await asyncio.to_thread(snapshot, root)
    log.info("watching %d Python files below %s", len(before), root)
    while True:
        await SYSTEM_CLOCK.sleep(INTERVAL)
        after = await asyncio.to_thread(snapshot, root)
        path = changed_file(before, after)
        before = after
        if path is not None:
            yield path
