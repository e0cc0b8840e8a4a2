"""A lock that all processes share while they have a store open, so that it shows whether there are others.

All of them have to run under one kernel, since leases and locks end with its boot, and since the page tells
the others about writes that are not synced. A process that sees another boot finds out by this lock whether
there was a restart, or whether a process of the other boot is still there.
"""

from __future__ import annotations

from jobqueue.storage.file.disk.directory import Directory

__all__ = ["Users"]

_NAME = "users"


class Users:
    """Counts this process among those that have the store open."""

    def __init__(self, directory: Directory) -> None:
        """Join them; only with the store's lock."""
        self._files = directory.files
        self._fd = directory.open_or_create(_NAME)
        try:
            self.alone = self.are_alone()
            """Whether no other process had it open."""
        except BaseException:
            self.leave()
            raise

    def are_alone(self) -> bool:
        """Return whether nobody else has it open now; only with the store's lock, so that nobody joins."""
        alone = self._files.try_lock(self._fd)
        self._files.share_lock(self._fd)
        return alone

    def leave(self) -> None:
        """Leave them, and the lock with it."""
        self._files.close(self._fd)
