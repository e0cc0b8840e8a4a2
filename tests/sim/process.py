"""One simulated process: a queue object, with or without a handler, and perhaps a reaper."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jobqueue import Backoff, Fatal, Job, LeaderElection, Queue, Reaper, Retry
from jobqueue.errors import (
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    WaitTimeoutError,
)
from jobqueue.job import JobState
from jobqueue.storage.base import NewJob
from tests.sim.checks import Checks
from tests.sim.store import SimStorage, SimStore
from tests.sim.world import ProcessLoop, ViolationError, World

QUEUE = "sim"
LEASE = 3.0
SWEEP = 1.0


@dataclass(frozen=True)
class Role:
    """What a process does."""

    name: str
    works: int = 0
    """Jobs at once; 0: it only produces."""
    reaps: bool = False
    elects: bool = False


@dataclass
class Call:
    """One call of a producer, as it sees it."""

    what: str
    began: float
    seq: int = 0
    ended: float | None = None
    outcome: str = ""
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
    generation: int = 0
    calls: list[Call] = field(default_factory=list)
    runs: list[tuple[str, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = self.role.name + "'" * self.generation
        self.loop: ProcessLoop = self.world.loop(name)
        self.queue: Queue[Any, Any] | None = None
        self.reaper: Reaper | None = None
        self.failure: BaseException | None = None
        self.open_calls = 0
        self.ending = False
        """Whether it has been told to stop."""

    @property
    def name(self) -> str:
        return self.loop.name

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in this process; its failure fails the run."""
        task = self.loop.create_task(work)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.failure = self.failure or task.exception()

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        storage = SimStorage(self.store, self.loop)
        queue: Queue[Any, Any] = Queue(
            storage, QUEUE, worker_id=self.name, concurrency=max(1, self.role.works),
            visibility_timeout=LEASE, backoff=Backoff.fixed(0.5), max_stalls=20,
            payload_serde=Text(), result_serde=Text(),
        )  # fmt: skip
        if self.role.works:
            queue.execute(self._handle)
        while True:
            try:
                await queue.start()
                break
            except JobQueueError:
                await asyncio.sleep(0.5)
        session = queue._session
        assert session is not None
        insert = session.insert_merged

        async def insert_merged(new: NewJob) -> Any:
            inserted = await insert(new)
            call = _call.get()
            if call is not None:
                call.seq = inserted.seq
            return inserted

        session.insert_merged = insert_merged
        self.queue = queue
        if self.role.reaps:
            election = LeaderElection(lock_ttl=2.0, renewal_interval=0.6, acquire_retry_interval=0.5)
            self.reaper = Reaper(
                storage, sweep_interval=SWEEP, leader_election=election if self.role.elects else None
            )
            await self.reaper.start()

    async def stop(self, timeout: float | None) -> None:
        self.loop.stopping = True
        self.world.tell(f"{self.name} stops")
        if self.reaper is not None:
            await self.reaper.stop()
        if self.queue is not None:
            await self.queue.stop(timeout)
        self.world.tell(f"{self.name} has stopped")

    def kill(self) -> None:
        self.world.tell(f"{self.name} is killed")
        self.loop.discard()

    def check_alive(self) -> None:
        """Raise what broke it."""
        if self.failure is not None:
            raise ViolationError(f"{self.name}: {self.failure!r}") from self.failure
        session = None if self.queue is None else self.queue._session
        if session is not None and session.defect is not None:
            raise ViolationError(f"{self.name} broke: {session.defect!r}") from session.defect

    # -- the handler --------------------------------------------------------------------------------

    async def _handle(self, job: Job[str]) -> str:
        """Do what the payload says, and return it."""
        self.world.tell(f"{self.name} runs {job.id}, fence {job.fence}")
        self.runs.append((job.id, job.fence, self.world.now))
        for word in job.payload.split()[1:]:
            await self._do(word, job)
        return job.payload

    async def _do(self, word: str, job: Job[str]) -> None:
        kind, _, amount = word.partition("=")
        match kind:
            case "sleep":
                await asyncio.sleep(float(amount))
            case "fail" if job.attempts <= int(amount):
                raise ValueError(word)
            case "fatal":
                raise Fatal(word)
            case "retry" if job.attempts <= int(amount):
                raise Retry(0.2)
            case "cancels_itself" if job.attempts <= int(amount):
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            case "stubborn":
                try:
                    await asyncio.sleep(float(amount))
                except asyncio.CancelledError:
                    await asyncio.sleep(0.3)
            case "progress":
                await job.progress(amount)
            case "spawns":
                spawned = asyncio.create_task(asyncio.sleep(float(amount)))
                self._spawned = spawned
            case _:
                pass

    # -- calls --------------------------------------------------------------------------------------

    @property
    def can_call(self) -> bool:
        """Whether it is started and not being stopped."""
        return self.queue is not None and not self.loop.dead and not self.ending

    async def call(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Make one call of a program."""
        calls = {
            "rpc": self.enqueue_and_wait,
            "enqueue": self.enqueue,
            "wait": self.wait,
            "cancel": self.cancel,
        }
        await calls[kind](*arguments)

    async def enqueue_and_wait(self, id: str | None, payload: str, timeout: float, reuse: str) -> None:
        call = self._begin(f"{self.name}: enqueue_and_wait({id}, {payload!r})")
        call.instant = " " not in payload
        assert self.queue is not None
        await self._await(call, self.queue.enqueue_and_wait(id, payload, timeout=timeout, reuse=reuse))

    async def enqueue(self, id: str | None, payload: str, delay: float, priority: int) -> None:
        call = self._begin(f"{self.name}: enqueue({id}, {payload!r})")
        assert self.queue is not None
        await self._await(call, self.queue.enqueue(id, payload, delay=delay or None, priority=priority))

    async def wait(self, id: str, timeout: float) -> None:
        assert self.queue is not None
        await self._await(self._begin(f"{self.name}: wait({id})"), self.queue.wait(id, timeout=timeout))

    async def cancel(self, id: str, running: bool) -> None:
        assert self.queue is not None
        await self._await(
            self._begin(f"{self.name}: cancel({id}, running={running})"),
            self.queue.cancel(id, running=running),
        )

    def _begin(self, what: str) -> Call:
        call = Call(what, self.world.now)
        self.calls.append(call)
        self.world.tell(what)
        _call.set(call)
        return call

    async def _await(self, call: Call, result: Any) -> None:
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
        except (JobNotFoundError, WaitTimeoutError, JobQueueError) as error:
            call.outcome = repr(error)
        finally:
            call.ended = self.world.now
            self.open_calls -= 1
            self.world.tell(f"{call.what} -> {call.outcome}")


def tag(number: int, *words: str) -> str:
    """Make a payload that no other job has, with what its handler is to do."""
    return " ".join((f"#{number}", *words))
