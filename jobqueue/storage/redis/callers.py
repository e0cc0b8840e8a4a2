"""Names calls, so that one that is sent again is carried out once.

The server remembers the last call of each *caller* (``lua/lib/calls.lua``). A caller has one call under way
at a time, and the numbers of its calls rise: a repeated one gets its answer again, and a copy that arrives
when a later call was answered has no effect. So each of the calls that are under way together has a caller of
its own. Callers belong to one start of a store, whatever the workers are called that use it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
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

    @contextmanager
    def call(self, queue: str, worker: str = "") -> Generator[Call]:
        """Name a call for as long as it is under way. If it fails, the caller's next call says so."""
        busy = self._busy.setdefault((queue, worker), set())
        place = next(n for n in count() if n not in busy)
        busy.add(place)
        number, lane = next(self._numbers), (queue, worker, place)
        try:
            lost = self._lost.get(lane, 0)
            yield Call(b"%b.%x" % (self.name(worker), place), number.to_bytes(6), lost.to_bytes(6))
        except BaseException:
            if worker:  # only a worker's lost calls matter: they may have claimed jobs
                self._lost.setdefault(lane, number)
            raise
        else:
            if self._lost:
                self._lost.pop(lane, None)
        finally:
            busy.discard(place)
            if not busy:
                self._busy.pop((queue, worker), None)
