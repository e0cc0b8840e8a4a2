"""The directory of a store, held open.

Every operation goes by its descriptor. So a process goes on in its directory when that is moved away, and
never touches another one that is put at its path later; and a planted link cannot lead out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from jobqueue.errors import StorageError
from jobqueue.storage.file.disk.files import Files

__all__ = ["Directory"]

_ROOT = 0


class Directory:
    """An open directory and the path that it was found at. Methods raise `OSError` as the system gives it."""

    def __init__(self, files: Files, path: Path, fd: int) -> None:
        self.files = files
        self.path = path
        """For messages, and for calls that need a path. It may lead somewhere else by now."""
        self.fd = fd

    @classmethod
    def open(cls, files: Files, path: Path) -> Self:
        """Open the directory at a path, which may be a link to it."""
        return cls(files, path, files.open_dir(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory. Closing again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self.files.close(fd)

    def copy(self) -> Self:
        """Open the directory a second time, for an owner that may need it for longer."""
        return type(self)(self.files, self.path, self.files.copy_of(self.fd))

    # -- files ------------------------------------------------------------------------------------

    def open_file(self, name: str, *, write: bool = True) -> int:
        """Open a file. Raises `StorageError` if it is not a regular file, or has a name elsewhere too."""
        fd = self.files.open(self.fd, name, write=write)
        try:
            self._check(name, self.files.status(fd))
        except BaseException:
            self.files.close(fd)
            raise
        return fd

    def create_file(self, name: str) -> int:
        """Make a file. Raises `FileExistsError`."""
        fd = self.files.create(self.fd, name)
        try:
            self._share(fd)
        except BaseException:
            self.files.close(fd)
            raise
        return fd

    def open_or_create(self, name: str) -> int:
        """Open a file, or make it."""
        try:
            return self.create_file(name)
        except FileExistsError:
            return self.open_file(name)

    def create_anew(self, name: str) -> int:
        """Make a file, and remove one that has its name."""
        self.files.unlink(self.fd, name)
        return self.create_file(name)

    def _check(self, name: str, found: os.stat_result) -> None:
        path = self.path / name
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{path} is not a regular file: remove it, or use another directory")
        if found.st_nlink > 1:
            raise StorageError(
                f"{path} is a hard link, so that writing to it would change its other name too: "
                "replace it by a copy, as `cp` makes one"
            )

    def _share(self, fd: int) -> None:
        """Give a file made by root to the owner of the directory, who could not open it otherwise."""
        if self.files.status(fd).st_uid != _ROOT:
            return
        own = self.status()
        if own.st_uid != _ROOT:
            self.files.give(fd, own.st_uid, own.st_gid)

    # -- names ------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return self.files.names(self.fd)

    def stat(self, name: str) -> os.stat_result:
        return self.files.stat(self.fd, name)

    def size(self, names: Iterable[str]) -> int:
        """Add up the sizes of files, of which another process's compaction may remove some at any moment."""
        total = 0
        for name in names:
            with suppress(FileNotFoundError):
                total += self.stat(name).st_size
        return total

    def status(self) -> os.stat_result:
        """Return the owner, mode and times of the directory itself."""
        return self.files.status(self.fd)

    def space(self) -> os.statvfs_result:
        return self.files.space(self.fd)

    def rename(self, source: str, target: str, to: Directory | None = None) -> None:
        """Rename a file, or move it ``to`` another directory."""
        self.files.rename(self.fd, source, target, None if to is None else to.fd)

    def unlink(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.files.unlink(self.fd, name)

    def make_dir(self, name: str) -> Directory:
        """Make a directory in this one. Raises `FileExistsError`."""
        self.files.make_subdir(self.fd, name)
        made = Directory(self.files, self.path / name, self.files.open_subdir(self.fd, name))
        self._share(made.fd)
        return made

    def sync(self) -> None:
        """Return when the names are on the disk."""
        self.files.sync_dir(self.fd)
