"""Finds, reads and assembles the Lua scripts.

A script's header is the only description of its interface: the ``KEYS:`` line names attributes of
`jobqueue.storage.redis.keys.QueueKeys`, and from it the keys of a call are taken. Lines of the form
``-- include: name`` are replaced by ``lib/name.lua``: Redis scripts cannot share code otherwise. Numbers that
have a name, in capitals, are written where the name stands: to a call it is a cost that functions use locals.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jobqueue.errors import StorageError

__all__ = ["Script", "script", "script_names"]

_INCLUDE = re.compile(r"^ *-- include: (\w+)$", re.MULTILINE)
_NAME = r"[A-Z][A-Z_]*"
_NAMED = re.compile(
    rf"^ *local (?P<names>{_NAME}(?:, {_NAME})*) =\s+(?P<numbers>[\dA-Z_+*, -]+?)(?= *--|$)"
    rf"|'(?:[^'\\]|\\.)*'|--.*|\b(?P<name>{_NAME})\b",
    re.MULTILINE,
)
"""Numbers that get names; strings and comments, to pass over; a name."""


# Older servers allow a script everything at maxmemory once it has written something that needs no memory.
_ALLOW_OOM = b"\nredis.pcall('HDEL', KEYS[1], '')"


class Script:
    """One script, ready to be sent."""

    __slots__ = ("keys", "name", "plain", "plain_sha", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.keys = _header(text, "KEYS")
        """Names of its keys, in order."""
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
        # Servers before 7.0 do not know the first line, which holds flags.
        first, _, rest = self.text.partition(b"\n")
        self.plain = b"--" + first + (_ALLOW_OOM if b"allow-oom" in first else b"") + b"\n" + rest
        self.plain_sha = hashlib.sha1(self.plain, usedforsecurity=False).hexdigest().encode()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


def _header(text: str, field: str) -> tuple[str, ...]:
    found = re.search(rf"^-- {field}: (.*)$", text, re.MULTILINE)
    if found is None:
        raise StorageError(f"a Lua script lacks its {field} header: reinstall jobqueue")
    return tuple(found[1].split())


def _folder() -> Traversable:
    """Return the scripts' directory: in the installed package, or beside it in a source tree."""
    installed = files("jobqueue") / "lua"
    if installed.is_dir():
        return installed
    beside = Path(__file__).resolve().parents[4] / "lua"
    if beside.is_dir():
        return beside
    raise StorageError("the Lua scripts are missing from this installation: reinstall jobqueue")


def _with_numbers(text: str) -> str:
    """Put the numbers in the places of their names. What is computed of numbers alone, Lua computes once."""
    known: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return known.get(match[0], match[0])

    def replaced(match: re.Match[str]) -> str:
        if match["name"]:
            return number(match)
        if not match["names"]:
            return match[0]
        numbers = re.sub(rf"\b{_NAME}\b", number, match["numbers"]).split(",")
        known.update(zip(match["names"].split(", "), (f"({one.strip()})" for one in numbers), strict=True))
        return ""

    return _NAMED.sub(replaced, text)


def script_names() -> list[str]:
    """Return the names of all scripts."""
    return sorted(f.name.removesuffix(".lua") for f in _folder().iterdir() if f.name.endswith(".lua"))


@cache
def script(name: str) -> Script:
    """Return a script by name, read once."""
    folder = _folder()

    def include(match: re.Match[str]) -> str:
        return assembled((folder / "lib" / f"{match[1]}.lua").read_text("utf-8"))

    def assembled(text: str) -> str:
        return _INCLUDE.sub(include, text)

    return Script(name, _with_numbers(assembled((folder / f"{name}.lua").read_text("utf-8"))))
