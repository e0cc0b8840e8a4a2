"""Numbers, times and foreign text, fit to be shown.

Whatever comes from a store is foreign: it may be a megabyte long, steer the direction of the text around it,
or hold control characters. Templates escape HTML; the rest is done here, for every text that they put out.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from jobqueue.runtime.durations import ago_or_in, duration
from jobqueue.runtime.text import one_line, printable

__all__ = [
    "DASH",
    "LONGEST",
    "ago_or_in",
    "anchor",
    "clip",
    "compact",
    "count",
    "finalized",
    "instant_text",
    "span",
]

LONGEST = 100_000
"""Characters of one text on a page. Whoever shows more has to cut it with a word about it."""
DASH = "\u2013"
_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def clip(text: str, limit: int = 120) -> str:
    """Return text on one line, cut to some characters."""
    line = one_line(text[: 4 * limit])
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]}…"


def finalized(value: Any) -> Any:
    """Make a value of a template printable and short; markup stays as it is."""
    if hasattr(value, "__html__"):
        return value
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def count(number: float) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,.0f}".replace(",", "\u202f") if number >= 10_000 else f"{number:.0f}"


def compact(number: float) -> str:
    """Return a number in four or five characters: ``950``, ``12.3k``, ``1.2M``."""
    for least, unit in _UNITS:
        if number >= least:
            short = number / least
            return f"{short:.0f}{unit}" if short >= 100 else f"{short:.1f}".removesuffix(".0") + unit
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def span(seconds: float | None) -> str:
    """Return a duration as people read it: ``12 ms``, ``3.4 s``, ``12 min``; a dash for ``None``."""
    if seconds is None:
        return DASH
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or seconds == 0 else "<1 ms"
    return duration(seconds)


def instant_text(instant: datetime) -> str:
    """Return an instant in UTC, to the second."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def anchor(text: str) -> str:
    """Return a name for the element that stands for something foreign: the same on every page."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
