"""The ready jobs of one queue that belong to groups, and whose turn it is.

Each group has a line for each priority of its ready jobs, and each line a turn: a number, lower ones first. A
line that begins, and one that has taken its turn, gets the highest. A group that was found to be at its limit
is parked until a run of it ends or its rate opens; its lines keep their turns. That a group is parked is only
a note of what `admit` says of it, so that nobody has to ask again: it may be dropped at any time, and is not
saved.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from jobqueue.model.limits import NO_LIMIT, Limit, admit, clamped, opens_at
from jobqueue.storage.engine.job_entry import JobEntry

__all__ = ["GroupLines", "SavedGroups", "Turn"]

_SLACK = 64
"""Dead entries of a heap, beside twice the living, from which on it is made anew."""


class _Line:
    """The ready jobs of one group and priority, first in front."""

    __slots__ = ("group", "jobs", "left", "priority", "ringed", "turn")

    def __init__(self, group: _Group, priority: int, turn: int, left: int) -> None:
        self.group = group
        self.priority = priority
        self.turn = turn
        self.left = left
        """Jobs that it may still start in a turn that it has begun; 0: it has not."""
        self.ringed = False
        """Whether it stands in the ring with its present turn."""
        self.jobs: OrderedDict[str, JobEntry] = OrderedDict()


class _Group:
    """A group with ready or running jobs, or a rate that is not open yet."""

    __slots__ = ("lines", "name", "parked", "running", "tat")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[int, _Line] = {}  # by priority; none is empty, unless it was just restored
        self.running = 0
        self.tat = 0
        self.parked: float | None = None
        """The instant at which its rate opens, infinite for "when a run ends"; ``None``: it may start."""


class Turn(NamedTuple):
    """Whose turn it is, and how many jobs it may start."""

    priority: int
    line: _Line | None
    """``None``: the jobs without a group."""
    most: int
    contested: bool = True
    """False: no group may start a job of this priority."""


class SavedGroups(NamedTuple):
    """What outlives the process of the groups of a queue."""

    queue: str
    tat: int
    """That of the queue itself."""
    lines: tuple[tuple[int, str, int], ...]
    """Priority, group (``""``: the jobs without one) and jobs left of its turn, in the order of their
    turns."""
    tats: tuple[tuple[str, int], ...]
    """Groups whose rate has a number."""


class GroupLines:
    """All groups of one queue. Nothing is left of one that is idle and whose rate is open."""

    __slots__ = ("_groups", "_idle", "_opens", "_rings", "_turn", "_turns", "count", "limit")

    def __init__(self, limit: Limit = NO_LIMIT) -> None:
        self.limit = limit
        self.count = 0
        """Number of ready jobs."""
        self._groups: dict[str, _Group] = {}
        self._rings: dict[int, list[tuple[int, _Line]]] = {}  # heaps by priority, with dead entries
        self._opens: list[tuple[float, str]] = []  # heap of parked groups whose rate opens, with dead entries
        self._idle: list[tuple[int, str]] = []  # heap of groups that wait to be forgotten, with dead entries
        self._turn = 0
        """The last turn given."""
        self._turns: dict[int, int] = {}
        """The turns of the jobs without a group, by priority."""

    def __len__(self) -> int:
        return len(self._groups)

    # -- the ready jobs ---------------------------------------------------------------------------

    def put(self, job: JobEntry, *, front: bool = False) -> None:
        """Put a job at the back of its line, or in front."""
        name, priority = job.extras.group, job.priority
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(name)
        line = group.lines.get(priority)
        if line is None:
            line = self._begin(group, priority)
        line.jobs[job.id] = job
        if front:
            line.jobs.move_to_end(job.id, last=False)
        self.count += 1

    def drop(self, job: JobEntry, now: int) -> None:
        """Remove a ready job."""
        line = self._groups[job.extras.group].lines[job.priority]
        del line.jobs[job.id]
        self.count -= 1
        if not line.jobs:
            self._end(line, now)

    def __iter__(self) -> Iterator[JobEntry]:
        """Yield the ready jobs, each line in its order."""
        for group in self._groups.values():
            for line in group.lines.values():
                yield from line.jobs.values()

    def fronts(self) -> Iterator[JobEntry]:
        """Yield the first job of one line of each priority."""
        seen = set[int]()
        for group in self._groups.values():
            for priority, line in group.lines.items():
                if priority not in seen and line.jobs:
                    seen.add(priority)
                    yield next(iter(line.jobs.values()))

    # -- turns ------------------------------------------------------------------------------------

    def next_turn(self, plain: int | None, room: int, now: int) -> Turn | None:
        """Return whose turn it is; ``None`` if no group may start a job and there are none without.

        ``plain``: the highest priority of the ready jobs without a group. ``room``: most jobs to start.
        """
        self._open(now)
        while True:
            priority = max((p for p in list(self._rings) if self._top(p) is not None), default=None)
            if priority is None or (plain is not None and plain > priority):
                return None if plain is None else Turn(plain, None, room, contested=False)
            line = self._top(priority)
            assert line is not None
            group = line.group
            want = min(line.left or _weight(line), room, len(line.jobs))
            granted, _ = admit(self.limit, group.running, group.tat, now, want)
            if not granted:
                self._park(group)
            elif plain == priority and self._turns.get(priority, 0) < line.turn:
                return Turn(priority, None, 1)
            else:
                return Turn(priority, line, granted)

    def take(self, turn: Turn, now: int) -> list[JobEntry]:
        """Remove the jobs that start in a turn of a group, and count them as running."""
        line = turn.line
        assert line is not None
        group, left = line.group, (line.left or _weight(line)) - turn.most
        _, group.tat = admit(self.limit, group.running, group.tat, now, turn.most)
        group.running += turn.most
        self.count -= turn.most
        jobs = [line.jobs.popitem(last=False)[1] for _ in range(turn.most)]
        line.left = left
        if not line.jobs:
            self._end(line, now)
        elif not left:
            self._turn = line.turn = self._turn + 1
            heapq.heapreplace(self._rings[line.priority], (line.turn, line))
        return jobs

    def took_plain(self, priority: int) -> None:
        """Note that a job without a group has started in its turn, which others wait for."""
        self._turn = self._turns[priority] = self._turn + 1

    def ended(self, name: str, now: int) -> bool:
        """Count a run less; return whether its group was parked because of it."""
        group = self._groups[name]
        group.running -= 1
        returns = group.parked == math.inf
        if returns:
            self._unpark(group)
        self._settle(group, now)
        return returns and bool(group.lines)

    def set_limit(self, limit: Limit, now: int) -> None:
        """Obey another limit."""
        self.limit = limit
        for group in self._groups.values():
            group.tat = clamped(limit, group.tat, now)
        self.ask_again()

    def ask_again(self) -> None:
        """Forget which groups are parked."""
        for group in self._groups.values():
            if group.parked is not None:
                self._unpark(group)
        self._opens.clear()

    def may_start(self) -> bool:
        """Return whether there is a group that is not known to be at its limit."""
        return any(self._top(priority) is not None for priority in list(self._rings))

    def next_opening(self) -> int | None:
        """Return the instant at which the next parked group opens by itself."""
        while self._opens:
            at, name = self._opens[0]
            group = self._groups.get(name)
            if group is not None and group.parked == at:
                return int(at)
            heapq.heappop(self._opens)
        return None

    def usage(self, name: str) -> tuple[int, int]:
        """Return how many jobs of a group run, and its number for the rate."""
        group = self._groups.get(name)
        return (0, 0) if group is None else (group.running, group.tat)

    # -- the state as a whole ---------------------------------------------------------------------

    def started(self, name: str) -> None:
        """Count a run more, of a job that was restored."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(name)
        group.running += 1

    def tidy(self, now: int) -> None:
        """Forget idle groups whose rate has opened."""
        while self._idle and self._idle[0][0] <= now:
            group = self._groups.get(heapq.heappop(self._idle)[1])
            if group is not None:
                self._settle(group, now)

    def shift(self, delta: int) -> None:
        """Follow a clock that was set by ``delta`` ms."""
        for group in self._groups.values():
            group.tat = group.tat and max(1, group.tat + delta * 1000)
        self._idle = [(at + delta, name) for at, name in self._idle]
        self.ask_again()

    def save(self, queue: str, tat: int) -> SavedGroups:
        """Return what outlives the process."""
        lines = [
            (line.turn, priority, group.name, line.left)
            for group in self._groups.values()
            for priority, line in group.lines.items()
        ]
        lines += [(turn, priority, "", 0) for priority, turn in self._turns.items() if self.count]
        tats = tuple((group.name, group.tat) for group in self._groups.values() if group.tat)
        return SavedGroups(queue, tat, tuple(line[1:] for line in sorted(lines)), tats)

    def restore(self, saved: SavedGroups) -> None:
        """Take back what `save` has returned, into empty lines: the jobs follow."""
        for name, tat in saved.tats:
            group = self._groups[name] = _Group(name)
            group.tat = tat
            heapq.heappush(self._idle, (_lapse(tat), name))
        for priority, name, left in saved.lines:
            if not name:
                self._turn = self._turns[priority] = self._turn + 1
                continue
            known = self._groups.get(name)
            if known is None:
                known = self._groups[name] = _Group(name)
            self._begin(known, priority).left = left

    # -- inside -----------------------------------------------------------------------------------

    def _begin(self, group: _Group, priority: int) -> _Line:
        self._turn = turn = self._turn + 1
        line = group.lines[priority] = _Line(group, priority, turn, 0)
        if group.parked is None:
            self._join(line)
        return line

    def _join(self, line: _Line) -> None:
        """Put a line into the ring, unless it is there."""
        if line.ringed:
            return
        ring = self._rings.setdefault(line.priority, [])
        if len(ring) > _SLACK + 2 * len(self._groups):
            ring[:] = [(turn, other) for turn, other in ring if other.turn == turn and other.jobs]
            heapq.heapify(ring)
        heapq.heappush(ring, (line.turn, line))
        line.ringed = True

    def _end(self, line: _Line, now: int) -> None:
        del line.group.lines[line.priority]  # its entry in the ring is dead from now on
        self._settle(line.group, now)

    def _settle(self, group: _Group, now: int) -> None:
        """Forget a group if nothing is left of it; if only its rate is, when that is open."""
        if group.lines or group.running:
            return
        group.parked = None
        if _lapse(group.tat) <= now:
            del self._groups[group.name]
            if not self._groups:
                self._rings.clear()
                self._opens.clear()
                self._idle.clear()
                self._turns.clear()
        else:
            if len(self._idle) > _SLACK + 2 * len(self._groups):
                self._idle = [(_lapse(g.tat), g.name) for g in self._groups.values() if g.tat]
                heapq.heapify(self._idle)
            heapq.heappush(self._idle, (_lapse(group.tat), group.name))

    def _top(self, priority: int) -> _Line | None:
        """Return the line of a priority whose turn is next, clearing dead entries from the top."""
        ring = self._rings[priority]
        while ring:
            turn, line = ring[0]
            if line.turn == turn and line.jobs and line.group.parked is None:
                return line
            heapq.heappop(ring)
            if line.turn == turn:
                line.ringed = False
        del self._rings[priority]
        return None

    def _park(self, group: _Group) -> None:
        at = opens_at(self.limit, group.running, group.tat)
        group.parked = math.inf if at is None else at
        if at is not None:
            if len(self._opens) > _SLACK + 2 * len(self._groups):
                self._opens = [
                    (one.parked, one.name)
                    for one in self._groups.values()
                    if one.parked is not None and one.parked < math.inf
                ]
                heapq.heapify(self._opens)
            heapq.heappush(self._opens, (at, group.name))
        # Its entries in the rings are passed over from now on.

    def _unpark(self, group: _Group) -> None:
        group.parked = None
        for line in group.lines.values():
            self._join(line)

    def _open(self, now: int) -> None:
        while True:
            at = self.next_opening()
            if at is None or at > now:
                return
            self._unpark(self._groups[heapq.heappop(self._opens)[1]])


def _weight(line: _Line) -> int:
    return next(iter(line.jobs.values())).extras.weight


def _lapse(tat: int) -> int:
    """Return the instant from which on a number of a rate means as much as none."""
    return -(-tat // 1000)
