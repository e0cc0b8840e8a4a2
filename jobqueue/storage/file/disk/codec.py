# ruff: noqa: D103 - named by the type that they write
"""Values as bytes, in commands and snapshots.

Every length precedes its value; reading past the end raises `ValueError`. Nothing is executed or
imported by reading.
"""

from __future__ import annotations

import struct

__all__ = ["Reader", "blob", "length_of", "number", "numbers", "optional", "text"]

_LENGTH = struct.Struct("<I")
_NUMBER = struct.Struct("<q")


def length_of(value: bytes) -> bytes:
    return _LENGTH.pack(len(value))


def blob(value: bytes) -> bytes:
    return length_of(value) + value


def text(value: str) -> bytes:
    return blob(value.encode())


def number(value: int) -> bytes:
    return _NUMBER.pack(value)


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def optional(value: str | bytes | None) -> bytes:
    """Write a value or ``None``."""
    if value is None:
        return b"\0"
    return b"\1" + (text(value) if isinstance(value, str) else blob(value))


class Reader:
    """Reads values from some bytes, front to back."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def done(self) -> bool:
        return self.at >= len(self.data)

    def raw(self, size: int) -> bytes:
        at = self.at
        self.at = end = at + size
        if end > len(self.data):
            raise ValueError("the bytes end too early")
        return self.data[at:end]

    def blob(self) -> bytes:
        (size,) = _LENGTH.unpack(self.raw(4))
        return self.raw(size)

    def text(self) -> str:
        return self.blob().decode()

    def texts(self) -> list[str]:
        """Read texts up to the end."""
        texts: list[str] = []
        while not self.done:
            texts.append(self.text())
        return texts

    def number(self) -> int:
        value: int = _NUMBER.unpack(self.raw(8))[0]
        return value

    def byte(self) -> int:
        return self.raw(1)[0]

    def optional_text(self) -> str | None:
        return self.text() if self.byte() else None

    def optional_blob(self) -> bytes | None:
        return self.blob() if self.byte() else None
