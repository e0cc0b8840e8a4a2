"""From values to bytes and back. Never pickle: bytes from a store are data, not code."""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar

from jobqueue.errors import SerializationError

__all__ = ["JsonSerde", "MsgpackSerde", "Serde", "dump", "load"]

T = TypeVar("T")


class Serde(Protocol[T]):
    """Turns values into bytes and back. Any exception counts as "this value cannot be stored"."""

    def dumps(self, value: T) -> bytes:
        """Return the bytes for a value."""
        ...

    def loads(self, data: bytes) -> T:
        """Return the value for bytes that `dumps` made."""
        ...


class JsonSerde:
    """JSON in UTF-8, the default: readable in any store's own tools.

    As JSON has it, tuples come back as lists and keys as strings. NaN and infinities, which JSON
    lacks, are refused.
    """

    def __init__(self) -> None:
        # Kept: json.dumps with other than the default options builds an encoder for every call.
        self._encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
        self._decode = json.JSONDecoder().decode

    def dumps(self, value: Any) -> bytes:
        return self._encode(value).encode()

    def loads(self, data: bytes) -> Any:
        return self._decode(data.decode())

    def __repr__(self) -> str:
        return "JsonSerde()"


class MsgpackSerde:
    """MessagePack: smaller and faster than JSON, and it carries ``bytes``.

    Tuples come back as lists; timestamps are ``msgpack.Timestamp``.
    """

    def __init__(self) -> None:
        import msgpack  # noqa: PLC0415 - loaded when used: `import jobqueue` needs no third party

        self._pack = msgpack.packb
        self._unpack = msgpack.unpackb

    def dumps(self, value: Any) -> bytes:
        data: bytes = self._pack(value, use_bin_type=True)
        return data

    def loads(self, data: bytes) -> Any:
        return self._unpack(data, raw=False, strict_map_key=False)

    def __repr__(self) -> str:
        return "MsgpackSerde()"


def dump(serde: Serde[T], value: T, what: str, limit: int) -> bytes:
    """Return the bytes for a value of at most ``limit`` bytes, or raise `SerializationError`."""
    try:
        data = serde.dumps(value)
    except Exception as error:
        raise SerializationError(f"{what} cannot be serialized by {serde!r}: {_text(error)}") from error
    if type(data) is not bytes:
        raise SerializationError(f"{serde!r}.dumps must return bytes, not {type(data).__name__}")
    if len(data) > limit:
        raise SerializationError(
            f"{what} has {len(data)} bytes, the limit is {limit}: store it elsewhere and pass a "
            "reference, or raise max_payload_bytes"
        )
    return data


def load(serde: Serde[T], data: bytes, what: str) -> T:
    """Return the value for bytes, or raise `SerializationError`."""
    try:
        return serde.loads(data)
    except Exception as error:
        raise SerializationError(f"{what} cannot be read by {serde!r}: {_text(error)}") from error


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
