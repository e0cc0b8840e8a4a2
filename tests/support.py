"""What the behaviour tests are written with: bounds, recorded events, and a store that can misbehave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jobqueue import Job, Queue, Reaper, Storage, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Exchanged, NewJob
from jobqueue.testing import FakeClock

LIMIT = 10.0
"""Real seconds that anything may take that no test moves a clock for."""

QUEUE_EVENTS = (
    "started", "stopped", "enqueued", "processing", "completed", "failed", "failing", "dead_lettered",
    "requeued", "cancelled", "stalled", "progress", "error",
)  # fmt: skip
REAPER_EVENTS = ("stalled", "dead_lettered", "leadership_acquired", "leadership_lost", "error")

T = TypeVar("T")


async def within(call: Awaitable[T], seconds: float = LIMIT) -> T:
    """Await something for a bounded real time."""
    async with asyncio.timeout(seconds):
        return await call


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of, for a bounded real time."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.001)


def standing(queue: Queue[Any, Any]) -> int:
    """How many calls of a queue wait for a result."""
    return 0 if queue._session is None else len(queue._session.waiters)


def left_tasks() -> list[str]:
    current = asyncio.current_task()
    return sorted(task.get_name() for task in asyncio.all_tasks() if task is not current)


def traceback_length(error: BaseException) -> int:
    length, traceback = 0, error.__traceback__
    while traceback is not None:
        length, traceback = length + 1, traceback.tb_next
    return length


class Recorder:
    """Keeps what a queue or reaper tells, in order, and waits for it."""

    def __init__(self, source: Queue[Any, Any] | Reaper) -> None:
        self.events: list[Any] = []
        self._seen: Counter[str] = Counter()
        self._news = asyncio.Event()
        for name in QUEUE_EVENTS if isinstance(source, Queue) else REAPER_EVENTS:
            source.on(name, self._hear)

    def _hear(self, event: Any) -> None:
        self.events.append(event)
        self._seen[event.name] += 1
        self._news.set()

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def of(self, name: str) -> list[Any]:
        return [event for event in self.events if event.name == name]

    async def wait(self, name: str, count: int = 1, limit: float = LIMIT) -> Any:
        """Return the ``count``-th event of a name as soon as it is there."""
        try:
            async with asyncio.timeout(limit):
                while self._seen[name] < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {name} number {count}, only {self.names}") from None
        return self.of(name)[count - 1]


class Lab:
    """One store, and the queues that a test makes on it."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._made: list[Queue[Any, Any]] = []

    @property
    def clock(self) -> FakeClock:
        clock = self.storage.clock
        assert isinstance(clock, FakeClock)
        return clock

    def queue(
        self, handler: Callable[..., Any] | None = None, name: str = "q", **options: Any
    ) -> Queue[Any, Any]:
        queue: Queue[Any, Any] = Queue(self.storage, name, **options)
        if handler is not None:
            queue.execute(handler)
        self._made.append(queue)
        return queue

    async def start(self, handler: Callable[..., Any] | None = None, **options: Any) -> Queue[Any, Any]:
        queue = self.queue(handler, **options)
        await within(queue.start())
        return queue

    async def finish(self, call: Coroutine[Any, Any, T], step: float = 0.5) -> T:
        """Await something, letting virtual time pass until it is there."""
        task = asyncio.ensure_future(call)
        try:
            async with asyncio.timeout(LIMIT):
                while not task.done():
                    if self.storage.clock.virtual:
                        await self.clock.advance(step)
                        if threading.active_count() > 1:  # a handler in a thread takes real time
                            await asyncio.wait({task}, timeout=0.01)
                    else:
                        await asyncio.wait({task})
        finally:
            if not task.done():
                task.cancel()
        return await task

    async def record(self, id: str, queue: str = "q") -> Any:
        (record,) = await self.storage.get(queue, [id])
        return record

    async def state(self, id: str, queue: str = "q") -> str | None:
        record = await self.record(id, queue)
        return None if record is None else record.state.value

    async def total(self, queue: str = "q") -> int:
        return sum(
            value for name, value in (await self.storage.counts(queue))._asdict().items() if name != "oldest"
        )

    async def close(self) -> None:
        for queue in self._made:
            await self.finish(queue.stop(timeout=0))


class Reapers:
    """Starts reapers, and stops them in the end."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self.made: list[Reaper] = []

    async def start(self, *args: Any, **options: Any) -> tuple[Reaper, Recorder]:
        reaper = Reaper(options.pop("storage", self.storage), *args, **options)
        recorder = Recorder(reaper)
        self.made.append(reaper)
        await within(reaper.start())
        return reaper, recorder


async def die(storage: Any, *ids: str, queue: str = "q", worker: str = "dead", **fields: Any) -> None:
    """Leave jobs behind as a worker that died: claimed, with a lease of a second."""
    await storage.insert(queue, [NewJob(id, b"1", **fields) for id in ids])
    assert len((await storage.exchange(queue, worker, [], len(ids), 1000)).jobs) == len(ids)


async def state(storage: Any, id: str, queue: str = "q") -> str | None:
    (record,) = await storage.get(queue, [id])
    return None if record is None else record.state.value


async def echo(job: Job[Any]) -> Any:
    return job.payload


class Gate:
    """A handler that says when it began, and goes on when it is let."""

    def __init__(self, result: Any = "done") -> None:
        self.result = result
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.jobs: list[Job[Any]] = []
        self.cancelled = 0

    async def __call__(self, job: Job[Any]) -> Any:
        self.jobs.append(job)
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.result


class Hold:
    """Keeps one call of a store: before it is done, or between the deed and the answer."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go.wait()


@dataclass
class Fault:
    """What happens to calls of one name: ``times`` of them, None for all."""

    times: int | None = None
    raises: BaseException | None = None
    before: Callable[[], Awaitable[None]] | None = None
    after: Callable[[], Awaitable[None]] | None = None
    lost: BaseException | None = None
    """Raised after the deed: the answer is lost."""
    change: Callable[[Any], Any] | None = None
    """Makes another answer of the true one."""


@dataclass
class Plans:
    faults: dict[str, Fault] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)


class WireStorage:
    """A store behind a wire: every call takes a turn of the loop, and can be made to fail or hang."""

    shared = False
    overlaps_calls = True

    def __init__(self, inner: Storage, *, batched: bool = True, plans: Plans | None = None) -> None:
        self.inner = inner
        self.clock = inner.clock
        self.batched = batched
        self.plans = plans or Plans()

    def fault(self, name: str, **fault: Any) -> Fault:
        self.plans.faults[name] = Fault(**fault)
        return self.plans.faults[name]

    def break_down(self, *names: str, times: int | None = None) -> None:
        for name in names:
            self.fault(name, times=times, raises=StorageUnavailableError("no connection"))

    def heal(self, *names: str) -> None:
        for name in names or tuple(self.plans.faults):
            self.plans.faults.pop(name, None)

    def calls(self, name: str) -> int:
        return self.plans.calls[name]

    def clone(self) -> WireStorage:
        return WireStorage(self.inner.clone(), batched=self.batched, plans=self.plans)

    async def _do(self, name: str, *args: Any, **options: Any) -> Any:
        self.plans.calls[name] += 1
        fault = self.plans.faults.get(name, Fault())
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.heal(name)
        await asyncio.sleep(0)
        if fault.before is not None:
            await fault.before()
        if fault.raises is not None:
            raise fault.raises
        answer = await getattr(self.inner, name)(*args, **options)
        if fault.after is not None:
            await fault.after()
        if fault.lost is not None:
            raise fault.lost
        if fault.change is not None:
            answer = fault.change(answer)
        await asyncio.sleep(0)
        return answer


def _wired(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(self: WireStorage, *args: Any, **options: Any) -> Any:
        return await self._do(name, *args, **options)

    return call


WIRED = (
    "open", "close", "insert", "get", "exchange", "extend", "sweep", "cancel", "set_ttl", "purge", "scan",
    "counts", "queues", "workers", "wait_for_work", "subscribe", "unsubscribe", "lock_acquire", "lock_renew",
    "lock_release", "lock_holder", "wait_for_lock",
)  # fmt: skip
for _name in WIRED:
    setattr(WireStorage, _name, _wired(_name))


class ArrivalStorage(WireStorage):
    """A store behind a wire that claims on arrival."""

    def __init__(self, inner: Storage, *, plans: Plans | None = None) -> None:
        super().__init__(inner, plans=plans)
        self.arrivals: list[tuple[int, float]] = []
        """Limit and timeout of each call."""

    def clone(self) -> ArrivalStorage:
        return ArrivalStorage(self.inner.clone(), plans=self.plans)

    async def claim_on_arrival(
        self, queue: str, worker: str, limit: int, lease: int, timeout: float
    ) -> Exchanged | None:
        self.plans.calls["claim_on_arrival"] += 1
        self.arrivals.append((limit, timeout))
        await self.inner.wait_for_work(queue, worker, timeout)
        answer = await self.inner.exchange(queue, worker, (), limit, lease)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
            await self.inner.exchange(queue, worker, releases, 0, lease)
            raise
        return answer._replace(more=bool((await self.inner.counts(queue)).queued))


class DeafStorage(MemoryStorage):
    """A memory store that loses every reply, cancel request and wake-up."""

    async def subscribe(self, queue: str, address: str, sink: Any) -> None:
        self._now()

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        await self.clock.sleep(timeout)
        return False


@asynccontextmanager
async def opened(storage: Any) -> Any:
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


def results_of(answers: Sequence[Any]) -> list[Any]:
    return [type(answer) if isinstance(answer, BaseException) else answer for answer in answers]
