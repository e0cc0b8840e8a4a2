"""Wake-ups between processes: a writer touches a file, and the system tells every process that watches it.

On Linux `inotify_simple`, which adds no thread: 0.02 ms of a wake-up. Elsewhere `watchdog`, with three
threads and 0.13 ms. Where neither works, the file is looked at often.

Wake-ups are hints: `RESCAN` bounds what a lost one costs.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.file.disk.directory import Directory

__all__ = ["LOOK_INTERVAL", "RESCAN", "Bell", "Watcher", "watch"]

log = get_logger("jobqueue.storage.file")
RESCAN = 1.0
"""Seconds after which others' writes are looked for without a wake-up."""
LOOK_INTERVAL = 0.02
"""The same where no wake-ups come."""
_WAKE_NAME = "wake"


class Watcher(Protocol):
    """Becomes readable when another process has written."""

    interval: float
    """Seconds after which to look all the same."""

    def fileno(self) -> int | None:
        """Return the descriptor to poll; ``None`` if there is none."""
        ...

    def clear(self) -> None:
        """Consume the wake-ups so far."""

    def close(self) -> None: ...


class _Inotify:
    interval = RESCAN

    def __init__(self, path: Path) -> None:
        # Exists on Linux only, and has no types.
        from inotify_simple import INotify, flags  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs]

        self._inotify: Any = INotify(nonblocking=True)
        try:
            self._inotify.add_watch(path, flags.MODIFY)
        except OSError:
            self._inotify.close()
            raise

    def fileno(self) -> int:
        number: int = self._inotify.fileno()
        return number

    def clear(self) -> None:
        # Not `read()` of the package: it parses events that nobody looks at.
        with suppress(BlockingIOError):
            while len(os.read(self.fileno(), 65_536)) == 65_536:
                pass

    def close(self) -> None:
        self._inotify.close()


class _Watchdog:
    interval = RESCAN

    def __init__(self, path: Path) -> None:
        # Not at the head: on Linux nobody needs it, and it takes 30 ms to import.
        from watchdog.events import (  # noqa: PLC0415
            FileModifiedEvent,
            FileSystemEvent,
            FileSystemEventHandler,
        )
        from watchdog.observers import Observer  # noqa: PLC0415

        self._readable, self._writable = os.pipe()
        for end in (self._readable, self._writable):
            os.set_blocking(end, False)
        writable, watched = self._writable, os.fsencode(path)

        class Tell(FileSystemEventHandler):
            def on_modified(self, event: FileSystemEvent) -> None:
                # A full pipe wakes its reader as well.
                if os.fsencode(event.src_path) == watched:
                    with suppress(BlockingIOError):
                        os.write(writable, b"!")

        self._observer = Observer()
        # Without the filter, a wake-up that comes together with a move would be held back for 500 ms.
        self._observer.schedule(Tell(), str(path.parent), event_filter=[FileModifiedEvent])
        try:
            self._observer.start()
        except OSError:
            self._close_pipe()
            raise

    def fileno(self) -> int:
        return self._readable

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while len(os.read(self._readable, 65_536)) == 65_536:
                pass

    def close(self) -> None:
        self._observer.stop()
        self._observer.join()
        self._close_pipe()

    def _close_pipe(self) -> None:
        os.close(self._readable)
        os.close(self._writable)


class _Nothing:
    interval = LOOK_INTERVAL

    def fileno(self) -> None:
        return None

    def clear(self) -> None:
        return None

    def close(self) -> None:
        return None


class Bell:
    """Wakes other processes by touching a file, and watches that file for their touches."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._files = directory.files
        self._fd = directory.open_or_create(_WAKE_NAME)
        self._watcher = watch(directory.path / _WAKE_NAME)

    @property
    def interval(self) -> float:
        """Seconds after which to look all the same."""
        return self._watcher.interval

    def fileno(self) -> int | None:
        """Return the descriptor to poll; ``None`` if there is none."""
        return self._watcher.fileno()

    def hush(self) -> None:
        """Consume the wake-ups so far."""
        self._watcher.clear()

    def ring(self) -> None:
        """Wake the other processes."""
        try:
            self._files.write(self._fd, b"\0", 0)
        except OSError as error:  # a hint: the others look by themselves within a second
            log.warning("other processes could not be woken: %s", error)

    def close(self) -> None:
        self._watcher.close()
        self._files.close(self._fd)


def watch(path: Path) -> Watcher:
    """Watch a file with the best means that this system has."""
    try:
        return _Inotify(path) if sys.platform == "linux" else _Watchdog(path)
    except OSError as error:
        log.warning(
            "%s cannot be watched (%s): looking at it every %d ms instead; "
            "on Linux, raise fs.inotify.max_user_instances",
            path,
            error,
            LOOK_INTERVAL * 1000,
        )
    return _Nothing()
