"""Exceptions of handlers: the one that decides, and its text."""

from __future__ import annotations

import traceback
from typing import TypeGuard

from jobqueue.errors import ErrorInfo, user_code
from jobqueue.model.outcomes import Fatal, Retry, stable_name

__all__ = ["deciding", "error_info", "place"]

_PARTS = 10
"""Exceptions of a group that its message names."""


def deciding(error: BaseException) -> BaseException:
    """Return the exception that decides the outcome of a run: of a group, the first `Fatal` in it.

    Without a `Fatal` the first `Retry`, and without that the group as a whole.
    """
    if not _is_group(error):
        return error
    parts = _parts(error)
    asked = [part for kind in (Fatal, Retry) for part in parts if isinstance(part, kind)]
    return asked[0] if asked else error


def error_info(error: BaseException, *, with_traceback: bool = False) -> ErrorInfo:
    """Turn an exception into text. Never raises, whatever its ``__str__`` does.

    The message of a group goes on with the types and messages of its parts, the deciding one first.
    """
    name, message = _name(error), _message(error)
    if _is_group(error):
        message = f"{message}: {_told(error)}"
    return ErrorInfo(name, message, _traceback(error) if with_traceback else None)


def place(error: BaseException) -> str:
    """Return where an exception was raised, of a group its first part: ``file.py:17 in function``."""
    first = _parts(error)[0]
    frames = first.__traceback__
    if frames is None:
        return ""
    while frames.tb_next is not None:
        frames = frames.tb_next
    code = frames.tb_frame.f_code
    return f"{code.co_filename}:{frames.tb_lineno} in {code.co_qualname}"


def _parts(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group and of the groups in it, in order; of any other exception, itself."""
    parts: list[BaseException] = []
    left = [error]
    while left:
        part = left.pop()
        if _is_group(part):
            left.extend(reversed(part.exceptions))
        else:
            parts.append(part)
    return parts


def _is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    return isinstance(error, BaseExceptionGroup)


def _told(group: BaseExceptionGroup[BaseException]) -> str:
    first = deciding(group)
    parts = sorted(_parts(group), key=lambda part: part is not first)
    texts = [f"{_name(part)}: {_message(part)}" for part in parts[:_PARTS]]
    if len(parts) > _PARTS:
        texts.append(f"and {len(parts) - _PARTS} more")
    return "; ".join(texts)


def _name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return stable_name(f"{kind.__module__}.{kind.__qualname__}")


def _message(error: BaseException) -> str:
    return user_code(lambda: str(error), lambda bad: f"<str() of this exception raised {type(bad).__name__}>")


def _traceback(error: BaseException) -> str:
    return user_code(
        lambda: "".join(traceback.format_exception(error)),
        lambda bad: f"<formatting the traceback raised {type(bad).__name__}>",
    )
