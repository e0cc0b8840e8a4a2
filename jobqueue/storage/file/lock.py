"""The lock file: who may write, and the page that tells everybody how far the journal goes.

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

from jobqueue.errors import StorageError
from jobqueue.storage.file.files import Files

__all__ = ["LockFile", "Published"]

_PAGE = struct.Struct("<4s40sQQQQqB")
_CRC = struct.Struct("<I")
_SIZE = _PAGE.size + _CRC.size
_MAGIC = b"JQp\x01"


class Published(NamedTuple):
    """The page."""

    boot: str
    """The run of the host that it is true for."""
    epoch: int
    """Changes when something that was published had to be taken back: who has another one reads all
    again."""
    generation: int
    """The journal that is written to."""
    end: int
    """How far it goes. What stands behind is not, or not yet, part of it."""
    synced: int
    """How much of it is known to be on the disk."""
    now: int
    """The latest time that a command was given."""
    suspect: bool
    """A sync has failed: what the journal holds from ``synced`` on has to be read from the disk."""

    def pack(self) -> bytes:
        page = _PAGE.pack(_MAGIC, self.boot.encode()[:40], *self[1:6], self.suspect)
        return page + _CRC.pack(zlib.crc32(page))

    @classmethod
    def parse(cls, data: bytes) -> Published | None:
        if len(data) < _SIZE or _CRC.unpack_from(data, _PAGE.size)[0] != zlib.crc32(data[: _PAGE.size]):
            return None
        magic, boot, epoch, generation, end, synced, now, suspect = _PAGE.unpack_from(data)
        if magic != _MAGIC:
            return None
        name = boot.rstrip(b"\0").decode("ascii", "replace")
        return cls(name, epoch, generation, end, synced, now, bool(suspect))


class LockFile:
    """The exclusive lock of a directory, and its page."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._fd = files.open(path, create=True)

    def close(self) -> None:
        self._files.close(self._fd)

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the lock. Whoever dies holding it lets go of it."""
        self._files.lock(self._fd)
        try:
            if not self._files.is_linked(self._fd):
                raise StorageError(
                    f"{self._path} was removed while the store was open: somebody deleted the store's "
                    "directory; close the store and open it again"
                )
            yield
        finally:
            self._files.unlock(self._fd)

    def read(self) -> Published | None:
        """Read the page; ``None`` if there is none, or another process is just writing it."""
        return Published.parse(self._files.read(self._fd, _SIZE, 0))

    def clear(self) -> None:
        """Take the page away; only with the lock."""
        self._files.write(self._fd, bytes(_SIZE), 0)

    def publish(self, page: Published) -> None:
        """Write the page; only with the lock."""
        self._files.write(self._fd, page.pack(), 0)
