"""Text that is safe to print and to log: foreign text steers no terminal and forges no line."""

from __future__ import annotations

import re

__all__ = ["one_line", "printable", "printable_json", "shortened"]

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|[\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Escape control characters, direction marks and lone surrogates; keep newline and tab."""
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def printable_json(text: str) -> str:
    """Escape the same in JSON text on one line, as JSON does: its value stays."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def one_line(text: str) -> str:
    """Return printable text on one line."""
    return printable(" ".join(text.split()))


def shortened(text: str, longest: int) -> str:
    """Return the text, or its first and last part if it has more than ``longest`` characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n... {len(text)} characters in all ...\n{text[-half:]}"
