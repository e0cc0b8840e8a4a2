"""Text that is safe to print and to log: foreign text steers no terminal and forges no line."""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape control characters, direction marks and lone surrogates; keep newline and tab."""
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def one_line(text: str) -> str:
    """Return printable text on one line."""
    return printable(" ".join(text.split()))
