"""The files of the demo and the work that is done on each."""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote_from_bytes, unquote_to_bytes

from jobqueue.model.checks import MAX_ID_BYTES

__all__ = [
    "MAX_BYTES",
    "Answer",
    "File",
    "Found",
    "Tally",
    "default_directory",
    "find_files",
    "job_id",
    "measure",
    "pack",
    "unpack",
]

MAX_BYTES = 16 * 1024 * 1024
"""Larger files are left out."""

_SKIPPED = {"__pycache__", "site-packages", "dist-packages"}


class Answer(TypedDict):
    """The numbers computed for a file, the same as those of ``sha256sum`` and ``wc``."""

    sha256: str
    lines: int
    words: int
    bytes: int


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when the demo began."""

    path: Path
    modified: int
    """Nanoseconds since the epoch."""
    size: int

    def changed(self) -> bool:
        """Whether it is another file by now, so that two looks at it may differ."""
        try:
            known = self.path.lstat()
        except OSError:
            return True
        return (known.st_mtime_ns, known.st_size) != (self.modified, self.size)


@dataclass(slots=True)
class Found:
    """The files below a directory."""

    root: Path
    files: list[File] = field(default_factory=list[File])
    skipped: Counter[str] = field(default_factory=Counter[str])
    """How many were left out, by reason."""
    more: bool = False
    """Whether there are more than were asked for."""


def default_directory() -> Path:
    """Return the directory of Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_files(root: Path, limit: int) -> Found:
    """List up to ``limit`` regular files below ``root``, without links, hidden and cache directories."""
    found = Found(root)
    for path in _walk(found):
        try:
            known = path.lstat()
        except OSError:
            found.skipped["unreadable"] += 1
            continue
        if not stat.S_ISREG(known.st_mode):
            found.skipped["not a regular file"] += 1
        elif known.st_size > MAX_BYTES:
            found.skipped["too large"] += 1
        elif len(found.files) == limit:
            found.more = True
            break
        else:
            found.files.append(File(path, known.st_mtime_ns, known.st_size))
    return found


def _walk(found: Found) -> Iterator[Path]:
    def unreadable(_error: OSError) -> None:
        found.skipped["unreadable"] += 1

    for directory, names, files in os.walk(found.root, onerror=unreadable):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _SKIPPED)
        for file in sorted(files):
            yield Path(directory, file)


def measure(path: Path) -> Answer:
    """Digest and count one file, as bytes: any content will do. Raises `OSError`."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "lines": data.count(b"\n"),
        "words": len(data.split()),
        "bytes": len(data),
    }


class Tally:
    """The same numbers from a file that comes in pieces, as a handler reads it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._lines = self._words = self._bytes = 0
        self._within_word = False

    def add(self, piece: bytes) -> None:
        """Count the next piece."""
        if not piece:
            return
        self._digest.update(piece)
        self._lines += piece.count(b"\n")
        # A word that goes on from the last piece is counted already.
        self._words += len(piece.split()) - (self._within_word and not piece[:1].isspace())
        self._bytes += len(piece)
        self._within_word = not piece[-1:].isspace()

    def answer(self) -> Answer:
        """Return the numbers of all pieces so far."""
        return {
            "sha256": self._digest.hexdigest(),
            "lines": self._lines,
            "words": self._words,
            "bytes": self._bytes,
        }


def job_id(root: Path, path: Path) -> str:
    """Name the job of a file: its path below ``root``, escaped, and cut to the largest size of an id."""
    name = os.fsencode(path.relative_to(root))
    text = quote_from_bytes(name, safe="/ +,;=@()[]{}#!$&'~")
    if len(text) <= MAX_ID_BYTES:
        return text
    digest = hashlib.sha256(name).hexdigest()
    return f"{digest}-{text[-(MAX_ID_BYTES - len(digest) - 1) :]}"


def pack(path: Path) -> str:
    """Turn a path, which may hold any bytes, into text that JSON can carry."""
    return quote_from_bytes(os.fsencode(path))


def unpack(text: str) -> Path:
    """Undo `pack`."""
    return Path(os.fsdecode(unquote_to_bytes(text)))
