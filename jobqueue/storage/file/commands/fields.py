"""The optional fields of a job as tagged bytes, the same in the journal and in snapshots.

    fields = (tag(u8) length(u32) value(length))*

Only fields that differ from their defaults are written, so a job without any takes no room. A tag is never
given again. One that this version does not know is no field of its format: a format that has it has a larger
number (`jobqueue.storage.file.disk.frames.FORMAT`), which is refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jobqueue.storage.engine.job_entry import Extras
from jobqueue.storage.file.disk.codec import Reader, blob, number, numbers, text
from jobqueue.storage.values import AttemptRecord

__all__ = ["pack_extras", "parse_extras"]


class _Form(NamedTuple):
    """The form of one field."""

    tag: int
    pack: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]


def _parse_number(data: bytes) -> int:
    return Reader(data).number()


def _pack_history(history: Sequence[AttemptRecord]) -> bytes:
    return b"".join(
        part
        for at, attempt, worker, error in history
        for part in (numbers(at, attempt), text(worker), blob(error))
    )


def _parse_history(data: bytes) -> tuple[AttemptRecord, ...]:
    reader = Reader(data)
    history: list[AttemptRecord] = []
    while not reader.done:
        history.append(AttemptRecord(reader.number(), reader.number(), reader.text(), reader.blob()))
    return tuple(history)


_FORMS: dict[str, _Form] = {
    "headers": _Form(1, bytes, bytes),
    "task": _Form(2, str.encode, bytes.decode),
    "group": _Form(3, str.encode, bytes.decode),
    "dead_letter_ttl": _Form(4, number, _parse_number),
    "letter_until": _Form(5, number, _parse_number),
    "saved": _Form(6, bytes, bytes),
    "history": _Form(7, _pack_history, _parse_history),
    "weight": _Form(8, number, _parse_number),
    "expires": _Form(9, number, _parse_number),
}
"""The form of every field of `Extras`."""
_DEFAULTS = Extras._field_defaults
_BY_TAG = {form.tag: (name, form.parse) for name, form in _FORMS.items()}


def pack_extras(extras: Extras) -> bytes:
    """Write the fields that differ from their defaults."""
    parts: list[bytes] = []
    for name, value in zip(Extras._fields, extras, strict=True):
        if value != _DEFAULTS[name]:
            form = _FORMS[name]
            parts += (bytes((form.tag,)), blob(form.pack(value)))
    return b"".join(parts)


def parse_extras(data: bytes) -> Extras:
    """Read fields. Raises `ValueError` at what no version of this format has written."""
    reader = Reader(data)
    fields: dict[str, Any] = {}
    while not reader.done:
        tag = reader.byte()
        if tag not in _BY_TAG:
            raise ValueError(f"a field {tag} of a job that this version does not know")
        name, parse = _BY_TAG[tag]
        fields[name] = parse(reader.blob())
    return Extras(**fields)
