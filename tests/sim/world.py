"""Virtual time and seeded scheduling: event loops and threads that run in turns in one thread.

Each simulated process has lanes: an event loop, one more for each thread with an event loop, and one for each
thread that runs a plain function. The world picks the lane and the callback that run next by a seeded
generator: so the order of callbacks, of replies on different connections, of processes and of hand-overs
between threads is drawn, and a seed repeats a run exactly. Time moves when nothing is ready. A lane that is
held runs nothing; those of a killed process never run again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import threading
from asyncio import events
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

EPOCH = 1_700_000_000.0
LEASE = 3.0
"""Seconds of a lease, of all queues."""


class ViolationError(AssertionError):
    """A promise that was broken."""


@dataclass(eq=False)
class Life:
    """What all lanes of one process share."""

    name: str
    lanes: list[Lane] = field(default_factory=list)
    dead: bool = False
    stopping: bool = False
    """Whether it was told to stop: only then may it release jobs."""
    draining: Callable[[str], bool] = lambda _queue: False
    """Whether the worker of a queue was told to stop: then it claims no more."""
    cut: bool = False
    """Whether a background task of it was cancelled."""
    held_for: float = 0.0
    """Seconds in which it did not run at all."""
    blocks: list[tuple[float, float]] = field(default_factory=list)
    """Times in which its event loop was blocked, and its threads ran."""

    on_exchange: Callable[[], None] | None = None
    """Called once, while the next exchange is on its way."""
    since: float = 0.0
    """When it had started."""

    @property
    def disturbed(self) -> bool:
        """Whether it was held up at some time."""
        return self.cut or self.held_for > 0 or bool(self.blocks)

    def may_lose_lease(self, claimed_at: float) -> bool:
        """Say whether anything befell it that may cost it the lease of a job that it claimed then."""
        if self.dead or self.cut or self.stopping or self.held_for > LEASE / 4:
            return True
        # A claim that it could not take up, because its event loop was blocked, is not renewed.
        return any(begin <= claimed_at + 0.1 and end >= claimed_at for begin, end in self.blocks)

    @property
    def held(self) -> bool:
        """Whether nothing of it runs just now."""
        return any(lane.held for lane in self.lanes)

    def hold(self) -> None:
        """Run nothing of it, until `release`."""
        for lane in self.lanes:
            lane.held += 1

    def release(self) -> None:
        for lane in self.lanes:
            lane.held -= 1

    def end(self) -> None:
        """Run nothing of it ever again."""
        self.dead = True
        for lane in self.lanes:
            lane.discard()


class Handle(events.Handle):
    """A callback, made without what is there to debug it: there are hundreds in each run."""

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None


class TimerHandle(events.TimerHandle):
    """The same, with an instant."""

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        Handle.__init__(self, callback, args, loop, context)  # type: ignore[arg-type]
        self._when = when
        self._scheduled = True


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set is the same in every run: sets of tasks are cancelled in their order."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class Lane:
    """Something that runs one thing after the other: here plain functions, for a network or a thread."""

    def __init__(self, world: World, name: str, life: Life) -> None:
        self.world = world
        self.name = name
        self.life = life
        self.held = 0
        """How many reasons there are not to run; 0: it runs."""
        self.ready: list[Any] = []
        life.lanes.append(self)
        world.lanes.append(self)

    def run(self, function: Callable[[], object]) -> None:
        """Run one function, in no event loop."""
        self.world.enter(None)
        function()

    def discard(self) -> None:
        """Drop what was to be run."""
        self.ready.clear()
        with suppress(ValueError):
            self.world.lanes.remove(self)


class Network(Lane):
    """Everything between the processes and in the store: no event loop, whichever counts as running."""

    def run(self, function: Callable[[], object]) -> None:
        function()


class ProcessLoop(asyncio.BaseEventLoop, Lane):
    """An event loop of a simulated process; the world runs its callbacks."""

    def __init__(self, world: World, name: str, life: Life) -> None:
        asyncio.BaseEventLoop.__init__(self)
        Lane.__init__(self, world, name, life)
        self.over = False
        self.tasks: list[asyncio.Task[Any]] = []
        """All that were made, in that order."""
        self._thread_id = threading.get_ident()  # it counts as running, as far as anybody asks
        world.loops.append(self)

    def time(self) -> float:
        return self.world.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> events.Handle:
        handle = Handle(callback, args, self, context)
        if not self.over:
            self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task = SimTask(self.world.next_number(), coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        timer = TimerHandle(when, callback, args, self, context)
        self.world.push(when, self, timer)
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        now = self.world.now
        return self.call_at(now + delay if delay > 0.0 else now, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """The world drops it when its time comes."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.over:  # what a killed process leaves behind is nobody's
            self.world.unhandled.append(
                f"{self.name}: {context.get('message')}: {context.get('exception')!r}"
            )

    def run(self, handle: Any) -> None:
        """Run one callback as this loop."""
        if not handle._cancelled:
            if self.world.entered is not self:
                self.world.enter(self)
            handle._run()

    def discard(self) -> None:
        """Close what a killed or ended process left suspended, without noise."""
        if self.over:
            return
        self.over = True
        self.world.enter(self)
        for task in self.tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            for _ in range(20):  # what cleans up by awaiting has to be closed again
                try:
                    task.get_coro().close()  # type: ignore[union-attr]
                except BaseException:
                    continue
                break
        self.world.enter(None)
        Lane.discard(self)


class World:
    """All lanes, the timers and the generator of one run."""

    def __init__(self, seed: object, *, trace: bool = False) -> None:
        self.random = random.Random(str(seed))
        self.now = 0.0
        self.wall = 0.0
        """Seconds by which the store's clock has been set."""
        self.lanes: list[Lane] = []
        self.loops: list[ProcessLoop] = []
        """All that ever were, to be closed."""
        self.entered: ProcessLoop | None = None
        """The event loop that counts as running."""
        self.steps = 0
        self.story: list[str] | None = [] if trace else None
        self.unhandled: list[str] = []
        self.violation: ViolationError | None = None
        """The first promise that was broken, wherever it was noticed."""
        self.disorder = self.random.choice((0.0, 0.1, 0.5))
        """How often a callback that is not the first runs next."""
        self._timers: list[tuple[float, int, Lane, Any]] = []
        self._order = itertools.count()
        self.next_number = itertools.count().__next__
        self.network = Network(self, "network", Life("network"))

    def enter(self, loop: ProcessLoop | None) -> None:
        """Make an event loop the running one."""
        # It takes a system call on Python 3.11, so a loop that goes on stays the running one.
        if self.entered is not loop:
            events._set_running_loop(loop)
            self.entered = loop

    def push(self, when: float, lane: Lane, what: Any) -> None:
        heapq.heappush(self._timers, (when, next(self._order), lane, what))

    def break_promise(self, text: str) -> None:
        """Note a promise that was broken where raising would be taken for something else."""
        self.violation = self.violation or ViolationError(text)

    def tell(self, text: str) -> None:
        """Add a line to the story of a traced run."""
        if self.story is not None:
            self.story.append(f"{self.now:9.4f}  {text}")

    def after(self, delay: float, callback: Callable[[], object]) -> None:
        """Call back in the network, which is never held."""
        self.push(self.now + delay, self.network, callback)

    def run_until(self, done: Callable[[], bool], limit: float) -> bool:
        """Run until ``done`` or until ``limit`` in virtual time; say whether it was done.

        It looks whenever time is to move. Raises `ViolationError`.
        """
        draw, lanes = self.random.random, self.lanes
        try:
            while True:
                runnable = [lane for lane in lanes if lane.ready and not lane.held]
                if not runnable:
                    if done():
                        return True
                    if not self._move(limit):
                        return False
                    continue
                lane = runnable[0] if len(runnable) == 1 else runnable[int(draw() * len(runnable))]
                ready = lane.ready
                place = int(draw() * len(ready)) if len(ready) > 1 and draw() < self.disorder else 0
                self.steps += 1
                if self.steps > MOST_STEPS:
                    raise ViolationError("it never comes to rest")
                lane.run(ready.pop(place))
                if self.violation is not None:
                    raise self.violation
        finally:
            self.enter(None)

    def _move(self, limit: float) -> bool:
        """Move time to the next timer; False if there is none until ``limit``."""
        timers = self._timers
        while timers:
            when, _, lane, what = timers[0]
            if lane.life.dead or (lane is not self.network and getattr(what, "_cancelled", False)):
                heapq.heappop(timers)
                continue
            if when > limit:
                break
            heapq.heappop(timers)
            self.now = max(self.now, when)
            lane.ready.append(what)
            return True
        self.now = max(self.now, limit) if limit < float("inf") else self.now
        return False

    def close(self) -> None:
        for loop in self.loops:
            loop.discard()
            loop._thread_id = None
            loop.close()
        self._timers.clear()


MOST_STEPS = 300_000
"""Callbacks of one run."""


class WorldClock:
    """The `Clock` of one simulated process."""

    virtual = False
    """Threads run in it, in turns with all else."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        return EPOCH + self._world.now + self._world.wall

    def monotonic(self) -> float:
        return self._world.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> events.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._world.random.random()
