"""A journal: the commands since a snapshot, in frames, at the front of a file with reserved room.

The room is reserved ahead and reads as zeros. It makes syncs cheaper, and a part of it is not given to
new jobs, so that running ones can still be completed when the disk is full.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from jobqueue.runtime.ids import unique_id
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import DISK_FULL, Files
from jobqueue.storage.file.disk.frames import (
    FORMAT,
    FRAME_SIZE,
    HEADER_SIZE,
    JOURNAL,
    Frame,
    check_header,
    find_frames,
    pack_frame,
    pack_header,
    parse_frame,
)

__all__ = ["CHUNK", "RESERVE", "Journal", "Tail", "journal_name"]

CHUNK = 2 << 20
"""Bytes by which a journal's room grows."""
RESERVE = 1 << 20
"""Bytes of room that new jobs leave for the outcomes of running ones."""
_READ = 1 << 20


def journal_name(generation: int) -> str:
    """Return the name of the journal of a generation."""
    return f"journal-{generation:010d}"


class Tail(Enum):
    """The kind of data behind the last sound frame."""

    CLEAN = "clean"
    TORN = "torn"
    """The beginning of a frame that was never reported as stored."""
    DAMAGED = "damaged"
    """A frame that had been safe on the disk."""


class Journal:
    """The open journal of one generation. The caller knows where it ends."""

    def __init__(
        self, files: Files, path: Path, generation: int, fd: int, salt: int, format: int = FORMAT
    ) -> None:
        self._files = files
        self.path = path
        self.generation = generation
        self.format = format
        """The format that its header names: who cannot read that refuses the journal."""
        self._fd = fd
        self._salt = salt
        self._room = 0  # the file's size when last looked at

    @classmethod
    def create(cls, directory: Directory, generation: int) -> Journal:
        """Make an empty journal, safe on the disk but for its name (`Directory.sync`)."""
        files, name = directory.files, journal_name(generation)
        fd = directory.create_anew(name)  # a rotation may have died after it had made the file
        try:
            salt = zlib.crc32(unique_id().encode())
            files.write(fd, pack_header(JOURNAL, generation, salt), 0)
            journal = cls(files, directory.path / name, generation, fd, salt)
            journal.make_room(HEADER_SIZE, spare=RESERVE)
            files.sync(fd)
        except BaseException:
            files.close(fd)
            raise
        return journal

    @classmethod
    def open(cls, directory: Directory, generation: int, *, write: bool = True) -> Journal:
        """Open a journal. Raises `FileNotFoundError`, and `StorageError` if it cannot be used."""
        files, name = directory.files, journal_name(generation)
        path, fd = directory.path / name, directory.open_file(name, write=write)
        try:
            header = check_header(files.read(fd, HEADER_SIZE, 0), JOURNAL, generation, path)
        except BaseException:
            files.close(fd)
            raise
        return cls(files, path, generation, fd, header.salt, header.format)

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)

    # -- reading ----------------------------------------------------------------------------------

    def frames(self, at: int, until: int | None = None) -> Iterator[Frame]:
        """Yield the sound frames from ``at`` on, up to ``until`` or the first bad one."""
        want = _READ
        while until is None or at < until:
            data = self._files.read(self._fd, want if until is None else min(want, until - at), at)
            place, base, frame = 0, at, None
            while isinstance(frame := parse_frame(data, place, base, self._salt), Frame):
                place = frame.end - base
                at = frame.end
                yield frame
            if frame is None or len(data) < want:
                return
            want = max(_READ, frame)

    def tail(self, at: int, synced: int) -> Tail:
        """Classify the data from ``at`` on; up to ``synced`` the journal is known to be on the disk."""
        data = self._files.read(self._fd, max(0, self.size() - at), at)
        if not data.strip(b"\0"):
            return Tail.DAMAGED if at < synced else Tail.CLEAN
        later = (frame.synced for frame in find_frames(data, 0, at, self._salt))
        return Tail.DAMAGED if max(synced, *later, 0) > at else Tail.TORN

    def later_frames(self, at: int) -> Iterator[Frame]:
        """Find the sound frames behind a bad one."""
        return find_frames(self._files.read(self._fd, self.size() - at, at), 0, at, self._salt)

    def is_clean(self, at: int) -> bool:
        """Return whether nothing has been written at ``at``."""
        return not self._files.read(self._fd, FRAME_SIZE, at).strip(b"\0")

    def size(self) -> int:
        return self._files.size(self._fd)

    # -- writing ----------------------------------------------------------------------------------

    def make_room(self, end: int, *, spare: int) -> bool:
        """Reserve room up to ``end`` and ``spare`` bytes more; return False if the disk has none."""
        need = end + spare
        if need <= self._room:
            return True
        self._room = self.size()
        if need <= self._room:
            return True
        try:
            self._files.reserve(self._fd, self._room, max(CHUNK, need - self._room))
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            return False
        self._room = self.size()
        return True

    def append(self, payload: bytes, at: int, synced: int) -> int:
        """Write a frame; return the offset of its end."""
        self._files.write(self._fd, pack_frame(payload, at, synced, self._salt), at)
        return at + FRAME_SIZE + len(payload)

    def sync(self) -> None:
        self._files.sync(self._fd)

    def rewrite(self, start: int, end: int) -> None:
        """Write bytes again unchanged, so that the next sync has to bring them to the disk."""
        self._files.write(self._fd, self._files.read(self._fd, end - start, start), start)

    def cut(self, at: int) -> None:
        """Erase everything from ``at`` on, but keep the room for it: the disk may be full."""
        try:
            self._files.write(self._fd, bytes(max(0, self.size() - at)), at)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self._files.truncate(self._fd, at)
            self._room = at

    def forget_cache(self) -> None:
        self._files.forget_cache(self._fd)
