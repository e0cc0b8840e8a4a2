"""The store that a dashboard shows, opened at the first request, and the queues in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jobqueue.app import App
from jobqueue.client.new_jobs import JobBuilder
from jobqueue.client.results import EnqueueResult, EnqueueStatus
from jobqueue.control import set_paused
from jobqueue.errors import InvalidArgumentError, JobQueueError, StorageError
from jobqueue.jobs import QueueJobs, QueueView
from jobqueue.model.checks import check_queue_name, millis
from jobqueue.model.serde import JsonSerde, Serde, check_serde
from jobqueue.queue import Queue
from jobqueue.runtime.bounded import within
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.lifecycle import loop_of
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.loops import Home, open_apart
from jobqueue.runtime.tasks import apart
from jobqueue.schedules.made import ScheduleHost
from jobqueue.schedules.schedules import QueueSchedules
from jobqueue.stats import QueueStats, ReaperStats, queue_stats
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import as_storage
from jobqueue.storage.values import Counts, InsertStatus, NewJob, WorkerInfo
from jobqueue.web.counting import Counting
from jobqueue.web.values import status_reader

__all__ = ["Desk", "Given", "Source", "given"]

log = get_logger("jobqueue.web")

PATIENCE = 5.0
"""Seconds that a page waits for the store to open; the opening goes on."""
SEARCH = 0.05
"""Seconds after which a search for jobs ends its page: the next one goes on."""
CLOSING = 5.0
"""Seconds that closing the store may take."""
MAX_PAYLOAD = 1_048_576
"""Bytes of a payload in a queue that is not known by its object: the default of `Queue`."""

Given = App | Queue[Any, Any] | Iterable[Queue[Any, Any]] | Storage | str | None
"""What a dashboard can be made for."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How the values of a queue are written."""

    payload: Serde[Any]
    result: Serde[Any]
    max_bytes: int


class Source:
    """A store, and what is known of its queues beforehand."""

    def __init__(self, storage: Storage, known: Mapping[str, Queue[Any, Any]], other: _Form) -> None:
        self._given = storage
        self._known = known
        self._other = other
        self._forget()

    def _forget(self) -> None:
        self._home: Home | None = None
        self._store: Storage | None = None
        self._opening: asyncio.Task[None] | None = None
        self.counting = Counting()
        """Counts of jobs, those that cost the store something kept for a moment."""

    @property
    def clock(self) -> Clock:
        """The clock of the store."""
        return self._given.clock

    @property
    def label(self) -> str:
        """The store in words, without credentials."""
        return repr(self._given)

    def _enter_loop(self) -> None:
        if self._home is None or self._home.is_here():
            return
        if not self._home.is_gone:
            raise JobQueueError("this dashboard serves another event loop: make one for each")
        self._forget()

    async def store(self) -> Storage:
        """Return the open store. Raises `StorageError` if it cannot be opened, or not soon."""
        self._enter_loop()
        if self._store is not None:
            return self._store
        if self._opening is None:
            self._home = Home()
            self._opening = apart(self._open(), "web-open")
            self._opening.add_done_callback(self._opened)
        try:
            await within(self.clock, asyncio.shield(self._opening), PATIENCE)
        except TimeoutError:
            raise StorageError(
                f"the store has not opened within {PATIENCE:g} s: it is read, or does not answer"
            ) from None
        return self._opened_store()

    def _opened_store(self) -> Storage:
        assert self._store is not None
        return self._store

    async def _open(self) -> None:
        here = asyncio.get_running_loop()
        loops = {loop_of(queue) for queue in self._known.values()} - {None, here}
        # One that is open in another loop, as in a worker that runs in a thread, cannot be used here.
        store = self._given.clone() if loops else self._given
        await open_apart(store)
        self._store = store

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who wait have been told

    async def close(self) -> None:
        """Close the store, if it is open; the next request opens it again."""
        self._enter_loop()
        opening = self._opening
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening])
        await self.counting.close()
        store, self._store = self._store, None
        if store is not None:
            try:
                await within(self.clock, store.close(), CLOSING)
            except (JobQueueError, TimeoutError) as error:
                log.warning("the dashboard could not close its store: %s", error or "it took too long")

    async def names(self) -> list[str]:
        """Return the names of the queues, sorted."""
        store = await self.store()
        return sorted({*await store.queues(), *self._known})

    async def desk(self, name: object) -> Desk:
        """Return one queue. Raises `InvalidArgumentError` for a text that is the name of none."""
        queue = check_queue_name(name, "queue")
        known = self._known.get(queue)
        form = self._other if known is None else _Form(
            known.jobs.payload_serde, known.jobs.result_serde, known.jobs.max_payload_bytes
        )  # fmt: skip
        return Desk(await self.store(), queue, form, self.counting)

    async def counts(self, queue: str) -> Counts:
        """Return the number of jobs of a queue in each state, as of now or a moment ago."""
        return await self.counting.of(await self.store(), queue)


class Desk:
    """One queue as those see it who operate it. Nothing has to be started for it."""

    def __init__(self, store: Storage, name: str, form: _Form, counting: Counting) -> None:
        self._store = store
        self._counting = counting
        self.name = name
        self.jobs = QueueJobs(
            QueueView(
                name=name,
                payload_serde=form.payload,
                result_serde=form.result,
                max_bytes=form.max_bytes,
                store=lambda: store,
                status=status_reader(form.payload, form.result),
                cancelled=_tell_nobody,
                count=lambda queue: counting.of(store, queue),
                patience=SEARCH,
            )
        )
        builder = JobBuilder(3, 2, millis(3600.0), form.payload, form.max_bytes)
        self.schedules = QueueSchedules(
            ScheduleHost(name, lambda: store, builder, {}, self._insert, _refuse_declaration)
        )

    @property
    def store(self) -> Storage:
        """The open store."""
        return self._store

    async def stats(
        self,
        sweeping: Sequence[ReaperStats] | None = None,
        seen: Sequence[WorkerInfo] | None = None,
    ) -> QueueStats:
        """Return the figures; ``sweeping`` are the reapers, ``seen`` the workers, where a page has read them.

        Raises `StorageError`.
        """
        counts = await self._counting.of(self._store, self.name)
        return await queue_stats(self._store, self.name, counts, sweeping, seen)

    def changed(self) -> None:
        """Have the jobs be counted anew."""
        self._counting.forget(self.name)

    async def set_paused(self, *, paused: bool) -> None:
        """Pause or resume the queue. Raises `UnsupportedError` and `StorageError`."""
        await set_paused(self._store, self.name, paused=paused)

    async def _insert(self, job: NewJob) -> EnqueueResult[Any]:
        (inserted,) = await self._store.insert(self.name, [job])
        created = inserted.status is InsertStatus.CREATED
        status = EnqueueStatus.QUEUED if created else EnqueueStatus.DUPLICATE
        return EnqueueResult(job.id, status, inserted.state, None, inserted.seq)


def _tell_nobody(_id: str) -> None:
    """Emit no event: there is no queue object that could have listeners."""


def _refuse_declaration() -> NoReturn:
    raise JobQueueError("schedules are not declared in a dashboard")


def given(source: Given, payload_serde: Serde[Any] | None, result_serde: Serde[Any] | None) -> Source:
    """Return the source that is meant. Raises `InvalidArgumentError`."""
    other = _Form(
        JsonSerde() if payload_serde is None else check_serde("payload_serde", payload_serde),
        JsonSerde() if result_serde is None else check_serde("result_serde", result_serde),
        MAX_PAYLOAD,
    )
    if isinstance(source, App):
        return Source(source.storage, {queue.name: queue for queue in source.queues}, other)
    if isinstance(source, Queue):
        return Source(source.storage, {source.name: source}, other)
    if source is None or isinstance(source, str) or not isinstance(source, Iterable):
        return Source(as_storage(source), {}, other)
    queues = list(source)
    if not queues or not all(isinstance(queue, Queue) for queue in queues):
        raise InvalidArgumentError("source", "must be an App, queues, a store or a URL")
    storage = queues[0].storage
    if any(queue.storage is not storage for queue in queues):
        raise InvalidArgumentError("source", "has queues on several stores: make a dashboard for each store")
    return Source(storage, {queue.name: queue for queue in queues}, other)
