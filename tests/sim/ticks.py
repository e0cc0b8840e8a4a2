"""What must hold of schedules: each tick once, none lost, none that was paused away."""

from __future__ import annotations

import itertools

from jobqueue.model.ticks import CatchUp, tick_id
from jobqueue.schedules.stored import STAMPS, StoredSchedule
from jobqueue.storage.values import Document
from tests.sim.world import ViolationError, World


class Ticks:
    """The schedules of one run, as their documents were written, and the jobs that came of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._created: set[tuple[str, str]] = set()
        self._known: dict[tuple[str, str], StoredSchedule] = {}
        self._owed: dict[tuple[str, str], set[str]] = {}
        """Ids of ticks that were decided, of schedules that catch all up."""
        self._exact = True
        """Whether nothing was rolled back, nor the clock set."""

    def created(self, queue: str, id: str) -> None:
        """Check that a tick is created for the first time."""
        if (queue, id) in self._created and self._exact:
            raise ViolationError(f"tick {id} was enqueued twice")
        self._created.add((queue, id))

    def written(self, document: Document, space: str) -> None:
        """Check the new state of a schedule: its mark rises, and what it leaves behind was enqueued."""
        kind, _, queue = space.partition(":")
        if kind != STAMPS or not queue:
            return
        new = StoredSchedule.read(document)
        old = self._known.get((queue, new.name))
        self._known[queue, new.name] = new
        if old is None or not self._exact or new.mark == old.mark:
            return
        if new.mark < old.mark:
            raise ViolationError(f"the mark of {new.name} went back from {old.mark} to {new.mark}")
        by_scheduler = new.last != old.last
        if not by_scheduler or old.catch_up is not CatchUp.ALL:
            return
        if old.paused:
            raise ViolationError(f"{new.name} had ticks while it was paused")
        assert old.table is not None
        for tick in itertools.takewhile(lambda tick: tick <= new.mark, old.table.after(old.mark)):
            id = tick_id(new.name, tick)
            if (queue, id) not in self._created:
                raise ViolationError(f"tick {id} is marked as enqueued, and was not")

    def rolled_back(self) -> None:
        """Expect nothing exact any more: the store has forgotten ticks, and the marks with them."""
        self._exact = False
        self._known.clear()

    def set_clock(self) -> None:
        """Expect nothing exact any more."""
        self._exact = False

    def behind(self, now: int) -> list[str]:
        """Return the schedules, paused ones aside, with ticks until ``now`` that nobody has decided."""
        return [
            name
            for (_, name), stored in self._known.items()
            if (upcoming := stored.next) is not None and upcoming <= now
        ]
