"""Payloads and results as text, and what a hook takes out of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from jobqueue.client.results import JobStatus, job_status
from jobqueue.errors import SerializationError, user_code
from jobqueue.model.serde import Serde, load
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.values import Record
from jobqueue.web.options import Redact

__all__ = ["MOST_SHOWN", "Preview", "Redactor", "Unreadable", "parse_json", "preview", "status_reader"]

log = get_logger("jobqueue.web")

MOST_SHOWN = 65_536
"""Characters of one value on a page."""
HIDDEN = "(not shown: the redact hook raised)"


class Unreadable(NamedTuple):
    """Stands for bytes that the serde of their queue cannot read."""

    size: int

    def __repr__(self) -> str:
        return f"({self.size:,} bytes that the serde of this queue cannot read)"


class Preview(NamedTuple):
    """A value as text."""

    text: str
    total: int
    """Characters of the whole."""
    editable: bool
    """Whether the text is the value, whole and as JSON has it."""

    @property
    def cut(self) -> bool:
        """Whether it is not all of it."""
        return self.total > len(self.text)


def status_reader(payload_serde: Serde[Any], result_serde: Serde[Any]) -> Callable[[Record], JobStatus[Any]]:
    """Return what makes the view of a record. A value that cannot be read hides nothing else."""

    def read(serde: Serde[Any], data: bytes | None) -> Any:
        if data is None:
            return None
        try:
            return load(serde, data, "it")
        except SerializationError:
            return Unreadable(len(data))

    def view(record: Record) -> JobStatus[Any]:
        return job_status(
            record,
            read(result_serde, record.result),
            read(result_serde, record.progress),
            read(payload_serde, record.payload),
        )

    return view


def preview(value: Any) -> Preview:
    """Return a value as indented JSON; what JSON lacks as its ``repr``."""
    if isinstance(value, Unreadable):
        return _cut(repr(value), editable=False)
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        editable = _is_json(value)
    except (TypeError, ValueError, RecursionError):
        editable = False
        text = user_code(
            lambda: _loose(value), lambda _bad: f"(a {type(value).__name__} that cannot be shown)"
        )
    return _cut(text, editable=editable)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises `ValueError`."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _cut(text: str, *, editable: bool) -> Preview:
    return Preview(text[:MOST_SHOWN], len(text), editable and len(text) <= MOST_SHOWN)


def _loose(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _is_json(value: Any) -> bool:
    """Return whether a value comes back from JSON as it was: no tuple, no key that is a number."""
    if value is None or isinstance(value, str | bool | int | float):
        return type(value) in {type(None), str, bool, int, float}
    if isinstance(value, list):
        return all(_is_json(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())  # pyright: ignore[reportUnknownVariableType]
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


class Redactor:
    """Applies the redact hook. A value whose hook raises is never shown."""

    def __init__(self, hook: Redact | None) -> None:
        self._hook = hook

    def __call__(self, field: str, value: Any, job: JobStatus[Any]) -> Any:
        """Return what to show of a value."""
        hook = self._hook
        if hook is None or value is None:
            return value
        return user_code(lambda: hook(field, value, job), self._hide)

    def text(self, field: str, value: str, job: JobStatus[Any]) -> str:
        """Return what to show of a text."""
        return str(self(field, value, job))

    @staticmethod
    def _hide(error: BaseException) -> str:
        log.error("the redact hook of the dashboard raised %s", type(error).__name__)
        return HIDDEN

    @property
    def active(self) -> bool:
        """Whether there is a hook."""
        return self._hook is not None
