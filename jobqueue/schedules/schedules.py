"""The schedules of a queue: added by calls or declared in code, listed, paused, run now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from jobqueue.client.results import EnqueueResult
from jobqueue.errors import InvalidArgumentError, JobNotFoundError, JobQueueError
from jobqueue.model.ticks import CatchUp
from jobqueue.runtime.ids import unique_id
from jobqueue.runtime.loggers import get_logger
from jobqueue.schedules.made import ScheduleHost, ScheduleOptions, Times, made_of, task_name
from jobqueue.schedules.store_time import StoreTime
from jobqueue.schedules.stored import (
    KEPT,
    Schedule,
    StoredSchedule,
    all_schedules,
    check_name,
    space_of,
    write_stamp,
)
from jobqueue.storage.capabilities import Documents, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Change

__all__ = ["QueueSchedules"]

T = TypeVar("T")

log = get_logger("jobqueue")


class QueueSchedules:
    """The schedules of one queue. The queue must be started; it need not work.

    Ticks are enqueued wherever a `Reaper` serves the queue: by the command ``jobqueue reaper``, an `App`, or
    ``jobqueue worker``.
    """

    def __init__(self, host: ScheduleHost) -> None:
        self._host = host
        self._declared: dict[str, StoredSchedule] = {}
        self._time: tuple[Storage, StoreTime] | None = None

    async def add(
        self,
        name: str,
        what: Any,
        *,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        cron: str | None = None,
        every: float | None = None,
        timezone: str = "UTC",
        jitter: float = 0.0,
        catch_up: CatchUp | str = CatchUp.LAST,
        paused: bool = False,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Enqueue a job at each of the given times from now on. A schedule of this name is replaced.

        If that had the same times and was not paused, none is lost or doubled: so a program may add its
        schedules whenever it starts.

        Args:
            name: what it is called, and begins the ids of its jobs; at most 200 bytes.
            what: a task of this queue, a payload for its handler, or an `EnqueueRequest` (of any id).
            args, kwargs: arguments of the task.
            cron: five fields, names and ``@daily`` and the like: ``"30 2 * * mon-fri"``.
            every: seconds between two ticks, at least 1; ticks are multiples of it since 1970 in UTC. Either
                this or ``cron``.
            timezone: IANA name of the time zone of ``cron``.
            jitter: seconds by which the start of each job is put off, at the most; drawn from its id.
            catch_up: what becomes of ticks that nobody enqueued for more than a minute: ``"skip"``,
                ``"last"`` of them, or ``"all"``.
            paused: have no ticks until `resume`.
            options: ``priority``, ``max_attempts``, ``result_ttl``, ``group`` and ``expires`` of
                `Queue.enqueue`.

        Raises `InvalidArgumentError`, `TypeError` for arguments that do not fit the task,
        `SerializationError`, `UnsupportedError` if the store keeps no documents, `StorageError`.
        """
        times = Times(cron, every, timezone, jitter, catch_up)
        made = made_of(self._host, name, what, args, kwargs, times, "call", options, paused=paused)
        storage = self._host.store()
        store = _documents(storage)
        now = await self._now(storage)

        def replaced(old: StoredSchedule | None) -> StoredSchedule:
            return _continued(made, old, now)

        return (await self._change(store, made.name, replaced)).view()

    async def list(self) -> list[Schedule]:
        """Return all schedules of this queue, by name. Raises `StorageError`."""
        store = _documents(self._host.store())
        found = [StoredSchedule.read(document) async for document in all_schedules(store, self._host.name)]
        return sorted(map(self._view, found), key=lambda schedule: schedule.name)

    async def get(self, name: str) -> Schedule | None:
        """Return one schedule, ``None`` if there is none of that name. Raises `StorageError`."""
        store = _documents(self._host.store())
        (document,) = await store.read_documents(space_of(self._host.name), [check_name(name)])
        return None if document is None else self._view(StoredSchedule.read(document))

    async def remove(self, name: str) -> bool:
        """Delete a schedule; return whether there was one. Jobs that it has enqueued stay."""
        store = _documents(self._host.store())
        space = space_of(self._host.name)
        (document,) = await store.read_documents(space, [check_name(name)])
        if document is None:
            return False
        await store.write_documents(space, [Change(name, None, None)])
        await write_stamp(store, self._host.name)
        return True

    async def pause(self, name: str) -> Schedule:
        """Have no ticks until `resume`; a paused schedule stays as it is. Raises `JobNotFoundError`."""
        return await self._set_paused(name, paused=True)

    async def resume(self, name: str) -> Schedule:
        """Have ticks again, from now on: those of the pause are left out. Raises `JobNotFoundError`."""
        return await self._set_paused(name, paused=False)

    async def run_now(self, name: str) -> EnqueueResult[Any]:
        """Enqueue a job of a schedule now, paused or not, beside its ticks; its id is ``NAME@now-UNIQUE``.

        Raises `JobNotFoundError` if there is no such schedule, and what `Queue.enqueue` raises.
        """
        store = _documents(self._host.store())
        (document,) = await store.read_documents(space_of(self._host.name), [check_name(name)])
        if document is None:
            raise _unknown(name, self._host.name)
        stored = StoredSchedule.read(document)
        return await self._host.insert(
            stored.job._replace(id=f"{name}@now-{unique_id()}", ttl=max(stored.job.ttl, KEPT))
        )

    # -- of code --------------------------------------------------------------------------------------

    def of_task(
        self,
        *,
        cron: str | None = None,
        every: float | None = None,
        timezone: str = "UTC",
        jitter: float = 0.0,
        catch_up: CatchUp | str = CatchUp.LAST,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Callable[[T], T]:
        """Declare a schedule of a task, with its name: see `Queue.schedule`."""
        times = Times(cron, every, timezone, jitter, catch_up)

        def declare(task: T) -> T:
            self._host.check_unstarted()
            name = task_name(self._host, task)
            if name is None:
                raise InvalidArgumentError(
                    "task",
                    f"must be a task of queue {self._host.name!r}: put @queue.task below @queue.schedule",
                )
            if name in self._declared:
                raise JobQueueError(
                    f"task {name!r} has a schedule already: add others with queue.schedules.add"
                )
            self._declared[name] = made_of(
                self._host, name, task, args, kwargs, times, "code", options, paused=False
            )
            return task

        return declare

    async def declare(self, storage: Storage) -> None:
        """Write the schedules of the code to a store that is open: where they differ, the code wins.

        A pause that somebody has ordered stays. Raises `StorageError` and `UnsupportedError`.
        """
        if not self._declared:
            return
        store, queue = _documents(storage), self._host.name
        found: dict[str, StoredSchedule] = {}
        async for document in all_schedules(store, queue):
            found[document.name] = StoredSchedule.read(document)
        for name in sorted(name for name, stored in found.items() if self._view(stored).orphaned):
            log.warning(
                "schedule %r of queue %r is no longer in the code: it goes on until removed", name, queue
            )
        different = [made for made in self._declared.values() if not _is_declared(made, found.get(made.name))]
        if not different:
            return
        now = await self._now(storage)
        for made in different:
            old = found.get(made.name)
            if old is not None:
                log.warning(
                    "schedule %r of queue %r: the code replaces what is stored (%s by %s)",
                    made.name, queue, _times(old), _times(made),
                )  # fmt: skip

            def replaced(old: StoredSchedule | None, made: StoredSchedule = made) -> StoredSchedule:
                return _continued(made if old is None else replace(made, paused=old.paused), old, now)

            await self._change(store, made.name, replaced)

    # -- for the methods above ------------------------------------------------------------------------

    async def _now(self, storage: Storage) -> int:
        """Return the time of a store."""
        if self._time is None or self._time[0] is not storage:
            self._time = storage, StoreTime(storage)
        return await self._time[1].now()

    async def _set_paused(self, name: str, *, paused: bool) -> Schedule:
        storage = self._host.store()
        store = _documents(storage)
        check_name(name)
        now = await self._now(storage)

        def turned(old: StoredSchedule | None) -> StoredSchedule:
            if old is None:
                raise _unknown(name, self._host.name)
            if old.paused is paused:
                return old
            return replace(old, paused=paused, mark=old.mark if paused else max(old.mark, now))

        return self._view(await self._change(store, name, turned))

    async def _change(
        self,
        store: Documents,
        name: str,
        decide: Callable[[StoredSchedule | None], StoredSchedule],
    ) -> StoredSchedule:
        """Write what ``decide`` makes of the stored one, again for each change by others meanwhile."""
        space = space_of(self._host.name)
        while True:
            (document,) = await store.read_documents(space, [name])
            new = decide(None if document is None else StoredSchedule.read(document))
            expected = 0 if document is None else document.version
            # Else nobody would look into this space, if this process died before the end.
            if document is None:
                await write_stamp(store, self._host.name)
            (version,) = await store.write_documents(space, [Change(name, expected, new.data())])
            if version is not None:
                await write_stamp(store, self._host.name)
                return new

    def _view(self, stored: StoredSchedule) -> Schedule:
        lost = stored.origin == "code" and bool(self._host.tasks) and stored.name not in self._declared
        return stored.view(orphaned=lost)


def _documents(storage: Storage) -> Documents:
    return require(storage, Documents, "schedules")


def _continued(made: StoredSchedule, old: StoredSchedule | None, now: int) -> StoredSchedule:
    """Return a schedule with the mark that follows from the one it replaces."""
    if old is None:
        return replace(made, mark=now)
    if made.same_times(old) and (made.paused or not old.paused):
        return replace(made, mark=old.mark, last=old.last)
    return replace(made, mark=max(old.mark, now), last=old.last)


def _is_declared(made: StoredSchedule, stored: StoredSchedule | None) -> bool:
    return stored is not None and stored.origin == made.origin and made.same_definition(stored)


def _times(stored: StoredSchedule) -> str:
    return f"every {stored.every:g} s" if stored.cron is None else f"{stored.cron} {stored.timezone}"


def _unknown(name: str, queue: str) -> JobNotFoundError:
    return JobNotFoundError(f"no schedule {name!r} in queue {queue!r}")
