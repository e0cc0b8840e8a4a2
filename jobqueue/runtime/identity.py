"""Names a queue or reaper: by the name given, or after the process in which it is used."""

from __future__ import annotations

from jobqueue.runtime.ids import process_mark, process_name

__all__ = ["Identity"]


class Identity:
    """The name of an object that starts and stops.

    A name that is not given is drawn when it is first used in a process, and not when the object is made:
    objects made before a fork must not share one, since a store takes what has one name for one worker.
    """

    def __init__(self, given: str | None = None) -> None:
        self._given = given
        self._drawn = ""
        self._mark = ""

    @property
    def given(self) -> bool:
        """Whether the name was given, and not drawn."""
        return self._given is not None

    @property
    def name(self) -> str:
        """The name in this process."""
        if self._given is not None:
            return self._given
        if self._mark != process_mark():
            self._drawn, self._mark = process_name(), process_mark()
        return self._drawn
