"""Checksummed frames, the parts of journals and snapshots.

    file   = header frame*
    header = magic(4) format(u16) engine(u16) generation(u64) salt(u32) crc32(u32)
    frame  = magic(4) length(u32) offset(u64) synced(u64) crc32(u32) payload(length)

A frame knows where it stands (``offset``) and is sealed with the ``salt`` of its file, so that bytes of
another place or file never pass for it. ``synced`` is the offset up to which the file was known to be
on the disk when the frame was written. It tells damage from a cut: a bad frame below the ``synced`` of
a later good one had been safe and is *damaged*; any other bad frame was still being written.

All numbers are little-endian. Nothing here does I/O.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobqueue.errors import StorageError

__all__ = [
    "FORMAT",
    "FRAME_SIZE",
    "HEADER_SIZE",
    "JOURNAL",
    "SNAPSHOT",
    "Frame",
    "Header",
    "check_header",
    "find_frames",
    "pack_frame",
    "pack_header",
    "parse_frame",
    "parse_header",
]

FORMAT = 2
"""Changes with the layout of the files: rises with every release that writes what the one before cannot read.

1: 0.1.0. 2: jobs with optional fields, documents, revival, rules of queues. All that 1 wrote is valid in
2 and means the same.
"""
_READ_FORMATS = frozenset({1, 2})
ENGINE = 1
"""Changes when the state machine answers the same calls in another way: then an old journal must not
be replayed by it."""
JOURNAL, SNAPSHOT = b"JQj\x01", b"JQs\x01"

_HEADER = struct.Struct("<4sHHQI")
_FRAME = struct.Struct("<4sIQQ")
_CRC = struct.Struct("<I")
_MAGIC = b"\xf5JQ\x0a"
HEADER_SIZE = _HEADER.size + _CRC.size
FRAME_SIZE = _FRAME.size + _CRC.size


class Header(NamedTuple):
    """The head of a file."""

    kind: bytes
    format: int
    engine: int
    generation: int
    salt: int

    def check_readable(self, file: Path | str) -> None:
        """Raise `StorageError` if this version of the store cannot read the file."""
        if self.format in _READ_FORMATS and self.engine == ENGINE:
            return
        if self.format > FORMAT or self.engine > ENGINE:
            remedy = "use that version, or a later one, for all processes of this store"
        else:
            remedy = "open and close the store with a version between the two first"
        raise StorageError(
            f"{file} was written by another version of jobqueue, in format {self.format}.{self.engine}; this "
            f"version reads up to format {FORMAT}.{ENGINE}: {remedy}"
        )


class Frame(NamedTuple):
    """A frame that passed its checks."""

    offset: int
    end: int
    synced: int
    payload: bytes


def pack_header(kind: bytes, generation: int, salt: int) -> bytes:
    """Return the bytes of a file's head."""
    head = _HEADER.pack(kind, FORMAT, ENGINE, generation, salt)
    return head + _CRC.pack(zlib.crc32(head))


def parse_header(data: bytes, kind: bytes) -> Header | None:
    """Read a header; return ``None`` if it is of another kind or damaged."""
    if len(data) < HEADER_SIZE:
        return None
    head = data[: _HEADER.size]
    header = Header._make(_HEADER.unpack(head))
    if header.kind != kind or _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(head):
        return None
    return header


def check_header(data: bytes, kind: bytes, generation: int, path: Path) -> Header:
    """Return the header of a file that can be read; else raise `StorageError`."""
    header = parse_header(data, kind)
    if header is None or header.generation != generation:
        raise StorageError(f"{path} has a damaged header: run `jobqueue fsck --repair`")
    header.check_readable(path)
    return header


def pack_frame(payload: bytes, offset: int, synced: int, salt: int) -> bytes:
    """Return the bytes of a frame for the place ``offset``."""
    head = _FRAME.pack(_MAGIC, len(payload), offset, synced)
    return b"".join((head, _CRC.pack(zlib.crc32(payload, zlib.crc32(head, salt))), payload))


def parse_frame(data: bytes, place: int, base: int, salt: int) -> Frame | int | None:
    """Read the frame at ``data[place:]``, where ``data`` begins at offset ``base`` of its file.

    ``None``: there is no sound frame; an int: there may be one, of so many bytes, and data is missing.
    """
    if len(data) - place < FRAME_SIZE:
        return FRAME_SIZE
    magic, length, offset, synced = _FRAME.unpack_from(data, place)
    if magic != _MAGIC or offset != base + place:
        return None
    start = place + FRAME_SIZE
    if len(data) - start < length:
        return FRAME_SIZE + int(length)
    payload = data[start : start + length]
    head = data[place : place + _FRAME.size]
    if _CRC.unpack_from(data, place + _FRAME.size)[0] != zlib.crc32(payload, zlib.crc32(head, salt)):
        return None
    return Frame(offset, base + start + length, synced, payload)


def find_frames(data: bytes, place: int, base: int, salt: int) -> Iterator[Frame]:
    """Find the sound frames anywhere from ``place`` on, behind a bad one."""
    while (place := data.find(_MAGIC, place)) >= 0:
        frame = parse_frame(data, place, base, salt)
        if isinstance(frame, Frame):
            yield frame
            place = frame.end - base
        else:
            place += 1
