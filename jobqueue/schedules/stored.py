"""A schedule as it is stored: a document in the space of its queue, under its name.

Beside them is a stamp for each queue, in a space of its own. It is written after every change of a
definition, so that schedulers find what was changed by reading one small document per queue. Ticks do not
touch it.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self, cast

from jobqueue.errors import InvalidArgumentError, SerializationError, StorageError
from jobqueue.model.checks import (
    MAX_ID_BYTES,
    MAX_INSTANT,
    check_bool,
    check_count,
    check_id,
    check_millis,
    instant,
)
from jobqueue.model.serde import MsgpackSerde, load
from jobqueue.model.ticks import CatchUp, jitter_of, next_tick, tick_id
from jobqueue.model.timetable import Timetable, make_timetable
from jobqueue.storage.arguments import check_insert
from jobqueue.storage.capabilities import Documents
from jobqueue.storage.values import MAX_DOCUMENT, Change, Document, NewJob

__all__ = [
    "KEPT",
    "MAX_NAME",
    "STAMPS",
    "Schedule",
    "StoredSchedule",
    "all_schedules",
    "check_name",
    "space_of",
    "write_stamp",
]

STAMPS = "schedules"
"""Space of the stamps: a document for each queue that has, or had, schedules."""
MAX_NAME = 200
"""Largest number of bytes in the name of a schedule: the ids of its jobs are longer."""
PAGE = 500
"""Documents that one call lists."""
KEPT = 300_000
"""Milliseconds that the record of a tick is kept after its end, at the least: as long as it is there, no
scheduler can enqueue the tick again, however late it is."""
FORMAT = 1

_OF_THE_TICK = frozenset({"id", "delay", "run_at", "reuse", "wait", "conflict"})
"""Fields of a job that are not those of every tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule of a queue, as it was read."""

    name: str
    task: str
    """Name of the task of its jobs; ``""``: the queue's handler runs them."""
    cron: str | None
    """Its cron expression, as it was given; ``None``: it has ``every``."""
    every: float | None
    """Seconds between its ticks; ``None``: it has ``cron``."""
    timezone: str
    """Time zone of ``cron``."""
    next_at: datetime | None
    """Its next tick; ``None`` while it is paused, and after the last."""
    last_at: datetime | None
    """The last tick that was enqueued; ``None`` before the first."""
    paused: bool
    catch_up: CatchUp
    """What becomes of ticks that are more than a minute late."""
    jitter: float = 0.0
    """Seconds by which the start of a job is put off, at the most."""
    origin: str = "call"
    """``"code"`` if `Queue.schedule` declared it, ``"call"`` if `QueueSchedules.add` or the command did."""
    orphaned: bool = False
    """It was declared in code, and this queue has tasks, but not this declaration any more. It goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """The content of the document of a schedule; what is stored of it is checked."""

    name: str
    cron: str | None
    every: float | None
    timezone: str
    jitter: int
    """Milliseconds."""
    catch_up: CatchUp
    paused: bool
    origin: str
    job: NewJob
    """The job of every tick but for its id and start."""
    mark: int
    """Instant until which all ticks have been decided."""
    last: int | None
    """The last tick that was enqueued."""
    table: Timetable | None
    """``None`` if its time zone or expression is not known here."""

    def data(self) -> bytes:
        """Return the bytes to store. Raises `InvalidArgumentError` if they are too many."""
        data: bytes = _serde().dumps({
            "format": FORMAT,
            "cron": self.cron,
            "every": self.every,
            "timezone": self.timezone,
            "jitter": self.jitter,
            "catch_up": self.catch_up.value,
            "paused": self.paused,
            "origin": self.origin,
            "job": {
                field: value
                for field, value in self.job._asdict().items()
                if field not in _OF_THE_TICK and value != NewJob._field_defaults.get(field)
            },
            "mark": self.mark,
            "last": self.last,
        })  # fmt: skip
        if len(data) > MAX_DOCUMENT:
            raise InvalidArgumentError(
                "what",
                f"makes a schedule of {len(data)} bytes, the limit is {MAX_DOCUMENT}: pass a reference",
            )
        return data

    @classmethod
    def read(cls, document: Document) -> Self:
        """Read a document. Raises `StorageError` for one that this release cannot read."""
        try:
            found: Any = load(_serde(), document.data, f"schedule {document.name!r}")
            if found["format"] > FORMAT:
                raise StorageError(
                    f"schedule {document.name!r} has format {found['format']}, and this release reads up to "
                    f"{FORMAT}: update it"
                )
            job = {
                field: value
                for field, value in cast("dict[str, Any]", found["job"]).items()
                if field in NewJob._fields
            }
            stored = cls(
                name=document.name,
                cron=found["cron"],
                every=found["every"],
                timezone=found["timezone"],
                jitter=check_millis("jitter", found["jitter"]),
                catch_up=CatchUp(found["catch_up"]),
                paused=check_bool("paused", found["paused"]),
                origin=found["origin"],
                job=NewJob(document.name, **job),
                mark=check_count("mark", found["mark"], low=0, high=MAX_INSTANT),
                last=found["last"] and check_count("last", found["last"], high=MAX_INSTANT),
                table=_table(found["cron"], found["every"], found["timezone"]),
            )
            # Or the store would refuse it together with the ticks of others.
            check_insert("default", [stored.job_of(0)], None, None)
        except (ValueError, TypeError, KeyError, AttributeError, SerializationError) as error:
            raise StorageError(
                f"schedule {document.name!r} cannot be read ({type(error).__name__}): remove it, and add it "
                "anew"
            ) from error
        return stored

    @property
    def next(self) -> int | None:
        """The next tick to decide; ``None`` while paused, after the last, and without a timetable."""
        return None if self.paused or self.table is None else next_tick(self.table, self.mark)

    def job_of(self, tick: int) -> NewJob:
        """Return the job of a tick."""
        id = tick_id(self.name, tick)
        return self.job._replace(id=id, run_at=tick + jitter_of(id, self.jitter), ttl=max(self.job.ttl, KEPT))

    def same_times(self, other: StoredSchedule) -> bool:
        """Return whether both have the same ticks."""
        return (self.cron, self.every, self.timezone) == (other.cron, other.every, other.timezone)

    def same_definition(self, other: StoredSchedule) -> bool:
        """Return whether both are the same but for what happens to a schedule in its life."""
        return self == replace(
            other, paused=self.paused, mark=self.mark, last=self.last, table=self.table, origin=self.origin
        )

    def view(self, *, orphaned: bool = False) -> Schedule:
        """Make the public view."""
        upcoming = self.next
        return Schedule(
            name=self.name,
            task=self.job.task,
            cron=self.cron,
            every=self.every,
            timezone=self.timezone,
            next_at=None if upcoming is None else instant(upcoming),
            last_at=None if self.last is None else instant(self.last),
            paused=self.paused,
            catch_up=self.catch_up,
            jitter=self.jitter / 1000,
            origin=self.origin,
            orphaned=orphaned,
        )


def check_name(name: object) -> str:
    """Return a valid name of a schedule: an id of at most `MAX_NAME` bytes."""
    checked = check_id(name, "name")
    if len(checked.encode()) > MAX_NAME:
        raise InvalidArgumentError(
            "name", f"must be 1 to {MAX_NAME} bytes: the ids of its jobs, of at most {MAX_ID_BYTES}, have it"
        )
    return checked


def space_of(queue: str) -> str:
    """Return the space of the schedules of a queue."""
    return f"{STAMPS}:{queue}"


async def all_schedules(store: Documents, queue: str) -> AsyncIterator[Document]:
    """Yield the documents of all schedules of a queue."""
    cursor = None
    while True:
        page = await store.list_documents(space_of(queue), PAGE, cursor)
        for document in page.documents:
            yield document
        cursor = page.cursor
        if cursor is None:
            return


async def write_stamp(store: Documents, queue: str) -> None:
    """Let schedulers read the schedules of a queue again."""
    await store.write_documents(STAMPS, [Change(queue, None, b"")])


@functools.cache
def _serde() -> MsgpackSerde:
    return MsgpackSerde()  # loads msgpack, for those who have schedules


def _table(cron: str | None, every: float | None, timezone: str) -> Timetable | None:
    try:
        return make_timetable(cron, every, timezone)
    except InvalidArgumentError:
        return None
