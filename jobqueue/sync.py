"""The synchronous client: a queue for code that is not asyncio, from any thread and after any fork.

Its calls run in the background event loop of the process, on a producer of their own. That and a clone of the
queue's store are made there on first use, so that nothing is shared with the queue itself or with a parent
process but the configuration.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, Unpack, overload

from jobqueue.client.options import EnqueueOptions, JobOptions
from jobqueue.client.results import (
    EnqueueRequest,
    EnqueueResult,
    JobStatus,
    SyncEnqueueResult,
    sync_answers_of,
)
from jobqueue.explanation import Explanation
from jobqueue.jobs import SAME, JobFilter, JobPage, QueueJobs, Which
from jobqueue.model.generics import P, R
from jobqueue.runtime.background import Background, background, check_blockable, running_background
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import CancelStatus

__all__ = ["Producer", "SyncJobs", "SyncQueue"]

D = TypeVar("D")
T = TypeVar("T")


class ProducingQueue(Protocol):
    """The part of a `Queue` that the synchronous client calls."""

    jobs: QueueJobs

    @property
    def ready(self) -> bool:
        """Whether it is started, and has not broken."""
        ...

    async def start(self, *, work: bool) -> None:
        """Start it."""

    async def stop(self) -> None:
        """Stop it."""

    def enqueue(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, EnqueueResult[Any]]:
        """Create a job."""
        ...

    def enqueue_many(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, list[EnqueueResult[Any]]]:
        """Create many jobs."""
        ...

    def enqueue_and_wait(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Create a job, and wait for its result."""
        ...

    def wait(self, id: str, *, timeout: float) -> Coroutine[Any, Any, Any]:
        """Wait for a job's result."""
        ...

    def cancel(self, id: str, *, running: bool) -> Coroutine[Any, Any, CancelStatus]:
        """Cancel a job."""
        ...

    def get_result(self, id: str, default: Any) -> Coroutine[Any, Any, Any]:
        """Return a job's result."""
        ...

    def get_status(self, id: str) -> Coroutine[Any, Any, JobStatus[Any] | None]:
        """Return a job's status."""
        ...


class Producer(NamedTuple):
    """A queue that is to produce in the background loop, and its calls that have no public name."""

    queue: ProducingQueue
    is_started: Callable[[], bool]
    send: Callable[[EnqueueRequest, object | None], Awaitable[EnqueueResult[Any]]]
    send_and_wait: Callable[[EnqueueRequest, float], Awaitable[Any]]
    wait_for: Callable[[EnqueueResult[Any], float], Awaitable[Any]]


class SyncQueue(Generic[P, R]):
    """The calls of a queue for code that is not asyncio; made by `Queue`, as ``queue.sync``.

    It starts on first use, in a thread with an event loop that all queues of the process share. Any number of
    threads may use it; a forked child starts one of its own. It only produces. The calls, their arguments and
    their errors are those of `Queue`. Where an event loop runs they raise `WrongLoopError`, since they would
    block it.
    """

    def __init__(
        self, label: str, storage: Callable[[], Storage], make: Callable[[Storage], Producer]
    ) -> None:
        self._label = label
        self._storage = storage
        self._make = make
        self._answer = sync_answers_of(self._wait_for)
        self.jobs = SyncJobs(self)
        """The jobs of the queue, for those who operate it: see `SyncJobs`."""

    def __repr__(self) -> str:
        return f"<SyncQueue of {self._label}>"

    def enqueue(self, id: str | None, payload: P, **options: Unpack[EnqueueOptions]) -> SyncEnqueueResult[R]:
        """Create a job, or find the one that has this id; see `Queue.enqueue`.

        With ``connection``, a connection of psycopg 3 with an open transaction, the job exists if and only if
        that commits (PostgreSQL).
        """
        return self._answered(self.call(lambda made: made.queue.enqueue(id, payload, **options)))

    def enqueue_many(
        self,
        requests: Iterable[tuple[str | None, P] | EnqueueRequest],
        *,
        connection: object | None = None,
    ) -> list[SyncEnqueueResult[R]]:
        """Create many jobs with few round trips; see `Queue.enqueue_many`."""
        given: Any = list(requests) if isinstance(requests, Iterable) else requests  # a generator runs here
        answers = self.call(lambda made: made.queue.enqueue_many(given, connection=connection))
        return [self._answered(answer) for answer in answers]

    def enqueue_and_wait(
        self, id: str | None, payload: P, *, timeout: float = 30.0, **options: Unpack[JobOptions]
    ) -> R:
        """Create the job, join the live one, or replay the ended one; see `Queue.enqueue_and_wait`."""
        result: R = self.call(
            lambda made: made.queue.enqueue_and_wait(id, payload, timeout=timeout, **options)
        )
        return result

    def wait(self, id: str, *, timeout: float = 30.0) -> R:
        """Wait for a job's result; see `Queue.wait`."""
        result: R = self.call(lambda made: made.queue.wait(id, timeout=timeout))
        return result

    def cancel(self, id: str, *, running: bool = False) -> CancelStatus:
        """Cancel a waiting job, with ``running`` a running one as well; see `Queue.cancel`."""
        return self.call(lambda made: made.queue.cancel(id, running=running))

    @overload
    def get_result(self, id: str) -> R | None: ...
    @overload
    def get_result(self, id: str, default: D) -> R | D: ...
    def get_result(self, id: str, default: Any = None) -> Any:
        """Return the result of a completed job, ``default`` in any other case."""
        return self.call(lambda made: made.queue.get_result(id, default))

    def get_status(self, id: str) -> JobStatus[R] | None:
        """Return a job's state, counters and outcome, ``None`` if the store has no such job."""
        return self.call(lambda made: made.queue.get_status(id))

    def close(self) -> None:
        """Close the producer and its connections; the next call makes new ones. Does nothing if it has none.

        Calls that wait in other threads raise `StoppedError`; their jobs go on. The end of the process closes
        it as well.
        """
        check_blockable("queue.sync")
        there = running_background()
        if there is not None:
            there.call(lambda: self._close(there))

    @property
    def is_open(self) -> bool:
        """Whether it has been used in this process since the last `close`."""
        there = running_background()
        return there is not None and self in there.open

    # -- for tasks --------------------------------------------------------------------------------

    def send(self, request: EnqueueRequest, connection: object | None = None) -> SyncEnqueueResult[Any]:
        """Enqueue what a task asks for."""
        return self._answered(self.call(lambda made: made.send(request, connection)))

    def send_and_wait(self, request: EnqueueRequest, timeout: float) -> Any:
        """Enqueue what a task asks for, and wait for its result."""
        return self.call(lambda made: made.send_and_wait(request, timeout))

    # -- in the background loop -------------------------------------------------------------------

    def call(self, make: Callable[[Producer], Awaitable[T]]) -> T:
        """Await a call of the producer in the background loop, and return or raise what it does."""
        check_blockable("queue.sync")
        there = background()

        async def call() -> T:
            standing: _Standing | None = there.open.get(self)
            if (
                standing is None
                or standing.storage is not self._storage()
                or not standing.producer.queue.ready
            ):
                standing = await self._start(there)
            return await make(standing.producer)

        return there.call(call)

    async def _start(self, there: Background) -> _Standing:
        standing: _Standing | None = there.open.get(self)
        if standing is not None and standing.is_over(self._storage()):
            await self._close(there)
            standing = there.open.get(self)  # others may have been faster
        if standing is None:
            storage = self._storage()
            producer = self._make(_clone(storage, there))
            standing = there.open[self] = _Standing(producer, storage)
            there.closings[self] = producer.queue.stop
        await standing.producer.queue.start(work=False)
        return standing

    async def _close(self, there: Background) -> None:
        standing: _Standing | None = there.open.pop(self, None)
        there.closings.pop(self, None)
        if standing is not None:
            _drop_clone(standing.storage, there)
            await standing.producer.queue.stop()

    def _wait_for(self, answer: EnqueueResult[Any], timeout: float) -> Any:
        return self.call(lambda made: made.wait_for(answer, timeout))

    def _answered(self, answer: EnqueueResult[Any]) -> SyncEnqueueResult[Any]:
        return self._answer(*answer)


class _Standing(NamedTuple):
    """A producer in the background loop."""

    producer: Producer
    storage: Storage
    """The store of the queue when it was made."""

    def is_over(self, storage: Storage) -> bool:
        """Return whether another is needed: it broke, or the queue has another store."""
        broke = self.producer.is_started() and not self.producer.queue.ready
        return broke or self.storage is not storage


class SyncJobs:
    """The jobs of one queue, for those who operate it; ``queue.sync.jobs``. See `QueueJobs` for each call."""

    def __init__(self, queue: SyncQueue[Any, Any]) -> None:
        self._call = queue.call

    def list(
        self, filter: JobFilter | None = None, *, limit: int = 100, cursor: str | None = None, **given: Any
    ) -> JobPage:
        """Return a page of jobs, and where the next page begins."""
        return self._call(lambda made: made.queue.jobs.list(filter, limit=limit, cursor=cursor, **given))

    def get(self, id: str) -> JobStatus[Any] | None:
        """Return a job with its payload and history, dead letters included; ``None`` if there is none."""
        return self._call(lambda made: made.queue.jobs.get(id))

    def cancel(self, which: Which, *, running: bool = False) -> int:
        """Cancel waiting jobs, with ``running`` running ones too, by id, ids or filter; return how many."""
        return self._call(lambda made: made.queue.jobs.cancel(which, running=running))

    def retry(self, which: Which, *, payload: Any = SAME, delay: float = 0.0) -> int:
        """Run failed jobs again, dead letters included, by id, ids or filter; return how many."""
        return self._call(lambda made: made.queue.jobs.retry(which, payload=payload, delay=delay))

    def remove(self, which: Which) -> int:
        """Delete waiting and ended jobs, by id, ids or filter; return how many."""
        return self._call(lambda made: made.queue.jobs.remove(which))

    def explain(self, id: str) -> Explanation:
        """Say why a job does not run."""
        return self._call(lambda made: made.queue.jobs.explain(id))

    def watch(self, id: str, *, timeout: float | None = None) -> Iterator[JobStatus[Any]]:
        """Yield the job's status now and at each change, until it has ended, or for ``timeout`` seconds."""
        changes: AsyncIterator[JobStatus[Any]] | None = None

        async def next_change(made: Producer) -> JobStatus[Any] | None:
            nonlocal changes
            if changes is None:
                changes = made.queue.jobs.watch(id, timeout=timeout)
            return await anext(changes, None)

        while (status := self._call(next_change)) is not None:
            yield status


def _clone(storage: Storage, there: Background) -> Storage:
    """Return the clone of a store in this loop, which all queues on the store share."""
    key = _key(storage)
    clone: Storage | None = there.open.get(key)
    if clone is None:
        clone = there.open[key] = storage.clone()
    return clone


def _drop_clone(storage: Storage, there: Background) -> None:
    """Forget the clone of a store that no queue here uses any more."""
    standing = (one for one in there.open.values() if isinstance(one, _Standing))
    if not any(one.storage is storage for one in standing):
        there.open.pop(_key(storage), None)


def _key(storage: Storage) -> object:
    return "clone of", id(storage)  # a store that has one stands in a `_Standing`, so its id stays taken
