"""The duty that enqueues the ticks of schedules: any number of processes may have it at once.

How it works
------------
The next tick of every schedule stands in a heap, and what changed is found by the stamps of the queues (see
`jobqueue.schedules.stored`), which are read every `LOOK` seconds. When a tick is due,

1. the document of its schedule is read: its mark says which ticks are still to do,
2. their jobs are inserted, under ids that follow from the schedule and the tick,
3. the document is written, with the new mark, if it is still the one that was read.

A process that dies between two of these leaves nothing that another would do differently: the same ids are
found. One that was frozen for however long begins with reading. What no step rules out is a process that
stands still between 1 and 2 until the job of the tick has ended and its record has expired: it would enqueue
the tick again. So a reading older than `FRESH` seconds is not used, and the record of a tick is kept for at
least `jobqueue.schedules.stored.KEPT`.

Where a leader is elected, the others begin `FOLLOW` ms later: then they find that all is done.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.model.ticks import due_ticks
from jobqueue.runtime.batching import MOST_ITEMS, fitting
from jobqueue.schedules.store_time import StoreTime
from jobqueue.schedules.stored import STAMPS, StoredSchedule, space_of
from jobqueue.storage.capabilities import Documents, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Change, Document, NewJob

__all__ = ["Scheduler"]

LOOK = 1.0
"""Seconds between two looks for schedules that were changed."""
LOAD_ALL = 60.0
"""Seconds between two readings of all schedules, for a change whose author died before writing the stamp."""
RETRY = 0.5
"""Seconds between two tries while the store fails."""
FRESH = 10.0
"""Seconds that a reading of documents is good for."""
FOLLOW = 100
"""Milliseconds that a follower leaves to the leader."""
BATCH = 250
"""Schedules that are read, and ticks of one schedule that are enqueued, in one step."""
PAGE = 200
"""Documents that one call lists: what comes of them is worked out in one go."""

_LOOKING = ("reading schedules", None)
_TIME = ("reading the store's clock", None)
_ENQUEUEING = "enqueueing scheduled jobs"

Key = tuple[str, str]
"""A queue, and the name of a schedule of it."""


class _Planned(NamedTuple):
    """What is known of a schedule."""

    version: int
    due: int | None
    """Its next tick."""


class _Work(NamedTuple):
    """A schedule whose jobs are being inserted."""

    stored: StoredSchedule
    """As it is to be written."""
    version: int
    """The one that was read."""


class Scheduler:
    """Enqueues the ticks of the schedules of some queues, or of all (``None``), until cancelled.

    ``leads()`` tells whether this process is the one that goes first. ``failed(error, doing, queue)`` is
    called once per outage of the store, and for schedules that cannot be run here.
    """

    def __init__(
        self,
        storage: Storage,
        queues: Sequence[str] | None,
        *,
        leads: Callable[[], bool],
        failed: Callable[[BaseException, str, str | None], None],
    ) -> None:
        self._storage = storage
        self._documents = require(storage, Documents, "schedules")
        self._clock = storage.clock
        self._time = StoreTime(storage)
        self._only = None if queues is None else frozenset(queues)
        self._leads = leads
        self._failed = failed
        self._failing: set[tuple[str, str | None]] = set()
        """What has been reported and has not succeeded since."""
        self._stamps: dict[str, int] = {}
        """Versions of the stamps by which the queues were read."""
        self._known: dict[str, dict[str, _Planned]] = {}
        self._heap: list[tuple[int, Key]] = []
        """Ticks to come; what `_known` does not agree with is void."""
        self._look_at = 0.0
        self._load_all_at = 0.0

    async def run(self) -> None:
        """Enqueue ticks when they are due, until cancelled."""
        while True:
            pause = await self._step()
            await self._clock.sleep(pause)

    @property
    def lag(self) -> float | None:
        """Seconds by which the most overdue tick is late; ``None`` if no schedule has one to come."""
        due = min(
            (planned.due for known in self._known.values() for planned in known.values() if planned.due),
            default=None,
        )
        return None if due is None else max(0.0, (self._time.read() - due) / 1000)

    async def _step(self) -> float:
        """Do what is due; return the seconds until something is, at the most until the next look."""
        if self._clock.monotonic() >= self._look_at:
            try:
                await self._look()
                self._failing.discard(_LOOKING)
            except JobQueueError as error:
                self._fail(_LOOKING, error)
        try:
            while await self._enqueue_due():
                await self._clock.sleep(0.0)  # others run, too, on a store that answers at once
            now = await self._time.now()
            self._failing.discard(_TIME)
        except JobQueueError as error:
            self._fail(_TIME, error)
            return RETRY
        if self._failing:
            return RETRY
        left = max(self._look_at - self._clock.monotonic(), 0.001)
        if not self._heap:
            return left
        return min(left, max((self._heap[0][0] + self._grace() - now) / 1000, 0.001))

    def _grace(self) -> int:
        return 0 if self._leads() else FOLLOW

    def _fail(self, what: tuple[str, str | None], error: BaseException) -> None:
        if what not in self._failing:
            self._failing.add(what)
            self._failed(error, *what)

    # -- what there is --------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Find the queues whose schedules were changed, and read these."""
        self._look_at = self._clock.monotonic() + LOOK
        stamps: dict[str, int] = {}
        cursor = None
        while True:
            page = await self._documents.list_documents(STAMPS, PAGE, cursor)
            stamps.update((stamp.name, stamp.version) for stamp in page.documents)
            cursor = page.cursor
            if cursor is None:
                break
        if self._only is not None:
            stamps = {queue: version for queue, version in stamps.items() if queue in self._only}
        if self._clock.monotonic() >= self._load_all_at:
            self._load_all_at = self._clock.monotonic() + LOAD_ALL
            self._stamps.clear()
        for queue in self._known.keys() - stamps.keys():
            del self._known[queue]
        for queue, version in stamps.items():
            if self._stamps.get(queue) != version:
                await self._load(queue)
                self._stamps[queue] = version
        if len(self._heap) > 1000 + 2 * sum(map(len, self._known.values())):  # mostly void
            self._heap = [entry for entry in self._heap if self._is_planned(*entry)]
            heapq.heapify(self._heap)

    async def _load(self, queue: str) -> None:
        """Read the schedules of a queue; what is due meanwhile goes on between two pages."""
        known = self._known.setdefault(queue, {})
        seen: set[str] = set()
        cursor = None
        while True:
            page = await self._documents.list_documents(space_of(queue), PAGE, cursor)
            for document in page.documents:
                seen.add(document.name)
                planned = known.get(document.name)
                if planned is None or planned.version < document.version:
                    self._plan_read(queue, document)
            cursor = page.cursor
            if cursor is None:
                break
            while await self._enqueue_due():
                await self._clock.sleep(0.0)
            await self._clock.sleep(0.0)
        for name in known.keys() - seen:
            del known[name]

    def _plan_read(self, queue: str, document: Document) -> None:
        stored = self._read(queue, document)
        self._plan(queue, document.name, document.version, None if stored is None else stored.next)

    def _read(self, queue: str, document: Document) -> StoredSchedule | None:
        """Read a document; ``None``, and reported once, if its schedule cannot be run here."""
        try:
            stored = StoredSchedule.read(document)
        except StorageError as error:
            self._failed(error, "reading schedules", queue)
            return None
        if stored.table is None and not stored.paused:
            unknown = StorageError(
                f"schedule {stored.name!r} has the time zone {stored.timezone!r} or the expression "
                f"{stored.cron!r}, which are not known to this process: it leaves its ticks to others"
            )
            self._failed(unknown, "reading schedules", queue)
        return stored

    def _plan(self, queue: str, name: str, version: int, due: int | None) -> None:
        self._known.setdefault(queue, {})[name] = _Planned(version, due)
        if due is not None:
            heapq.heappush(self._heap, (due, (queue, name)))

    def _is_planned(self, due: int, key: Key) -> bool:
        planned = self._known.get(key[0], {}).get(key[1])
        return planned is not None and planned.due == due

    # -- what is due ----------------------------------------------------------------------------------

    async def _enqueue_due(self) -> bool:
        """Enqueue ticks that are due, in one step per queue; return whether there may be more at once."""
        if not self._heap:
            return False
        now = await self._time.now()
        until = now - self._grace()
        due: dict[str, dict[str, int]] = {}
        count = 0
        while self._heap and self._heap[0][0] <= until and count < BATCH:
            tick, key = heapq.heappop(self._heap)
            if self._is_planned(tick, key):
                due.setdefault(key[0], {})[key[1]] = tick
                count += 1
        progress = False
        for queue, names in due.items():
            try:
                await self._enqueue(queue, list(names), now)
                self._failing.discard((_ENQUEUEING, queue))
                progress = True
            except JobQueueError as error:
                self._fail((_ENQUEUEING, queue), error)
            finally:  # what was not planned anew stays due
                for name, tick in names.items():
                    if self._is_planned(tick, (queue, name)):
                        heapq.heappush(self._heap, (tick, (queue, name)))
        return progress

    async def _enqueue(self, queue: str, names: Sequence[str], now: int) -> None:
        begun = self._clock.monotonic()
        documents = await self._documents.read_documents(space_of(queue), names)
        if self._clock.monotonic() - begun > FRESH:
            return
        jobs: list[NewJob] = []
        works: list[_Work] = []
        for name, document in zip(names, documents, strict=True):
            if document is None:
                self._known.get(queue, {}).pop(name, None)
                continue
            stored = self._read(queue, document)
            if stored is None or stored.table is None or stored.paused:
                self._plan(queue, name, document.version, None)
                continue
            upcoming = stored.next
            if upcoming is None or upcoming > now:  # somebody else was faster
                self._plan(queue, name, document.version, upcoming)
                continue
            due = due_ticks(stored.table, stored.mark, now, stored.catch_up, BATCH)
            jobs += map(stored.job_of, due.ticks)
            last = due.ticks[-1] if due.ticks else stored.last
            works.append(_Work(replace(stored, mark=due.mark, last=last), document.version))
            if len(jobs) >= 2 * BATCH:
                break  # the others stay due
        await self._insert(queue, jobs)
        await self._write(queue, works, now)

    async def _insert(self, queue: str, jobs: Sequence[NewJob]) -> None:
        done = 0
        while batch := jobs[done : done + MOST_ITEMS]:
            batch = batch[: fitting(len(job.payload) for job in batch)]
            await self._storage.insert(queue, batch)
            done += len(batch)

    async def _write(self, queue: str, works: Sequence[_Work], now: int) -> None:
        changes = [Change(work.stored.name, work.version, work.stored.data()) for work in works]
        versions: list[int | None] = []
        while batch := changes[len(versions) : len(versions) + MOST_ITEMS]:
            batch = batch[: fitting(len(change.data or b"") for change in batch)]
            versions += await self._documents.write_documents(space_of(queue), batch)
        for work, version in zip(works, versions, strict=True):
            if version is None:  # somebody was faster, or changed it: it says what is left to do
                self._plan(queue, work.stored.name, work.version, now)
            else:
                self._plan(queue, work.stored.name, version, work.stored.next)
