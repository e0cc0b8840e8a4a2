"""The quick ways to build and to read a value, for the few that are built and read for every job."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeVar

__all__ = ["field_of", "make_tuple"]

T = TypeVar("T", bound="tuple[Any, ...]")


class _MakeTuple(Protocol):
    def __call__(self, kind: type[T], fields: tuple[Any, ...], /) -> T: ...


_tuple: Any = tuple
make_tuple: _MakeTuple = _tuple.__new__
"""Build a NamedTuple of all its fields, in order, in half the time of its generated constructor.

Only for the few values that are built for every job; everywhere else, call the class.
"""


def field_of(kind: type[NamedTuple], name: str) -> Callable[[Any], Any]:
    """Return what reads a field of a NamedTuple, in half the time of ``attrgetter``."""
    return itemgetter(kind._fields.index(name))
