"""What users of 0.1.0 name goes on: every public name, parameter, default, field, method and value.

`data/public_names_0_1_0.txt` was written by `public_names` from the code of 0.1.0. No line of it changes;
the next release gets a file of its own. The calls of stores are left out: they are the contract for authors
of stores, whose changes the changelog names. So are two methods that only our own parts call,
`Reaper.forked` and `Job.tell_aborted`.
"""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobqueue
import jobqueue.testing

RECORDED = Path(__file__).parent / "data" / "public_names_0_1_0.txt"
MADE_BY_US = {"Backoff", "Job", "Serde", "Storage", "StorageContract"}
"""Classes whose constructor is no business of users."""
CHANGED = {
    "RedisStorage(connect_timeout)": "None, the default of now, is what the URL says, and else 5 s as before",
    "RedisStorage(reply_timeout)": "the same",
}


def public_names(module: Any) -> Iterator[str]:
    """Yield a line for each name of a module, and for each name of a class."""
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if not inspect.isclass(thing):
            yield f"{name}{_parameters(thing)}" if inspect.isfunction(thing) else name
            continue
        yield name if name in MADE_BY_US or issubclass(thing, enum.Enum) else f"{name}{_parameters(thing)}"
        for base in thing.__mro__[1:-1]:
            if base.__name__ in module.__all__ or base in {ValueError, TimeoutError, Exception}:
                yield f"{name} < {base.__name__}"
        if not name.endswith(("Storage", "Contract")):
            yield from (f"{name}.{member}" for member in _members(thing))


def _members(thing: Any) -> Iterator[str]:
    if issubclass(thing, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in thing)
        return
    fields = {name for base in thing.__mro__ for name in getattr(base, "__annotations__", {})}
    for member in sorted({*dir(thing), *fields}):
        if member.startswith("_") or hasattr(OSError, member):
            continue
        value = inspect.getattr_static(thing, member, None)
        function = getattr(value, "__func__", value)
        yield f"{member}{_parameters(function)}" if inspect.isfunction(function) else member


def _parameters(function: Any) -> str:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ""
    parts: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*" if not any(part.startswith("*") for part in parts) else "")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_default(parameter.default)}"
        parts.append(f"{stars}{parameter.name}{default}")
    return f"({', '.join(part for part in parts if part)})"


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return repr(value) if isinstance(value, (int, float, str, tuple, type(None))) else "..."


def faults(recorded: str, present: set[str]) -> list[str]:
    """Return what a recorded line has that the code has no longer."""
    name, bracket, parameters = recorded.partition("(")
    if not bracket:
        same = {line for line in present if line == recorded or line.startswith(f"{recorded}(")}
        return [] if same else [recorded]
    found = next((line for line in present if line.startswith(f"{name}(")), None)
    if found is None:
        return [recorded]
    old, new = _read(parameters), _read(found.partition("(")[2])
    problems: list[str] = []
    if [one for one in new[0] if one in old[0]] != old[0] or new[0][: len(old[0])] != old[0]:
        problems.append(f"{name}: the parameters {old[0]} are {new[0]}")
    for one in old[1]:
        if one not in new[1]:
            problems.append(f"{name}({one}) is gone")
        elif old[1][one] not in {None, new[1][one]} and f"{name}({one})" not in CHANGED:
            problems.append(f"{name}({one}) was {old[1][one]} by default, and is {new[1][one]}")
    problems += [f"{name}({one}) is demanded" for one in new[1] if one not in old[1] and new[1][one] is None]
    return problems


def _read(parameters: str) -> tuple[list[str], dict[str, str | None]]:
    """Return the names of parameters by place, and the defaults of all."""
    (function,) = ast.parse(f"def f({parameters}: pass").body
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    places = [one.arg for one in given.args]
    defaults = [None] * (len(places) - len(given.defaults)) + [ast.unparse(one) for one in given.defaults]
    named = {
        one.arg: default and ast.unparse(default)
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    }
    return places, {**dict(zip(places, defaults, strict=True)), **named}


def present() -> set[str]:
    return {*public_names(jobqueue), *public_names(jobqueue.testing)}


def test_what_0_1_0_had_is_there() -> None:
    lines = RECORDED.read_text().splitlines()
    assert len(lines) > 250
    there = present()
    assert [fault for line in lines for fault in faults(line, there)] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("f(a, b=1, *, c=2)", None),
        ("f(a, b=1, d=3, *, c=2, e=4)", None),
        ("f(a=0, b=1, *, c=2)", None),
        ("g(a, b=1, *, c=2)", "f(a, b=1, *, c=2)"),
        ("f(b=1, a=2, *, c=2)", "the parameters"),
        ("f(a, d=0, b=1, *, c=2)", "the parameters"),
        ("f(a, *, b=1, c=2)", "the parameters"),
        ("f(a, b=2, *, c=2)", "f(b) was 1 by default, and is 2"),
        ("f(a, b=1)", "f(c) is gone"),
        ("f(a, b=1, *, c=2, d)", "f(d) is demanded"),
    ],
)
def test_a_change_that_breaks_users_is_found(change: str, problem: str | None) -> None:
    found = faults("f(a, b=1, *, c=2)", {change, "other"})
    assert (problem is None and not found) or any(str(problem) in one for one in found)
    assert faults("A.b = 1", {"A.b = 2"}) == ["A.b = 1"]
    assert faults("A < B", {"A", "B"}) == ["A < B"]
