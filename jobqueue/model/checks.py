"""Checks of arguments."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar, cast

from jobqueue.errors import InvalidArgumentError, user_code

__all__ = [
    "MAX_ID_BYTES",
    "MAX_INSTANT",
    "MAX_MILLIS",
    "MAX_PRIORITY",
    "MAX_SECONDS",
    "check_bool",
    "check_callable",
    "check_count",
    "check_id",
    "check_instant",
    "check_label",
    "check_member",
    "check_millis",
    "check_names",
    "check_number",
    "check_priority",
    "check_queue_name",
    "check_seconds",
    "fitting_lock_name",
    "instant",
    "millis",
    "shown",
]

M = TypeVar("M", bound=StrEnum)

MAX_ID_BYTES = 256
MAX_PRIORITY = 1000
"""Priorities lie between minus this and this. Narrow, so that a store can pack a priority and a
sequence number into the 53 bits that a double holds exactly."""
MAX_SECONDS = 100 * 365 * 86400.0
"""A hundred years: no duration is longer."""
MAX_MILLIS = int(MAX_SECONDS * 1000)
"""The same in milliseconds."""
MAX_INSTANT = 253_402_300_799_999
"""The last millisecond of the year 9999, and so of `datetime`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SHOWN = 80
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_id(value: object, argument: str = "id") -> str:
    """Return a valid job id: 1 to 256 bytes of UTF-8 without control characters."""
    if not isinstance(value, str):
        raise InvalidArgumentError(argument, f"must be a str, not {_kind(value)}")
    if value.isascii() and value.isprintable() and 0 < len(value) <= MAX_ID_BYTES:
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError(argument, "has a lone surrogate: not valid Unicode") from None
    if not 0 < size <= MAX_ID_BYTES:
        raise InvalidArgumentError(argument, f"must be 1 to {MAX_ID_BYTES} bytes, not {size}")
    if _CONTROL.search(value):
        raise InvalidArgumentError(argument, "must not contain control characters")
    return value


def check_label(argument: str, value: object) -> str:
    """Return a valid label: as an id (see `check_id`), or empty."""
    return value if isinstance(value, str) and not value else check_id(value, argument)


def check_names(argument: str, value: object) -> list[str]:
    """Return a collection of names, at least one, as a list."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidArgumentError(argument, f"must be a collection of names, not {_kind(value)}")
    names = [check_id(name, argument) for name in cast("Iterable[object]", value)]
    if not names:
        raise InvalidArgumentError(argument, "must not be empty")
    return names


def fitting_lock_name(kind: str, subject: str) -> str:
    """Return ``kind:subject``, with a digest in place of a subject too long for the name of a lock."""
    name = f"{kind}:{subject}"
    if len(name.encode()) <= MAX_ID_BYTES:
        return name
    return f"{kind}:{hashlib.sha256(subject.encode()).hexdigest()}"


def check_queue_name(value: object, argument: str = "name") -> str:
    """Return a valid queue name: 1 to 64 of ``A-Z a-z 0-9 . _ -``."""
    if not isinstance(value, str) or not _QUEUE_NAME.fullmatch(value):
        raise InvalidArgumentError(
            argument, f"must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not {shown(value)}"
        )
    return value


def check_number(argument: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number within ``low`` and ``high``. A bool is not a number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(argument, f"must be a number, not {_kind(value)}")
    if not low <= value <= high or value in (math.inf, -math.inf):
        raise InvalidArgumentError(argument, f"must be finite, from {low} to {high}, not {shown(value)}")
    return value


def check_seconds(argument: str, value: object, *, zero: bool = False) -> float:
    """Return a duration in seconds: finite, positive (or zero if allowed), under 100 years."""
    if type(value) is float and 0.0 < value <= MAX_SECONDS:  # nearly always
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(argument, f"must be seconds as a number, not {_kind(value)}")
    if not 0 <= value <= MAX_SECONDS or (value == 0 and not zero):
        least = "not negative" if zero else "positive"
        raise InvalidArgumentError(
            argument, f"must be seconds, finite and {least}, at most 100 years; not {shown(value)}"
        )
    return value


def check_count(argument: str, value: object, *, low: int = 1, high: int = 2**31 - 1) -> int:
    """Return a whole number within ``low`` and ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentError(argument, f"must be an int, not {_kind(value)}")
    if not low <= value <= high:
        raise InvalidArgumentError(argument, f"must be between {low} and {high}, not {shown(value)}")
    return value


def check_millis(argument: str, value: object, *, low: int = 0) -> int:
    """Return a duration in whole milliseconds, of at most 100 years."""
    return check_count(argument, value, low=low, high=MAX_MILLIS)


def check_priority(value: object) -> int:
    """Return a valid priority: an int from -1000 to 1000."""
    return check_count("priority", value, low=-MAX_PRIORITY, high=MAX_PRIORITY)


def check_instant(argument: str, value: object) -> int:
    """Return an aware datetime as milliseconds since the epoch, 1970 at the least."""
    if not isinstance(value, datetime):
        raise InvalidArgumentError(argument, f"must be a datetime, not {_kind(value)}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidArgumentError(
            argument, "must be an aware datetime: add tzinfo, for example datetime.now(UTC)"
        )
    # Whole numbers: a float of seconds has lost the microseconds by the year 9999.
    return max(0, min(-((_EPOCH - value) // _MILLISECOND), MAX_INSTANT))


def instant(milliseconds: int) -> datetime:
    """Return milliseconds since the epoch as an aware datetime: the other way of `check_instant`."""
    return _EPOCH + max(0, min(milliseconds, MAX_INSTANT)) * _MILLISECOND


def check_bool(argument: str, value: object) -> bool:
    """Return a bool; refuse other truthy or falsy values."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(argument, f"must be True or False, not {_kind(value)}")
    return value


def check_member(argument: str, kind: type[M], value: object) -> M:
    """Return the member of an enum, given itself or by its value."""
    try:
        return kind(value)  # type: ignore[arg-type]  # what is no member is refused below
    except ValueError:
        allowed = ", ".join(repr(member.value) for member in kind)
        raise InvalidArgumentError(argument, f"must be one of {allowed}, not {shown(value)}") from None


def check_callable(argument: str, value: object) -> None:
    """Refuse an object that cannot be called."""
    if not callable(value):
        raise InvalidArgumentError(argument, f"must be callable, not {_kind(value)}")


def millis(seconds: float) -> int:
    """Turn seconds into whole milliseconds, the unit of the stores. Rounds up: never early."""
    # Rounded first: 1.1 * 1000 is 1100.0000000000002, and that is not 1101 ms.
    return math.ceil(round(seconds * 1000, 6))


def shown(value: object) -> str:
    """Return a short text for a value that is refused; never raises, whatever its ``__repr__`` does."""
    # An int of 5,000 digits has no text, and a foreign value may do anything.
    text = user_code(lambda: repr(value), lambda _bad: f"a {_kind(value)} that cannot be shown")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kind(value: Any) -> str:
    return type(value).__name__
