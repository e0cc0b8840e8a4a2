"""Converts values to what a serde writes, and back to what an annotation says. Uses msgspec.

A serde knows texts, numbers, lists and dicts. What else an annotation may name (dataclasses, enums,
datetimes, UUIDs, msgspec Structs, pydantic models, ...) is written as one of these and made anew from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Protocol, TypeGuard

import msgspec
import msgspec.inspect

from jobqueue.errors import InvalidArgumentError, SerializationError

__all__ = ["Converter"]


class _Model(Protocol):
    """The part of a pydantic model that is used here; pydantic itself is never imported."""

    def model_dump(self, *, mode: str, by_alias: bool) -> Any: ...
    @classmethod
    def model_validate(cls, obj: Any, *, by_name: bool, by_alias: bool) -> Any: ...


class Converter:
    """Converts the values of one annotation."""

    def __init__(self, annotation: Any, argument: str) -> None:
        """Raise `InvalidArgumentError` that names ``argument`` if the annotation cannot be converted."""
        if annotation is inspect.Parameter.empty or annotation is object:
            annotation = Any
        elif annotation is None:
            annotation = type(None)
        self.annotation = annotation
        self.argument = argument
        # As it stands in JSON already: no need to ask for each value.
        self._plain = annotation if annotation in (str, int, bool, type(None)) else None
        try:
            described = msgspec.inspect.type_info(annotation)
        except Exception as error:  # noqa: BLE001 - told by another name
            raise InvalidArgumentError(
                argument, f"has an annotation that cannot be stored: {error}"
            ) from None
        for foreign in _foreign_types(described):
            raise InvalidArgumentError(
                argument,
                f"has an annotation that cannot be stored: {foreign.__module__}.{foreign.__qualname__}. "
                "Use JSON types, dataclasses, TypedDicts, NamedTuples, enums, dates, UUID, Decimal, bytes, "
                "msgspec Structs or pydantic models",
            )

    def written(self, value: Any) -> Any:
        """Return a value as the serde writes it.

        Raises `InvalidArgumentError` that names the argument if the value does not fit the annotation.
        """
        if type(value) is self._plain:
            return value
        try:
            plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_written_model)
            if self.annotation is not Any:
                self._converted(plain)
        except Exception as error:  # of msgspec, pydantic, or of a user's type
            raise InvalidArgumentError(self.argument, _told(error)) from error
        return plain

    def read(self, plain: Any) -> Any:
        """Make the value that a serde has read.

        Raises `SerializationError` if it does not fit the annotation: written by another release of the
        program, or by somebody else.
        """
        if self.annotation is Any or type(plain) is self._plain:
            return plain
        try:
            return self._converted(plain)
        except Exception as error:
            raise SerializationError(f"{self.argument}: {_told(error)}") from error

    def _converted(self, plain: Any) -> Any:
        return msgspec.convert(plain, self.annotation, str_keys=True, dec_hook=_read_model)


def _told(error: Exception) -> str:
    return f"{error}" if isinstance(error, msgspec.ValidationError) else f"{type(error).__name__}: {error}"


def _is_model(kind: Any) -> TypeGuard[type[_Model]]:
    return isinstance(kind, type) and all(
        callable(getattr(kind, name, None)) for name in ("model_dump", "model_validate")
    )


def _written_model(value: Any) -> Any:
    if not _is_model(type(value)):
        raise TypeError(f"{type(value).__name__} cannot be stored")
    # By the names of the fields: the aliases for reading and for writing may differ.
    plain = value.model_dump(mode="json", by_alias=False)
    kind: type[Any] = value.__class__
    if _read_model(kind, plain) != value:
        raise ValueError(f"a {kind.__name__} that comes back from JSON as another one cannot be stored")
    return plain


def _read_model(kind: type[Any], plain: Any) -> Any:
    return kind.model_validate(plain, by_name=True, by_alias=False) if _is_model(kind) else plain


def _is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, (list, tuple))


def _foreign_types(described: msgspec.inspect.Type) -> Iterator[type]:
    """Yield the classes in an annotation that are neither msgspec's to convert nor models."""
    seen: set[int] = set()  # types may contain themselves
    left: list[Any] = [described]
    while left:
        part = left.pop()
        if _is_list(part):
            left.extend(part)
        elif isinstance(part, msgspec.inspect.CustomType):
            if part.cls is not object and not _is_model(part.cls):
                yield part.cls
        elif isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(part) not in seen:
            seen.add(id(part))
            left.extend(getattr(part, field) for field in part.__struct_fields__)
