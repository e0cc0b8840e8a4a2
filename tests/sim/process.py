"""One simulated process: its queues, with or without a handler, its duties, and its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from jobqueue import App, Backoff, EnqueueRequest, Job, Queue, Reaper
from jobqueue.errors import JobCancelledError, JobFailedError, JobQueueError
from jobqueue.model.states import JobState
from jobqueue.runtime.tasks import all_at_once
from jobqueue.storage.values import NewJob
from tests.sim.checks import MAX_ATTEMPTS, Checks
from tests.sim.duties import DUTIES
from tests.sim.handle import SimStorage
from tests.sim.store import SimStore
from tests.sim.work import perform, perform_in_thread
from tests.sim.world import LEASE, Life, ProcessLoop, ViolationError, World

QUEUES = ("sim", "other")
ENDED_WITHIN = 4.0
"""Seconds that a stop takes longer than the time that it gives to the runs, at most."""
BACKGROUND = ("claimer", "heartbeat", "hint", "name", "report", "second-claimer", "slots", "waiters")
"""Tasks without which a queue does not do its work."""


@dataclass(frozen=True)
class Role:
    """What a process does."""

    name: str
    works: int = 0
    """Jobs at once in each queue; 0: it only produces."""
    duties: tuple[str, ...] = ()
    app: bool = False
    """Whether its queues, and its reaper, are those of an `App`."""
    threaded: bool = False
    """Whether its handler is a plain function, which runs in threads."""


@dataclass(frozen=True)
class Common:
    """What all processes of a program have in common."""

    queues: int = 1
    around: bool = False
    """Whether enqueues and runs go through middleware."""
    half: int = 32
    """`jobqueue.worker.worker.HALF`. Few jobs run at once here: by its default no worker halves a batch."""


@dataclass
class Call:
    """One call of a producer, as it sees it."""

    what: str
    began: float
    seq: int = 0
    ended: float | None = None
    outcome: str = ""
    alone: bool = False
    """Whether nobody else uses the id of its job."""
    instant: bool = False
    """Whether its job ends as soon as it runs."""


_call: ContextVar[Call | None] = ContextVar("call", default=None)


class Text:
    """A serde of plain text: fast, and the story shows it."""

    def dumps(self, value: Any) -> bytes:
        return str(value).encode()

    def loads(self, data: bytes) -> Any:
        return data.decode()


@dataclass
class Process:
    """A process of the simulated world."""

    world: World
    store: SimStore
    checks: Checks
    role: Role
    common: Common
    generation: int = 0
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.life = Life(self.role.name + "'" * self.generation)
        self.loop = ProcessLoop(self.world, self.life.name, self.life)
        self.storage = SimStorage(self.store, self.life)
        self.queues: list[Queue[Any, Any]] = []
        self.services: list[Any] = []
        """What is started and stopped, in this order."""
        self.parts: list[Any] = []
        """What may break: the same, without an app and with what is in it."""
        self.started = False
        self.open_calls = 0
        self.ending = False
        """Whether it has been told to stop."""
        self.was_paused = False
        self.done: list[tuple[str, int, float]] = []
        """Runs that ended by themselves: id, fence and instant."""
        self.spawned: asyncio.Task[None] | None = None
        self._running = dict.fromkeys(QUEUES, 0)

    @property
    def name(self) -> str:
        return self.life.name

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in this process; its failure fails the run."""
        task = self.loop.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and not self.life.dead:
            self.world.break_promise(f"{self.name}: {task.exception()!r}")

    # -- life ---------------------------------------------------------------------------------------

    def _make(self) -> None:
        self.queues = [self._queue(name) for name in QUEUES[: self.common.queues]]
        duties = [DUTIES[name].make(self) for name in self.role.duties]
        self.parts = [*self.queues, *duties]
        self.services = self.parts
        if self.role.app:
            reaper = next((duty for duty in duties if isinstance(duty, Reaper)), False)
            app = App(self.storage, self.queues, reaper=reaper)
            self.services = [app, *(duty for duty in duties if duty is not reaper)]

    def _queue(self, name: str) -> Queue[Any, Any]:
        queue: Queue[Any, Any] = Queue(
            self.storage, name, worker_id=self.name, concurrency=max(1, self.role.works),
            visibility_timeout=LEASE, backoff=Backoff.fixed(0.5), max_stalls=20, max_attempts=MAX_ATTEMPTS,
            payload_serde=Text(), result_serde=Text(),
        )  # fmt: skip
        if self.common.around:
            queue.around_enqueue(_marking)
            queue.around_enqueue(_marking_again)
            queue.around_run(self._around_outside)
            queue.around_run(self._around_inside)
        if self.role.works:
            queue.execute(self._handle_in_thread if self.role.threaded else self._handle)
        return queue

    def _draining(self, name: str) -> bool:
        session = self.queues[QUEUES.index(name)]._session
        return session is not None and session.worker is not None and session.worker._draining

    async def start(self) -> None:
        await self.storage.open()
        self._make()
        self.life.draining = self._draining
        for service in self.services:
            while True:
                try:
                    await service.start()
                    break
                except JobQueueError:
                    await asyncio.sleep(0.5)
        for queue in self.queues:
            _note_incarnations(queue)
        self.life.since = self.world.now
        self.started = True

    async def stop(self, timeout: float | None) -> None:
        self.life.stopping = True
        self.world.tell(f"{self.name} stops")
        for service in self.services[len(self.queues) if not self.role.app else 1 :]:
            await service.stop()
        broken = self.broken  # it leaves its runs to their leases
        began = self.world.now
        served = self.services[:1] if self.role.app else self.queues
        begun: list[Any] = []  # a task that is cancelled before its first step does nothing

        async def stop(service: Any) -> None:
            begun.append(service)
            await service.stop(timeout)

        try:
            await all_at_once([stop(service) for service in served])
            took = self.world.now - began
            if timeout is not None and took > timeout + ENDED_WITHIN and not self.life.disturbed:
                raise ViolationError(f"{self.name} took {took:.2f} s for a stop({timeout})")
        finally:  # cancelled or not
            quiet = not (broken or self.life.disturbed or self.checks.rolled_back_at is not None)
            if quiet and len(begun) == len(served) and not (self.life.dead or self.store.faults.any):
                self.checks.left(self.store.engine, self.name)
            self.world.tell(f"{self.name} has stopped")

    def begin_stop(self, timeout: float | None, cancelled_after: float | None) -> None:
        """Begin to stop; other code may cancel the stop after a while."""
        self.ending = True
        task = self.spawn(self.stop(timeout))
        if cancelled_after is not None:
            self.loop.call_later(cancelled_after, task.cancel)

    def kill(self) -> None:
        self.world.tell(f"{self.name} is killed")
        self.life.end()

    def block(self, seconds: float) -> None:
        """Block the event loop, as a handler does that calls something slow; threads go on."""
        now = self.world.now
        self.world.tell(f"the event loop of {self.name} is blocked for {seconds:g} s")
        self.life.blocks.append((now, now + seconds))
        self.loop.held += 1

        def turn() -> None:
            self.loop.held -= 1

        self.world.after(seconds, turn)

    @property
    def broken(self) -> bool:
        """Whether something of it says that it broke."""
        return self.defect is not None

    @property
    def defect(self) -> BaseException | None:
        """What something of it broke of."""
        for part in self.parts:
            session = getattr(part, "_session", part)
            if session is not None and session.defect is not None:
                return session.defect
        return None

    def cut(self, name: str) -> bool:
        """Cancel one of its background tasks, as other code may do; False if it has none of that name."""
        named = (task for task in self.loop.tasks if task.get_name() == f"jobqueue-{name}")
        task = next((task for task in named if not task.done()), None)
        if task is None:
            return False
        self.life.cut = True
        self.world.tell(f"somebody cancels the {name} of {self.name}")
        return task.cancel()

    def check_alive(self) -> None:
        """Raise what broke it."""
        defect = self.defect
        if defect is not None:
            raise ViolationError(f"{self.name} broke: {defect!r}") from defect

    # -- the handler --------------------------------------------------------------------------------

    async def _handle(self, job: Job[str]) -> str:
        """Do what the payload says, and return it."""
        self._begins(job)
        try:
            for word in job.payload.split()[1:]:
                await perform(self, word, job)
        finally:
            self._ends(job)
        return job.payload

    def _handle_in_thread(self, job: Job[str]) -> Generator[float, None, str]:
        self._begins(job)
        try:
            for word in job.payload.split()[1:]:
                yield from perform_in_thread(word, job)
        finally:
            self._ends(job)
        return job.payload

    def _begins(self, job: Job[str]) -> None:
        self.world.tell(f"{self.name} runs {job.id}, fence {job.fence}")
        if job.attempts > MAX_ATTEMPTS + self._stalls(job):
            self.world.break_promise(f"{job.id!r} is tried for the {job.attempts}th time")
        head = job.payload.split()[0]
        inserted_by_store_or_reaper = head.endswith((">", "@"))  # without the middleware of a producer
        if self.common.around and not inserted_by_store_or_reaper and job.headers.get("tag") != head:
            self.world.break_promise(f"{job.id!r} came with the headers {dict(job.headers)}, of {head!r}")
        self._running[job.queue] += 1
        if self._running[job.queue] > self.role.works:
            count = self._running[job.queue]
            self.world.break_promise(f"{self.name} runs {count} jobs, in {self.role.works} slots")

    def _ends(self, job: Job[str]) -> None:
        self._running[job.queue] -= 1
        if job.aborted_reason is None:
            self.done.append((job.id, job.fence, self.world.now))

    def _stalls(self, job: Job[str]) -> int:
        """Return how many leases a job has lost: those runs were no attempts that failed."""
        held = self.store.engine._queues[job.queue].jobs.get(job.id)
        return 0 if held is None else held.stalls

    async def _around_outside(self, job: Job[str], call_next: Callable[[Job[str]], Awaitable[str]]) -> str:
        result = await call_next(job)
        if not result.endswith("|inside"):
            self.world.break_promise(f"the outer middleware of {job.id!r} got {result!r}")
        return result.removesuffix("|inside")

    async def _around_inside(self, job: Job[str], call_next: Callable[[Job[str]], Awaitable[str]]) -> str:
        return await call_next(job) + "|inside"

    # -- calls --------------------------------------------------------------------------------------

    @property
    def can_call(self) -> bool:
        """Whether it is started and not being stopped."""
        return self.started and not self.life.dead and not self.ending

    def begin(self, what: str) -> Call:
        """Note that a call begins."""
        call = Call(what, self.world.now)
        self.calls.append(call)
        self.world.tell(what)
        _call.set(call)
        return call

    async def finish(self, call: Call, result: Awaitable[Any]) -> None:
        """Await a call, and check its answer."""
        self.open_calls += 1
        try:
            value = await result
            call.outcome = repr(value)
            if "wait" in call.what and call.seq:
                self.checks.answered(call.what, call.seq, JobState.COMPLETED, value)
        except JobFailedError as error:
            call.outcome = repr(error)
            if call.seq:
                self.checks.answered(call.what, call.seq, JobState.FAILED)
        except JobCancelledError as error:
            call.outcome = repr(error)
            if call.seq:
                self.checks.answered(call.what, call.seq, JobState.CANCELLED)
        except JobQueueError as error:
            call.outcome = repr(error)
        finally:
            call.ended = self.world.now
            self.open_calls -= 1
            self.world.tell(f"{call.what} -> {call.outcome}")


def _note_incarnations(queue: Queue[Any, Any]) -> None:
    """Have the calls of a started queue note which incarnation they are about."""
    session = queue._session
    assert session is not None
    insert = session.insert_merged

    async def insert_merged(new: NewJob) -> Any:
        inserted = await insert(new)
        call = _call.get()
        if call is not None:
            call.seq = inserted.seq
        return inserted

    session.insert_merged = insert_merged  # type: ignore[method-assign, assignment]


Requests = Sequence[EnqueueRequest]


async def _marking(requests: Requests, call_next: Callable[[Requests], Awaitable[Any]]) -> Any:
    """Add headers, which the next middleware changes."""
    return await call_next(
        [replace(request, headers={"tag": "?" + request.payload.split()[0]}) for request in requests]
    )


async def _marking_again(requests: Requests, call_next: Callable[[Requests], Awaitable[Any]]) -> Any:
    return await call_next(
        [
            replace(request, headers={"tag": (request.headers or {}).get("tag", "")[1:]})
            for request in requests
        ]
    )
