"""The simulated store: the engine in the middle, a network with faults around it.

A call travels to the store, is one step of the engine there, and its answer travels back. On the way it
may be refused, lost, delayed, or executed without an answer. Calls of one handle keep their order, and so
do its answers; pushes and wake-ups overtake both. A caller that is killed or cancelled does not stop its
call.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.job import Action, JobState, Settlement
from jobqueue.storage.base import (
    CancelStatus,
    Counts,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    Sink,
    Swept,
    UpdateTtlStatus,
    WorkerInfo,
)
from jobqueue.storage.engine import Effects, Engine
from tests.sim.world import ProcessLoop, World, WorldClock

if TYPE_CHECKING:
    from tests.sim.checks import Checks

T = TypeVar("T")
Step = Callable[[Engine, int], Any]


@dataclass
class Faults:
    """How unkind the network is; all are probabilities."""

    refused: float = 0.0
    lost_request: float = 0.0
    lost_reply: float = 0.0
    slow: float = 0.0
    lost_push: float = 0.0
    repeated_push: float = 0.0
    lost_wakeup: float = 0.0

    @property
    def any(self) -> bool:
        return any(vars(self).values())


KIND = Faults()
GIVEN_UP = 2.0
"""Seconds after which a caller is told that its call got no answer."""


class SimStore:
    """The one engine that all simulated processes share, and those who listen to it."""

    def __init__(self, world: World, checks: Checks) -> None:
        self.world = world
        self.checks = checks
        self.faults = KIND
        self.engine = Engine()
        self.saved: tuple[Engine, float] | None = None
        self._sinks: list[tuple[str, str, Sink, ProcessLoop]] = []
        self._blocked: dict[tuple[str, str], list[Callable[[bool], None]]] = {}

    def now(self) -> int:
        return int((1_700_000_000.0 + self.world.now + self.world.wall) * 1000)

    def apply(self, step: Step) -> Any:
        """Take one atomic step, check what it left, and tell those whom it concerns."""
        answer = step(self.engine, self.now())
        effects = self.engine.take_effects()
        self.checks.after_step(self.engine)
        if effects is not None:
            self._publish(effects)
        return answer

    def sync(self) -> None:
        """Write everything down: a rollback comes back to here."""
        self.saved = copy.deepcopy(self.engine), self.world.wall

    def roll_back(self) -> None:
        """Lose what was written since the last sync, as a failover to a lagging replica does."""
        if self.saved is None:
            return
        fence, seq = self.engine._fence, self.engine._seq
        self.engine = copy.deepcopy(self.saved[0])
        self.engine.shift(int((self.world.wall - self.saved[1]) * 1000))
        # Numbers are never given twice: real stores derive them from the clock, or skip some.
        self.engine._fence, self.engine._seq = fence, seq
        self.checks.rolled_back(self.engine)
        self.wake_all()

    def set_clock(self, seconds: float) -> None:
        """Set the store's clock, as an administrator does; the store notices and shifts its instants."""
        self.world.wall += seconds
        self.engine.shift(int(seconds * 1000))

    # -- listeners ----------------------------------------------------------------------------------

    def subscribe(self, queue: str, address: str, sink: Sink, process: ProcessLoop) -> None:
        self.unsubscribe(queue, address, sink)
        self._sinks.append((queue, address, sink, process))

    def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        self._sinks = [s for s in self._sinks if (s[0], s[1]) != (queue, address) or s[2] is not sink]

    def block(self, topic: tuple[str, str], wake: Callable[[bool], None]) -> None:
        self._blocked.setdefault(topic, []).append(wake)

    def unblock(self, topic: tuple[str, str], wake: Callable[[bool], None]) -> None:
        if wake in self._blocked.get(topic, ()):
            self._blocked[topic].remove(wake)

    def wake(self, topic: tuple[str, str]) -> None:
        for wake in self._blocked.pop(topic, ()):
            wake(True)

    def wake_all(self) -> None:
        for topic in tuple(self._blocked):
            self.wake(topic)

    def _publish(self, effects: Effects) -> None:
        for kind, names in (("work", effects.woken), ("lock", effects.unlocked)):
            for name in sorted(names):
                if self._draw(self.faults.lost_wakeup):
                    self.world.tell(f"the wake-up of {kind} {name} is lost")
                else:
                    self.wake((kind, name))
        for request in effects.cancels:
            self._push(
                request.address,
                request.queue,
                lambda sink, r=request: sink.cancel(r.queue, r.id, r.fence),
                f"cancel {request.id}",
            )
        for address, replies in effects.replies.items():
            for reply in replies:
                self._push(
                    address, reply.queue, lambda sink, r=reply: sink.deliver([r]), f"{reply.state} {reply.id}"
                )

    def _push(self, address: str, queue: str, call: Callable[[Sink], None], what: str) -> None:
        for at, to, sink, process in self._sinks:
            if at != queue or to != address:
                continue
            if self._draw(self.faults.lost_push):
                self.world.tell(f"the push '{what}' to {process.name} is lost")
                continue
            for _ in range(2 if self._draw(self.faults.repeated_push) else 1):
                self.world.after(
                    self.latency(), lambda process=process, sink=sink: process.call_soon(call, sink) and None
                )

    # -- the network --------------------------------------------------------------------------------

    def _draw(self, probability: float) -> bool:
        return probability > 0 and self.world.random.random() < probability

    def latency(self) -> float:
        return 0.0002 + 0.002 * self.world.random.random() ** 4

    def fate(self) -> str:
        """Draw what happens to a call."""
        faults = self.faults
        if not faults.any:
            return "ok"
        draw = self.world.random.random()
        for name in ("refused", "lost_request", "lost_reply", "slow"):
            chance = getattr(faults, name)
            if draw < chance:
                return name
            draw -= chance
        return "ok"


class SimStorage:
    """One process's handle on the simulated store."""

    batched = True
    shared = True

    def __init__(self, store: SimStore, process: ProcessLoop) -> None:
        self.clock = WorldClock(store.world)
        self._store = store
        self._process = process
        self._opened = 0
        self._arrives = self._returns = 0.0

    def __repr__(self) -> str:
        return f"SimStorage({self._process.name})"

    async def open(self) -> None:
        self._opened += 1

    async def close(self) -> None:
        self._opened = max(0, self._opened - 1)

    def clone(self) -> SimStorage:
        return SimStorage(self._store, self._process)

    def _check_open(self) -> None:
        if not self._opened:
            raise StorageError("the store is not open: call open() first")

    async def _call(
        self, name: str, step: Callable[[Engine, int], T], undo: Callable[[T], None] | None = None
    ) -> T:
        """Send one step to the store and await its answer."""
        self._check_open()
        store, world = self._store, self._store.world
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        fate = store.fate()
        if fate != "ok":
            world.tell(f"{self._process.name}: {name} is {fate.replace('_', ' ')}")
        if fate in {"refused", "lost_request"}:
            self._later(0.001 if fate == "refused" else GIVEN_UP, lambda: _fail(answer))
            return await answer
        delay = store.latency() + (world.random.uniform(0.1, 4.0) if fate == "slow" else 0.0)

        def execute() -> None:
            try:
                result = store.apply(step)
            except Exception as error:
                self._reply(lambda error=error: answer.done() or answer.set_exception(error))
                return
            if fate == "lost_reply":
                self._later(GIVEN_UP, lambda: _fail(answer))
            else:
                self._reply(lambda: self._answer(answer, result, undo))

        self._arrives = max(self._arrives, world.now + delay)
        world.after(self._arrives - world.now, execute)
        return await answer

    def _answer(self, answer: asyncio.Future[T], result: T, undo: Callable[[T], None] | None) -> None:
        if not answer.done():
            answer.set_result(result)
        elif undo is not None:
            undo(result)

    def _reply(self, callback: Callable[[], object]) -> None:
        world = self._store.world
        self._returns = max(self._returns, world.now + self._store.latency())
        self._later(self._returns - world.now, callback)

    def _later(self, delay: float, callback: Callable[[], object]) -> None:
        self._store.world.after(delay, lambda: self._process.call_soon(callback) and None)

    # -- the contract -------------------------------------------------------------------------------

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        jobs = list(jobs)

        def step(engine: Engine, now: int) -> list[Inserted]:
            answers = engine.insert(queue, jobs, now, reply_to=reply_to, max_length=max_length)
            self._store.checks.inserted(jobs, answers)
            return answers

        return await self._call("insert", step)

    async def get(
        self, queue: str, ids: Sequence[str], *, reply_to: str | None = None, payload: bool = False
    ) -> list[Record | None]:
        return await self._call(
            "get", lambda engine, now: engine.get(queue, ids, now, reply_to=reply_to, payload=payload)
        )

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        settlements = list(settlements)

        def step(engine: Engine, now: int) -> Exchanged:
            answer = engine.exchange(queue, worker, settlements, limit, lease, now)
            self._store.checks.exchanged(self._process, settlements, answer)
            return answer

        def give_back(answer: Exchanged) -> None:
            """Release claims whose caller is gone, as the contract asks of every store."""
            left = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
            if left:
                self._store.checks.returned(left)
                self._store.apply(lambda engine, now: engine.exchange(queue, worker, left, 0, lease, now))

        return await self._call("exchange", step, give_back)

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        return await self._call(
            "extend", lambda engine, now: engine.extend(queue, worker, leases, lease, now)
        )

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        return await self._call("sweep", lambda engine, now: engine.sweep(queue, limit, now))

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        return await self._call("cancel", lambda engine, now: engine.cancel(queue, ids, now, running=running))

    async def keep(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        return await self._call("keep", lambda engine, now: engine.keep(queue, ttls, now))

    async def purge(self, queue: str, limit: int) -> int:
        return await self._call("purge", lambda engine, now: engine.purge(queue, limit, now))

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        return await self._call("scan", lambda engine, now: engine.scan(queue, state, limit, now, cursor))

    async def counts(self, queue: str) -> Counts:
        return await self._call("counts", lambda engine, now: engine.counts(queue, now))

    async def queues(self) -> list[str]:
        return await self._call("queues", lambda engine, _: engine.queues())

    async def workers(self, queue: str) -> list[WorkerInfo]:
        return await self._call("workers", lambda engine, now: engine.workers(queue, now))

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        return await self._wait(("work", queue), timeout, lambda engine, now: engine.work_in(queue, now))

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        return await self._wait(
            ("lock", lock), timeout, lambda engine, now: 0 if engine.holder(lock, now) is None else None
        )

    async def _wait(
        self, topic: tuple[str, str], timeout: float, look: Callable[[Engine, int], int | None]
    ) -> bool:
        """Wait for a wake-up; ``look`` returns the milliseconds until there is a reason of its own."""
        self._check_open()
        store, world = self._store, self._store.world
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def wake(woken: bool) -> None:
            self._reply(lambda: answer.done() or answer.set_result(woken))

        def expire() -> None:
            store.unblock(topic, wake)
            wake(False)

        def arrive() -> None:
            due = look(store.engine, store.now())
            if due == 0:
                wake(True)
            else:
                store.block(topic, wake)
                world.after(timeout if due is None else min(timeout, due / 1000), expire)

        world.after(store.latency(), arrive)
        try:
            return await answer
        finally:
            store.unblock(topic, wake)

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        self._check_open()
        self._store.subscribe(queue, address, sink, self._process)

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        self._store.unsubscribe(queue, address, sink)

    async def acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        return await self._call("acquire", lambda engine, now: engine.acquire(lock, owner, ttl, now))

    async def renew(self, lock: str, owner: str, ttl: int) -> bool:
        return await self._call("renew", lambda engine, now: engine.renew(lock, owner, ttl, now))

    async def release(self, lock: str, owner: str) -> bool:
        return await self._call("release", lambda engine, now: engine.release(lock, owner, now))

    async def holder(self, lock: str) -> LockInfo | None:
        return await self._call("holder", lambda engine, now: engine.holder(lock, now))


def _fail(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(StorageUnavailableError("no answer from the simulated store"))
