"""The jobs of a queue as an operator sees them: list, read, cancel, run again, delete, explain, watch."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeGuard

from jobqueue.client.results import JobStatus
from jobqueue.errors import InvalidArgumentError
from jobqueue.explanation import Count, Explanation, explain
from jobqueue.model.checks import (
    check_bool,
    check_count,
    check_id,
    check_instant,
    check_label,
    check_member,
    check_priority,
    check_seconds,
    millis,
)
from jobqueue.model.serde import Serde, dump
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.storage.capabilities import Revival, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import CancelStatus, Record

__all__ = ["MAX_PAGE", "SAME", "JobFilter", "JobPage", "QueueJobs", "QueueView", "Which"]

MAX_PAGE = 1_000
"""Most jobs that one `QueueJobs.list` returns."""
MOST_READ = 10_000
"""Most records that one `QueueJobs.list` reads in search of those that a filter lets through."""
MOST_CALLS = 100
"""Most calls to the store that one `QueueJobs.list` makes."""
STEP = 1_000
"""Most records of one such call."""
BATCH = 500
"""Jobs that one call to the store changes."""
WATCH_INTERVAL = 0.5
"""Seconds between two looks of `QueueJobs.watch`."""

_ORDER = tuple(JobState)
SAME: Any = object()
"""Stands for: the payload stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are meant: those for which everything holds that is given.

    ``state`` is answered from an index; the rest is looked for among the jobs of the state, or of all.
    """

    state: JobState | str | None = None
    task: str | None = None
    group: str | None = None
    priority: int | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None
    run_before: datetime | None = None
    run_after: datetime | None = None


class JobPage(NamedTuple):
    """A page of `QueueJobs.list`."""

    jobs: list[JobStatus[Any]]
    cursor: str | None
    """Where the next page begins; ``None`` after the last. A page with a filter may be empty before that."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """The part of a queue through which its jobs are seen."""

    name: str
    payload_serde: Serde[Any]
    result_serde: Serde[Any]
    max_bytes: int
    """Largest number of bytes of a payload."""
    store: Callable[[], Storage]
    """Return the open store; raise if the queue is not started."""
    status: Callable[[Record], JobStatus[Any]]
    """Make the public view of a record; what cannot be read of it is ``None``."""
    cancelled: Callable[[str], None]
    """Tell that a job was cancelled here."""
    count: Count | None = None
    """Count jobs for an explanation, which may be a moment old; ``None``: the store counts them now."""
    patience: float = math.inf
    """Seconds of a search after which `QueueJobs.list` returns what it has found."""


Which = str | Iterable[str] | JobFilter
"""An id, ids, or a filter."""


class QueueJobs:
    """The jobs of one queue, for those who operate it. The queue must be started; it need not work."""

    def __init__(self, view: QueueView) -> None:
        self._view = view

    @property
    def payload_serde(self) -> Serde[Any]:
        """What turns payloads into bytes and back."""
        return self._view.payload_serde

    @property
    def result_serde(self) -> Serde[Any]:
        """What turns results and progress into bytes and back."""
        return self._view.result_serde

    @property
    def max_payload_bytes(self) -> int:
        """Largest number of bytes of a payload."""
        return self._view.max_bytes

    async def list(
        self,
        filter: JobFilter | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        **given: Any,
    ) -> JobPage:
        """Return a page of jobs, without payload and history, and where the next page begins.

        ``filter``, or its fields by keyword: ``list(state="failed", task="send")``. With a state, a job that
        stays in it is listed exactly once; without, state by state: one that changes meanwhile may come
        twice, or not at all if it goes back to a state that was listed before. At most ``limit`` (1,000)
        jobs; with other fields than the state, one call reads at most 10,000 records in 100 steps, and may
        return fewer. ``attempts`` of a listing has those that met no handler; `get` leaves them out.

        Raises `InvalidArgumentError`, also for a cursor that `list` did not give, and `StorageError`.
        """
        check = _Check(_filter(filter, given))
        check_count("limit", limit, high=MAX_PAGE)
        states = _ORDER if check.state is None else (check.state,)
        state, inner = _place(cursor, states)
        store, name = self._view.store(), self._view.name
        found: list[Record] = []
        read = calls = 0
        most, until = limit, store.clock.monotonic() + self._view.patience
        while len(found) < limit and read < MOST_READ and calls < MOST_CALLS:
            if calls and store.clock.monotonic() >= until:
                break
            calls += 1
            page = await store.scan(name, state, most, inner)
            read += len(page.records)
            room = limit - len(found)
            meant = [place for place, record in enumerate(page.records) if check.lets_through(record)]
            if len(meant) > room:
                # A page can end only where one of the store does: have that one end with the last that fits.
                most = meant[room - 1] + 1
                continue
            found += [page.records[place] for place in meant]
            most = _next_step(room - len(meant), len(page.records), len(meant))
            inner = page.cursor
            if inner is None:
                at = states.index(state) + 1
                if at == len(states):
                    return JobPage([self._view.status(record) for record in found], None)
                state = states[at]
        return JobPage([self._view.status(record) for record in found], f"{state.value}:{inner or ''}")

    async def get(self, id: str) -> JobStatus[Any] | None:
        """Return a job with its payload and history, dead letters included; ``None`` if there is none."""
        check_id(id)
        (record,) = await self._view.store().get(self._view.name, [id], payload=True, letters=True)
        return None if record is None else self._view.status(record)

    async def cancel(self, which: Which, *, running: bool = False) -> int:
        """Cancel waiting jobs, by id, ids or filter; return how many.

        With ``running``, also ask the workers of running ones to end them; these count as well, and so does
        a job named by its id that was cancelled before.
        """
        check_bool("running", running)
        done = 0
        counted = {CancelStatus.CANCELLED, CancelStatus.CANCELLING} if running else {CancelStatus.CANCELLED}
        states = WAITING | {JobState.PROCESSING} if running else WAITING
        store = self._view.store()
        async for ids in self._batches(which, states):
            statuses = await store.cancel(self._view.name, ids, running=running)
            done += sum(status in counted for status in statuses)
            for id, status in zip(ids, statuses, strict=True):
                if status is CancelStatus.CANCELLED:
                    self._view.cancelled(id)
        return done

    async def retry(self, which: Which, *, payload: Any = SAME, delay: float = 0.0) -> int:
        """Run failed jobs again, dead letters included, by id, ids or filter; return how many.

        Such a job waits as if it were new, with all its attempts, and keeps its id and its history. Jobs in
        other states stay as they are and do not count. With ``payload``, the one job that ``which`` names
        gets another payload. ``delay`` in seconds.

        Raises `UnsupportedError` if the store cannot, `InvalidArgumentError`, `SerializationError`.
        """
        later = millis(check_seconds("delay", delay, zero=True))
        store = require(self._view.store(), Revival, "retrying failed jobs")
        data: bytes | None = None
        if payload is not SAME:
            if not isinstance(which, str):
                raise InvalidArgumentError("payload", "goes to one job: name it by its id")
            data = dump(self._view.payload_serde, payload, "the payload", self._view.max_bytes)
        done = 0
        async for ids in self._batches(which, frozenset({JobState.FAILED})):
            done += sum(await store.revive(self._view.name, ids, later, data))
        return done

    async def remove(self, which: Which) -> int:
        """Delete waiting and ended jobs, by id, ids or filter; return how many. Running ones stay.

        Calls that wait for a deleted job raise `JobCancelledError`. Raises `UnsupportedError` if the store
        cannot.
        """
        store = require(self._view.store(), Revival, "deleting jobs")
        done = 0
        async for ids in self._batches(which, WAITING | ENDED):
            done += sum(await store.forget(self._view.name, ids))
        return done

    async def explain(self, id: str) -> Explanation:
        """Say why a job does not run: when it is due, that the queue is paused, that no worker has its task.

        Raises `InvalidArgumentError` and `StorageError`.
        """
        check_id(id)
        return await explain(self._view.store(), self._view.name, id, self._view.count)

    async def watch(self, id: str, *, timeout: float | None = None) -> AsyncIterator[JobStatus[Any]]:
        """Yield the job's status now and at each change of state, attempts or progress, until it has ended.

        At most a second late. Ends at once for an id without a job, and after ``timeout`` seconds.
        """
        check_id(id)
        clock = self._view.store().clock
        until = None if timeout is None else clock.monotonic() + check_seconds("timeout", timeout)
        seen: tuple[Any, ...] | None = None
        while True:
            status = await self.get(id)
            if status is None:
                return
            now = (status.state, status.attempts, status.progress, status.created_at, status.run_at)
            if now != seen:
                seen = now
                yield status
            left = WATCH_INTERVAL if until is None else min(WATCH_INTERVAL, until - clock.monotonic())
            if status.state in ENDED or left <= 0:
                return
            await clock.sleep(left)

    async def _batches(self, which: Which, states: frozenset[JobState]) -> AsyncIterator[Sequence[str]]:
        """Yield the ids that are meant, in batches; of a filter, those in one of these states."""
        if not isinstance(which, JobFilter):
            ids = _ids(which)
            for start in range(0, len(ids), BATCH):
                yield ids[start : start + BATCH]
                await self._view.store().clock.sleep(0)  # calls of a store in memory let nobody else run
            return
        check = _Check(which)
        store, name = self._view.store(), self._view.name
        counts = await store.counts(name)
        done = set[str]()
        for state in _ORDER:
            if state not in states or check.state not in (None, state):
                continue
            cursor: str | None = None
            # Not for ever: jobs that are changed may come back to this state, and new ones come all the time.
            left = getattr(counts, state.value) + BATCH
            while left > 0:
                page = await store.scan(name, state, BATCH, cursor)
                left -= len(page.records)
                meant = (record.id for record in page.records if check.lets_through(record))
                ids = [id for id in meant if id not in done]
                done.update(ids)
                if ids:
                    yield ids
                cursor = page.cursor
                if cursor is None:
                    break
                await store.clock.sleep(0)  # calls of a store in memory let nobody else run


class _Check:
    """A filter whose fields have been checked."""

    def __init__(self, given: JobFilter) -> None:
        self.state = None if given.state is None else check_member("state", JobState, given.state)
        self._task = None if given.task is None else check_label("task", given.task)
        self._group = None if given.group is None else check_label("group", given.group)
        self._priority = None if given.priority is None else check_priority(given.priority)
        self._created = _span("created", given.created_after, given.created_before)
        self._run = _span("run", given.run_after, given.run_before)

    def lets_through(self, record: Record) -> bool:
        """Return whether everything but the state holds for a record."""
        return (
            (self._task is None or record.task == self._task)
            and (self._group is None or record.group == self._group)
            and (self._priority is None or record.priority == self._priority)
            and self._created[0] < record.created_at < self._created[1]
            and self._run[0] < record.run_at < self._run[1]
        )


def _span(name: str, after: datetime | None, before: datetime | None) -> tuple[float, float]:
    return (
        float("-inf") if after is None else check_instant(f"{name}_after", after),
        float("inf") if before is None else check_instant(f"{name}_before", before),
    )


def _filter(given: JobFilter | None, fields_given: dict[str, Any]) -> JobFilter:
    if given is not None and not isinstance(given, JobFilter):
        raise InvalidArgumentError("filter", "must be a JobFilter")
    known = {field.name for field in fields(JobFilter)}
    for name in fields_given:
        if name not in known:
            raise InvalidArgumentError(name, f"is no field of a JobFilter: {', '.join(sorted(known))}")
    return replace(given, **fields_given) if given is not None else JobFilter(**fields_given)


def _next_step(room: int, read: int, meant: int) -> int:
    """Return how many records to read for ``room`` more jobs, if ``meant`` of the last ``read`` were."""
    if meant == read:
        return room
    share = read * 4 if not meant else -(-room * read // meant)
    return max(room, min(STEP, share))


def _place(cursor: str | None, states: Sequence[JobState]) -> tuple[JobState, str | None]:
    """Return where a page begins: the state, and the store's own cursor in it."""
    if cursor is None:
        return states[0], None
    if isinstance(cursor, str):
        state, _, inner = cursor.partition(":")
        for known in states:
            if known.value == state:
                return known, inner or None
    raise InvalidArgumentError("cursor", "is not one that list() gave for these states")


def _ids(which: str | Iterable[str]) -> list[str]:
    if isinstance(which, str):
        return [check_id(which, "which")]
    if not _is_iterable(which):
        raise InvalidArgumentError("which", "must be an id, ids, or a JobFilter")
    return [check_id(id, f"which[{place}]") for place, id in enumerate(which)]


def _is_iterable(value: object) -> TypeGuard[Iterable[str]]:
    return isinstance(value, Iterable)
