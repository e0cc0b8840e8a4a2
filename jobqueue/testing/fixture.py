"""Queues in the tests of applications: on a store in memory, with what was enqueued to look at.

It needs no pytest; the fixture ``jobqueue`` of the pytest plugin is one of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from jobqueue.app import App
from jobqueue.client.results import EnqueueRequest
from jobqueue.errors import InvalidArgumentError, SerializationError
from jobqueue.model.checks import check_count, check_seconds
from jobqueue.model.serde import JsonSerde, Serde, load
from jobqueue.queue import Queue
from jobqueue.runtime.background import check_blockable
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.lifecycle import loop_of
from jobqueue.storage.contract import Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Inserted, InsertStatus, NewJob
from jobqueue.tasks.task import Task
from jobqueue.worker.once import Processed

__all__ = ["Enqueued", "JobQueueFixture"]

ANY: Any = object()
"""Stands for: whatever it is."""
AT_ONCE = 100
"""Jobs that one step of `JobQueueFixture.drain` claims."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job that was enqueued during a test."""

    queue: str
    id: str
    payload: Any
    """As JSON has it, or as bytes if it is none. Of a task: ``{"args": [...], "kwargs": {...}}``."""
    task: str
    group: str
    priority: int
    delay: float
    """Seconds, of ``delay=``."""


class JobQueueFixture:
    """Puts queues on a store in memory for a test, runs their jobs, and says what was enqueued.

    A context manager, which puts the queues back in the end.
    """

    def __init__(self) -> None:
        self._clock = _AheadClock()
        self.storage: MemoryStorage = _Recording(self._clock, self._record)
        """The store of the test."""
        self.enqueued: list[Enqueued] = []
        """The jobs that were created, in order; those that have run included."""
        self._queues: list[Queue[Any, Any]] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the queues back on their own stores."""
        self._undo.close()
        self._queues.clear()

    def use(self, *sources: Queue[Any, Any] | App) -> None:
        """Put queues, or all queues of apps, on the store of the test, until its end.

        They must not be started; the code that is tested may start them afterwards.
        """
        for source in sources:
            if not isinstance(source, Queue | App):
                raise InvalidArgumentError("sources", f"must be queues and apps, not {type(source).__name__}")
            own = source.storage
            source.configure(storage=self.storage)
            self._undo.callback(_put_back, source, own)
            self._queues += [source] if isinstance(source, Queue) else source.queues

    def travel(self, seconds: float) -> None:
        """Let time pass at once, for jobs that are due later: delays, retries, results that expire."""
        self._clock.ahead += check_seconds("seconds", seconds)

    async def drain(self, *, limit: int = 1_000, concurrency: int = 1, timeout: float = 30.0) -> Processed:
        """Run the jobs that are due, and those that they enqueue, until none is left; return what they did.

        Raises `AssertionError` when ``limit`` jobs have run and there are still more, and for jobs that have
        not ended within ``timeout`` seconds.
        """
        check_count("limit", limit)
        check_count("concurrency", concurrency)
        ends = self._clock.monotonic() + check_seconds("timeout", timeout)
        done = Processed(0, 0, 0, 0, 0)
        while True:
            before = done.claimed
            for queue in self._queues:
                if queue.handler is None and not queue.task:
                    continue
                if done.claimed >= limit:
                    raise AssertionError(
                        f"{limit} jobs have run, and there may be more: do they make each other?"
                    )
                left = ends - self._clock.monotonic()
                if left <= 0:
                    raise AssertionError(f"the jobs have not ended within {timeout:g} s")
                step = await _process(queue, min(AT_ONCE, limit - done.claimed), concurrency, left)
                done = Processed(*map(sum, zip(done, step, strict=True)))
                if step.released:
                    raise AssertionError(f"{step.released} jobs have not ended within {timeout:g} s")
            if done.claimed == before:
                return done

    def drain_sync(self, *, limit: int = 1_000, concurrency: int = 1, timeout: float = 30.0) -> Processed:
        """Do as `drain` does, in a test that is not asynchronous."""
        check_blockable("drain_sync")
        return asyncio.run(self.drain(limit=limit, concurrency=concurrency, timeout=timeout))

    def assert_enqueued(
        self,
        what: Queue[Any, Any] | Task[..., Any] | EnqueueRequest | None = None,
        *,
        payload: Any = ANY,
        id: str | None = None,
        group: str | None = None,
        count: int | None = None,
    ) -> list[Enqueued]:
        """Return the jobs like that which were enqueued in the test; raise `AssertionError` without any.

        ``what`` is a queue, a task, or a request of a task with its arguments: ``send.request("a@b")``; an id
        and a group that it has are compared too. With ``count``, there must be so many.
        """
        found = [job for job in self.enqueued if self._is_like(job, what, payload, id, group)]
        if (not found) if count is None else (len(found) != count):
            wanted = "a job" if count is None else f"{count} jobs"
            like = ", ".join(
                [repr(what)] * (what is not None)
                + [f"{name}={value!r}" for name, value in (("id", id), ("group", group)) if value is not None]
                + [f"payload={payload!r}"] * (payload is not ANY)
            )
            listed = "".join(f"\n  {job}" for job in self.enqueued) or " nothing"
            raise AssertionError(
                f"{wanted} like ({like}) should have been enqueued, and {len(found)} were. Enqueued:{listed}"
            )
        return found

    def assert_not_enqueued(
        self,
        what: Queue[Any, Any] | Task[..., Any] | EnqueueRequest | None = None,
        *,
        payload: Any = ANY,
        id: str | None = None,
        group: str | None = None,
    ) -> None:
        """Raise `AssertionError` if a job like that was enqueued; see `assert_enqueued`."""
        self.assert_enqueued(what, payload=payload, id=id, group=group, count=0)

    def _record(self, queue: str, job: NewJob) -> None:
        serde = self._serde(queue)
        try:
            payload = load(serde, job.payload, "the payload")
        except SerializationError:  # of another queue object, with a serde of its own
            payload = job.payload
        self.enqueued.append(
            Enqueued(queue, job.id, payload, job.task, job.group, job.priority, job.delay / 1000)
        )

    def _serde(self, queue: str) -> Serde[Any]:
        for known in self._queues:
            if known.name == queue:
                return known.jobs.payload_serde
        return JsonSerde()

    def _is_like(self, job: Enqueued, what: Any, payload: Any, id: str | None, group: str | None) -> bool:
        task = None
        if isinstance(what, EnqueueRequest):
            task = what.task
            id = what.id if id is None else id
            group = group if group is not None or not what.group else what.group
            payload = what.payload if payload is ANY else payload
        elif isinstance(what, Task):
            task = what.name
        elif isinstance(what, Queue):
            if job.queue != what.name:
                return False
        elif what is not None:
            problem = f"must be a queue, a task or a request, not {type(what).__name__}"
            raise InvalidArgumentError("what", problem)
        return (
            (task is None or job.task == task)
            and (id is None or job.id == id)
            and (group is None or job.group == group)
            and (payload is ANY or job.payload == self._as_stored(job.queue, payload))
        )

    def _as_stored(self, queue: str, payload: Any) -> Any:
        """Return a payload as it is after the serde: tuples are lists then, for example."""
        serde = self._serde(queue)
        return load(serde, serde.dumps(payload), "the payload")


class _AheadClock:
    """The machine's clock, set ahead."""

    virtual = False

    def __init__(self) -> None:
        self.ahead = 0.0
        self.call_later = SYSTEM_CLOCK.call_later
        self.sleep = SYSTEM_CLOCK.sleep
        self.uniform = SYSTEM_CLOCK.uniform

    def time(self) -> float:
        return SYSTEM_CLOCK.time() + self.ahead

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.ahead


class _Recording(MemoryStorage):
    """Tells of every job that it creates."""

    def __init__(self, clock: Clock, record: Callable[[str, NewJob], None]) -> None:
        super().__init__(clock=clock)
        self._record = record

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        answers = await super().insert(queue, jobs, reply_to=reply_to, max_length=max_length)
        for job, answer in zip(jobs, answers, strict=True):
            if answer.status is InsertStatus.CREATED:
                self._record(queue, job)
        return answers


async def _process(queue: Queue[Any, Any], limit: int, concurrency: int, timeout: float) -> Processed:
    """Run jobs of a queue in the event loop in which it is started, if it is."""
    loop = loop_of(queue)
    if loop is None or loop is asyncio.get_running_loop():
        return await queue.process_once(limit, concurrency, timeout)
    elsewhere = queue.process_once(limit, concurrency, timeout)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(elsewhere, loop))


def _put_back(source: Queue[Any, Any] | App, own: Storage) -> None:
    for queue in [source] if isinstance(source, Queue) else source.queues:
        queue.sync.close()
    source.configure(storage=own)
