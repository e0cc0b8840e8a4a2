"""Loggers of this package: foreign text in their lines can forge no line and control no terminal.

Control characters are escaped, and all lines of one message but the first are indented, tracebacks too.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from jobqueue.errors import user_code
from jobqueue.runtime.text import printable, shortened

__all__ = ["get_logger"]

_HERE = str(Path(__file__).parents[1])
_LONGEST = 32_768
"""Characters of a traceback that are logged: a message in it may be of any size."""
_LONGEST_PART = 8_192
"""Characters of one part of a message, such as the text of an exception."""
_PLAIN = (int, float, type(None))


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose messages and tracebacks are made safe."""
    logger = logging.getLogger(name)
    if not any(isinstance(known, _Safe) for known in logger.filters):
        logger.addFilter(_Safe())
    return logger


class _Safe(logging.Filter):
    """Escapes the parts of a record before it is formatted; called for logged records only."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg if isinstance(arg, _PLAIN) else _Shown(arg) for arg in record.args)
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            # Formatters take this, if it is there, for the text of the exception.
            record.exc_text = "    " + _indented(_traceback(record.exc_info[1]))
        return True


class _Shown:
    """An argument of a message, made safe when it is written."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return _indented(shortened(str(self._value), _LONGEST_PART))

    def __repr__(self) -> str:
        return _indented(shortened(repr(self._value), _LONGEST_PART))


def _indented(text: str) -> str:
    return printable(text.rstrip("\n")).replace("\n", "\n    ")


def _traceback(error: BaseException) -> str:
    text = user_code(
        lambda: "".join(traceback.format_exception(type(error), error, _outside(error.__traceback__))),
        lambda bad: f"<formatting the traceback raised {type(bad).__name__}>",
    )
    return shortened(text, _LONGEST)


def _outside(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the first frames, which are this package's own: they say nothing of the user's code."""
    left = frames
    while left is not None and left.tb_frame.f_code.co_filename.startswith(_HERE):
        left = left.tb_next
    return left or frames
