"""One compaction, in a process of its own; `jobqueue.storage.file.upkeep.child` starts it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.upkeep.rotation import compact

__all__ = ["main"]


def main(fd: int, path: str) -> None:
    """Compact the store in an open directory, which stood at ``path``."""
    os.nice(5)  # those who wait for jobs come first
    # A program may have blocked or ignored the signals that are to end its children.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    compact(Directory(Files(), Path(path), fd))
