"""The lock file: the exclusive right to write, and the page with the published end of the journal.

The page is not synced and means nothing after a restart of the host: then it is missing, damaged or names
another boot, and the next opener writes it anew from what the journal says.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jobqueue.errors import StorageUnavailableError
from jobqueue.storage.file.disk.directory import Directory

__all__ = ["COMPACT_LOCK", "LOCK_NAME", "DisplacedError", "LockFile", "PublishedPage"]

LOCK_NAME = "lock"
COMPACT_LOCK = "compact.lock"

_PAGE = struct.Struct("<4s40sQQQQqB")
_CRC = struct.Struct("<I")
_SIZE = _PAGE.size + _CRC.size
_MAGIC = b"JQp\x01"


class DisplacedError(StorageUnavailableError):
    """The directory of an open store was moved, removed or replaced."""

    @classmethod
    def of(cls, directory: Path) -> DisplacedError:
        """Make the error for the store of a directory."""
        return cls(
            f"the store in {directory} was moved or removed while it was in use: put it back, or start a "
            "program on that path, which makes a new one; what is there then is used from there on"
        )


class PublishedPage(NamedTuple):
    """The page of the lock file."""

    boot: str
    """The boot of the host for which it is true."""
    epoch: int
    """Incremented when published data had to be undone; a process that loaded another epoch reloads."""
    generation: int
    """Generation of the journal being written."""
    end: int
    """Offset of its end. Bytes behind it are not, or not yet, part of the journal."""
    synced: int
    """Offset up to which it is known to be on the disk."""
    now: int
    """Time of the latest command."""
    suspect: bool
    """True after a failed sync: the journal from ``synced`` on has to be read from the disk."""

    def pack(self) -> bytes:
        page = _PAGE.pack(_MAGIC, self.boot.encode()[:40], *self[1:6], self.suspect)
        return page + _CRC.pack(zlib.crc32(page))

    @classmethod
    def parse(cls, data: bytes) -> PublishedPage | None:
        if len(data) < _SIZE or _CRC.unpack_from(data, _PAGE.size)[0] != zlib.crc32(data[: _PAGE.size]):
            return None
        magic, boot, epoch, generation, end, synced, now, suspect = _PAGE.unpack_from(data)
        if magic != _MAGIC:
            return None
        name = boot.rstrip(b"\0").decode("ascii", "replace")
        return cls(name, epoch, generation, end, synced, now, bool(suspect))


class LockFile:
    """The exclusive lock of a directory, and its page."""

    def __init__(self, directory: Directory, *, create: bool = True) -> None:
        self._files = directory.files
        self._directory = directory.path
        self._path = str(directory.path / LOCK_NAME)
        self._fd = directory.open_or_create(LOCK_NAME) if create else directory.open_file(LOCK_NAME)
        self._identity = self._files.identity(self._fd)

    def close(self) -> None:
        self._files.close(self._fd)

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the lock within this context; a dying process releases it. Raises `DisplacedError`."""
        self._files.lock(self._fd)
        try:
            self.check_place()
            yield
        finally:
            self._files.unlock(self._fd)

    @contextmanager
    def held_if_free(self) -> Generator[bool]:
        """Hold the lock within this context if nobody else has it; say whether. Raises `DisplacedError`."""
        held = self._files.try_lock(self._fd)
        try:
            if held:
                self.check_place()
            yield held
        finally:
            if held:
                self._files.unlock(self._fd)

    def check_place(self) -> None:
        """Raise `DisplacedError` if the path of the store no longer leads to this file."""
        if self._files.identity(self._path) != self._identity:
            raise DisplacedError.of(self._directory)

    def read(self) -> PublishedPage | None:
        """Read the page; return ``None`` if there is none, or another process is just writing it."""
        return PublishedPage.parse(self._files.read(self._fd, _SIZE, 0))

    def clear(self) -> None:
        """Erase the page; only with the lock."""
        self._files.write(self._fd, bytes(_SIZE), 0)

    def publish(self, page: PublishedPage) -> None:
        """Write the page; only with the lock."""
        self._files.write(self._fd, page.pack(), 0)
