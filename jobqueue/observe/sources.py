"""The parts that are watched together: queues and reapers, those of apps included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobqueue.app import App, reaper_of
from jobqueue.errors import InvalidArgumentError
from jobqueue.maintenance.reaper import Reaper
from jobqueue.queue import Queue

__all__ = ["Part", "Source", "parts_of"]

Part = Queue[Any, Any] | Reaper
Source = Queue[Any, Any] | App | Reaper


def parts_of(sources: Iterable[Source]) -> list[Part]:
    """Return the queues and reapers of some sources, each once. Raises `InvalidArgumentError`."""
    found: list[Part] = []
    for source in sources:
        if isinstance(source, App):
            parts: list[Part] = [*source.queues, reaper_of(source)]
        elif isinstance(source, Queue | Reaper):  # pyright: ignore[reportUnnecessaryIsInstance]
            parts = [source]
        else:
            raise InvalidArgumentError(
                "sources", f"must be Queue, App or Reaper objects, not {source!r:.100}"
            )
        found += [part for part in parts if not any(part is known for known in found)]
    if not found:
        raise InvalidArgumentError("sources", "must not be empty: give a Queue, an App or a Reaper")
    return found
