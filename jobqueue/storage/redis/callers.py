"""Names calls, so that one that is sent again is carried out once.

The server remembers the last call of each *caller* (``lua/lib/calls.lua``). A caller has one call under way
at a time, and the numbers of its calls rise: a repeated one gets its answer again, and a copy that arrives
when a later call was answered has no effect. So each of the calls that are under way together has a caller of
its own. Callers belong to one start of a store, whatever the workers are called that use it.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from jobqueue.runtime.ids import unique_id

__all__ = ["Call", "Callers"]


class Call(NamedTuple):
    """One call, as arguments of a script."""

    caller: bytes
    number: bytes
    lost: bytes
    """The first of the caller's last calls whose answers never came; zeros: its last answer came."""


class Callers:
    """The callers of one start of a store."""

    def __init__(self) -> None:
        # Begins with what names the process: the listing of workers tells by it who shares a name.
        self._token = unique_id().encode()
        self._numbers = count(1)
        self._busy: dict[tuple[str, str], set[int]] = {}
        self._lost: dict[tuple[str, str, int], int] = {}

    def name(self, worker: str) -> bytes:
        """Name a caller whose calls need no memory."""
        return b"%b\0%b" % (worker.encode(), self._token)

    def call(self, queue: str, worker: str = "") -> NamedCall:
        """Name a call for as long as it is under way. If it fails, the caller's next call says so."""
        return NamedCall(self, queue, worker)

    def begin(self, queue: str, worker: str) -> tuple[int, int, int]:
        """Take a place among the calls that are under way: it, the call's number, and the first lost one."""
        busy = self._busy.setdefault((queue, worker), set())
        place = 0
        while place in busy:
            place += 1
        busy.add(place)
        return place, next(self._numbers), self._lost.get((queue, worker, place), 0) if self._lost else 0

    def end(self, queue: str, worker: str, place: int, number: int, *, failed: bool) -> None:
        """Free the place of a call."""
        if not failed:
            if self._lost:
                self._lost.pop((queue, worker, place), None)
        elif worker:  # only a worker's lost calls matter: they may have claimed jobs
            self._lost.setdefault((queue, worker, place), number)
        busy = self._busy[queue, worker]
        busy.discard(place)
        if not busy:
            del self._busy[queue, worker]


class NamedCall:
    """A call under way, as a context. Not a generator: that takes a microsecond more."""

    __slots__ = ("_callers", "_number", "_place", "_queue", "_worker")
    _place: int
    _number: int

    def __init__(self, callers: Callers, queue: str, worker: str) -> None:
        self._callers = callers
        self._queue = queue
        self._worker = worker

    def __enter__(self) -> Call:
        self._place, self._number, lost = self._callers.begin(self._queue, self._worker)
        name = b"%b.%x" % (self._callers.name(self._worker), self._place)
        return Call(name, self._number.to_bytes(6), lost.to_bytes(6))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._callers.end(self._queue, self._worker, self._place, self._number, failed=kind is not None)
