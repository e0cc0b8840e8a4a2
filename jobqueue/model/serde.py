"""Turns values into bytes and back. Never pickle: bytes from a store are data, not code."""

from __future__ import annotations

import gc
import json
import json.encoder
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from jobqueue.errors import InvalidArgumentError, SerializationError, TooLargeError, user_code

__all__ = ["JsonSerde", "MsgpackSerde", "Serde", "check_serde", "dump", "load", "unreadable"]

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
        self._chunks = _encoder(None)
        self._careful = _CarefulEncoder()
        decoder: Any = json.JSONDecoder()
        self._decode: Callable[[str], Any] = decoder.decode
        self._scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once

    def dumps(self, value: Any) -> bytes:
        """Return the JSON text of a value."""
        if value is None:
            return b"null"
        chunks = self._careful.encode(value) if _may_be_circular(value) else self._chunks(value, 0)
        return "".join(chunks).encode()

    def loads(self, data: bytes) -> Any:
        """Return the value of a JSON text."""
        if data == b"null":  # the result of many handlers
            return None
        text = data.decode()
        # The scanner under `decode`, without its two searches for white space around the value, which
        # take longer than a small value itself. Whatever is unusual is left to `decode`.
        try:
            scan = self._scan
            value, end = scan(text, 0)
        except StopIteration:
            return self._decode(text)
        return value if end == len(text) else self._decode(text)

    def __repr__(self) -> str:
        return "JsonSerde()"


class _CarefulEncoder(threading.local):
    """Refuses a value that contains itself; one for each thread, since it has a memory.

    An encoder without one writes a circular value a thousand times, whatever its size, before it gives up.
    """

    def __init__(self) -> None:
        self._chunks = _encoder({})

    def encode(self, value: Any) -> Iterable[str]:
        """Return the pieces of the JSON text of a value."""
        try:
            return self._chunks(value, 0)
        except BaseException:
            self._chunks = _encoder({})  # the old one takes the containers of this value for open ones
            raise


def _encoder(open_containers: dict[int, Any] | None) -> Callable[[Any, int], Iterable[str]]:
    """Return what `json.JSONEncoder.iterencode` does, without the C encoder that it makes for every call.

    The encoder keeps the containers that it is in in ``open_containers``, to refuse a circular value;
    ``None`` spares that.

    Measured: 0.9 µs instead of 1.5 µs for a small dict. Where CPython's accelerator is missing, the
    documented method serves.
    """
    plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _indent: plain.iterencode(value)
    chunks: Callable[[Any, int], Iterable[str]] = make(
        open_containers,
        plain.default,
        json.encoder.encode_basestring,
        None,
        ":",
        ",",
        *(False, False, False),
    )
    return chunks


class MsgpackSerde:
    """MessagePack: smaller and faster than JSON, and it carries ``bytes``.

    Tuples come back as lists; timestamps are ``msgpack.Timestamp``.
    """

    def __init__(self) -> None:
        # Loaded when used: `import jobqueue` needs no third party.
        import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]  # noqa: PLC0415

        msgpack_: Any = msgpack
        self._pack: Callable[..., bytes] = msgpack_.packb
        self._unpack: Callable[..., Any] = msgpack_.unpackb

    def dumps(self, value: Any) -> bytes:
        """Return the MessagePack bytes of a value."""
        if _may_be_circular(value):
            _refuse_circle(value, set())
        return self._pack(value, use_bin_type=True)

    def loads(self, data: bytes) -> Any:
        """Return the value of MessagePack bytes."""
        return self._unpack(data, raw=False, strict_map_key=False)

    def __repr__(self) -> str:
        return "MsgpackSerde()"


_may_be_circular: Callable[[Any], bool] = getattr(gc, "is_tracked", lambda _value: True)
"""Whether a value may contain itself. CPython's collector does not track a dict of plain values, which most
payloads are: these need no search."""
_MAPPINGS: tuple[type[Any], ...] = (dict,)
_CONTAINERS: tuple[type[Any], ...] = (*_MAPPINGS, list, tuple)


def _refuse_circle(value: Any, open_containers: set[int]) -> None:
    """Raise ``ValueError`` if a value contains itself or one of the containers that it is in."""
    if not isinstance(value, _CONTAINERS):
        return
    me = id(value)
    if me in open_containers:
        raise ValueError("Circular reference detected")
    open_containers.add(me)
    items: Iterable[Any] = value.values() if isinstance(value, _MAPPINGS) else value
    for item in items:
        if _may_be_circular(item):
            _refuse_circle(item, open_containers)
    open_containers.remove(me)


def check_serde(argument: str, serde: Serde[T] | None) -> Serde[Any]:
    """Return a serde, JSON for ``None``. Raises `InvalidArgumentError` for an object that is none."""
    if serde is None:
        return JsonSerde()
    for method in ("dumps", "loads"):
        if isinstance(serde, type) or not callable(getattr(serde, method, None)):
            raise InvalidArgumentError(argument, f"must be an object with a method {method}")
    return serde


def dump(serde: Serde[T], value: T, what: str, limit: int) -> bytes:
    """Return the bytes for a value of at most ``limit`` bytes, or raise `SerializationError`."""
    try:
        data = serde.dumps(value)
    except Exception as error:
        raise SerializationError(f"{what} cannot be serialized by {serde!r}: {_text(error)}") from error
    if type(data) is not bytes:
        raise SerializationError(f"{serde!r}.dumps must return bytes, not {type(data).__name__}")
    if len(data) > limit:
        raise TooLargeError(
            f"{what} has {len(data)} bytes, the limit is {limit}: store it elsewhere and pass a "
            "reference, or raise max_payload_bytes"
        )
    return data


def load(serde: Serde[T], data: bytes, what: str) -> T:
    """Return the value for bytes, or raise `SerializationError`."""
    try:
        return serde.loads(data)
    except Exception as error:
        raise unreadable(what, serde, error) from error


def unreadable(what: str, serde: Serde[Any], error: BaseException) -> SerializationError:
    """Return the error for bytes that a serde refuses."""
    return SerializationError(f"{what} cannot be read by {serde!r}: {_text(error)}")


def _text(error: BaseException) -> str:
    name = type(error).__name__
    return user_code(lambda: f"{name}: {error}", lambda _bad: name)
