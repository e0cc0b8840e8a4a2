"""One process's handle on the simulated store: the contract over a network with faults.

A call travels to the store, is one step of the engine there, and its answer travels back. On the way it
may be refused, lost, delayed, or executed without an answer. Calls of one handle keep their order, and so
do its answers; pushes and wake-ups overtake both. A caller that is killed or cancelled does not stop its
call.

All calls but those that wait and subscribe are made from the table `CALLS` in `tests.sim.registry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.contract import Sink
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.values import Exchanged
from tests.sim.registry import CALLS, StoreCall
from tests.sim.store import SimStore
from tests.sim.world import Life, ProcessLoop, ViolationError, WorldClock

GIVEN_UP = 2.0
"""Seconds after which a caller is told that its call got no answer."""


class Handle:
    """The network between one connection of a process and the store; `SimStorage` adds the calls."""

    batched = True
    overlaps_calls = True
    shared = True

    def __init__(self, store: SimStore, life: Life) -> None:
        self.clock = WorldClock(store.world)
        self.life = life
        self._store = store
        self._opened = 0
        self._arrives = self._returns = 0.0
        self._woken: set[str] = set()
        """Queues for whose work it was woken and has not asked since: it is not woken again for the same."""

    def __repr__(self) -> str:
        return f"SimStorage({self.life.name})"

    async def open(self) -> None:
        self._opened += 1

    async def close(self) -> None:
        self._opened = max(0, self._opened - 1)

    def clone(self) -> SimStorage:
        return SimStorage(self._store, self.life)

    def _loop(self) -> ProcessLoop:
        """Return the event loop of the caller, which has to be one of this process."""
        if not self._opened:
            raise StorageError("the store is not open: call open() first")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        if loop.life is not self.life:
            self._store.world.break_promise(f"{loop.name} uses a connection of {self.life.name}")
        return loop

    async def send(self, name: str, call: StoreCall, arguments: dict[str, Any]) -> Any:
        """Send one step to the store and await its answer."""
        loop = self._loop()
        store, world, checks = self._store, self._store.world, self._store.checks
        answer: asyncio.Future[Any] = loop.create_future()
        if call.asked is not None:
            arguments = call.asked(checks, self.life, arguments)
        fate = store.fate()
        if fate != "ok":
            world.tell(f"{self.life.name}: {name} is {fate.replace('_', ' ')}")
        if fate in {"refused", "lost_request"}:
            world.after(0.001 if fate == "refused" else GIVEN_UP, lambda: loop.call_soon(_fail, answer))
            return await answer
        if name == "exchange" and self.life.on_exchange is not None:
            strike, self.life.on_exchange = self.life.on_exchange, None
            world.after(world.random.uniform(0.0, 0.003), strike)
        delay = store.latency() + (world.random.uniform(0.1, 4.0) if fate == "slow" else 0.0)

        def step(engine: Engine, now: int) -> Any:
            result = call.step(engine, now, arguments)
            if call.answered is not None:
                call.answered(checks, self.life, engine, arguments, result)
            return result

        def execute() -> None:
            try:
                result = store.apply(step, changes=call.changes)
            except ViolationError as violation:
                world.violation = world.violation or violation
                return
            except Exception as error:
                self._reply(loop, lambda error=error: answer.done() or answer.set_exception(error))
                return
            if name == "exchange" and arguments["limit"] > 0:
                self._woken.discard(arguments["queue"])
            if fate == "lost_reply":
                if name == "exchange":
                    checks.taken(result)  # its lease ends, and the next worker has it
                world.after(GIVEN_UP, lambda: loop.call_soon(_fail, answer))
            else:
                self._reply(loop, lambda: self._answer(answer, name, arguments, result))

        self._arrives = max(self._arrives, world.now + delay)
        world.after(self._arrives - world.now, execute)
        return await answer

    def _answer(self, answer: asyncio.Future[Any], name: str, arguments: dict[str, Any], result: Any) -> None:
        if not answer.done():
            answer.set_result(result)
            if name == "exchange":
                self._store.checks.taken(result)
        elif name == "exchange":
            self._give_back(arguments, result)

    def _give_back(self, arguments: dict[str, Any], answer: Exchanged) -> None:
        """Release claims whose caller is gone, as the contract asks of every store."""
        left = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
        if left:
            self._store.checks.returned(left)
            queue, worker, lease = arguments["queue"], arguments["worker"], arguments["lease"]
            self._store.apply(lambda engine, now: engine.exchange(queue, worker, left, 0, lease, now))

    def _reply(self, loop: ProcessLoop, callback: Callable[[], object]) -> None:
        world = self._store.world
        self._returns = max(self._returns, world.now + self._store.latency())
        world.after(self._returns - world.now, lambda: loop.call_soon(callback))

    # -- waiting and listening ----------------------------------------------------------------------

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        return await self._wait(("work", queue), timeout, lambda engine, now: engine.work_in(queue, now))

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        return await self._wait(
            ("lock", lock), timeout, lambda engine, now: 0 if engine.lock_holder(lock, now) is None else None
        )

    async def _wait(
        self, topic: tuple[str, str], timeout: float, look: Callable[[Engine, int], int | None]
    ) -> bool:
        """Wait for a wake-up; ``look`` returns the milliseconds until there is a reason of its own."""
        loop = self._loop()
        store, world = self._store, self._store.world
        answer: asyncio.Future[bool] = loop.create_future()

        def wake(woken: bool) -> None:
            if woken and topic[0] == "work":
                self._woken.add(topic[1])
            # On a connection of its own: it overtakes the answers to other calls.
            world.after(store.latency(), lambda: loop.call_soon(_settle, answer, woken))

        def expire() -> None:
            store.unblock(topic, wake)
            wake(False)

        def arrive() -> None:
            due = look(store.engine, store.now())
            if due == 0 and not (topic[0] == "work" and topic[1] in self._woken):
                wake(True)
            else:
                store.block(topic, wake)
                world.after(min(timeout, due / 1000) if due else timeout, expire)

        world.after(store.latency(), arrive)
        try:
            return await answer
        finally:
            store.unblock(topic, wake)

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        self._store.subscribe(queue, address, sink, self._loop())

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        self._store.unsubscribe(queue, address, sink)


def _fail(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(StorageUnavailableError("no answer from the simulated store"))


def _settle(answer: asyncio.Future[Any], value: Any) -> None:
    if not answer.done():
        answer.set_result(value)


def _sends(name: str, call: StoreCall) -> Callable[..., Any]:
    async def send(self: Handle, *given: Any, **named: Any) -> Any:
        return await self.send(name, call, call.bound(given, named))

    send.__name__ = name
    return send


SimStorage: Any = type("SimStorage", (Handle,), {name: _sends(name, call) for name, call in CALLS.items()})
"""A store to queues and reapers."""
