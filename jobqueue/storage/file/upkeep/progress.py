"""Measures the progress of reading a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobqueue.storage.file.disk.directory import Directory

__all__ = ["Meter", "Progress"]

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes to read; with both equal when all is read."""


class Meter:
    """Adds up the bytes read from some files. Raises `FileNotFoundError` if one is gone."""

    def __init__(self, directory: Directory, names: Sequence[str], progress: Progress | None) -> None:
        self._progress = progress
        self._total = 0 if progress is None else sum(directory.stat(name).st_size for name in names)
        self._done = 0

    def advance(self, size: int) -> None:
        """Count so many bytes more."""
        if self._progress is not None:
            # Never all of it before the end: others may have written more since.
            self._done = min(self._done + size, self._total - 1)
            self._progress(self._done, self._total)

    def finish(self) -> None:
        """Report the end. Bytes not read are reserved room without data."""
        if self._progress is not None:
            self._progress(self._total, self._total)
