"""Packs the fields that only some jobs have. ``lua/lib/extras.lua`` describes them."""

from __future__ import annotations

import struct
from typing import NamedTuple

from jobqueue.storage.values import AttemptRecord

__all__ = ["NO_EXTRAS", "Extras", "around_headers", "read_extras"]

_FIELD = struct.Struct(">cI")
_ATTEMPT = struct.Struct(">6sIH")
_int = int.from_bytes


class Extras(NamedTuple):
    """The fields of one job as its record has them."""

    headers: bytes = b""
    task: str = ""
    group: str = ""
    saved: bytes | None = None
    history: tuple[AttemptRecord, ...] = ()
    expires: int | None = None


NO_EXTRAS = Extras()


def around_headers(
    size: int, task: str, group: str, dead_letter_ttl: int | None, weight: int = 1, expires: int | None = None
) -> tuple[bytes, bytes]:
    """Return what the extras of a new job have before and after its headers of ``size`` bytes.

    Nothing if it has none of these.
    """
    before = after = b""
    if group:  # first: there the scripts look for it
        before = _label(b"g", group)
        if weight != 1:
            before += _FIELD.pack(b"w", 1) + bytes((weight,))
    if size:
        before += _FIELD.pack(b"h", size)
    if task:
        after = _label(b"t", task)
    if dead_letter_ttl is not None:
        after += _FIELD.pack(b"d", 6) + dead_letter_ttl.to_bytes(6)
    if expires is not None:  # last: there the scripts look for it
        after += _FIELD.pack(b"x", 6) + expires.to_bytes(6)
    return before, after


def _label(tag: bytes, label: str) -> bytes:
    text = label.encode()
    return _FIELD.pack(tag, len(text)) + text


def read_extras(data: bytes, at: int, end: int) -> Extras:
    """Read the extras that stand in a record from ``at`` to ``end``; tags that are not known are passed over.

    Raises `struct.error` for what no script lets through.
    """
    headers, task, group, saved, expires = b"", "", "", None, None
    history: list[AttemptRecord] = []
    while at < end:
        tag, size = _FIELD.unpack_from(data, at)
        value = data[at + 5 : at + 5 + size]
        at += 5 + size
        if tag == b"t":
            task = value.decode(errors="replace")
        elif tag == b"h":
            headers = value
        elif tag == b"g":
            group = value.decode(errors="replace")
        elif tag == b"s":
            saved = value
        elif tag == b"x":
            expires = _int(value)
        elif tag == b"a":
            when, attempt, length = _ATTEMPT.unpack_from(value)
            worker, error = value[12 : 12 + length], value[12 + length :]
            history.append(AttemptRecord(_int(when), attempt, worker.decode(errors="replace"), error))
    return Extras(headers, task, group, saved, tuple(history), expires)
