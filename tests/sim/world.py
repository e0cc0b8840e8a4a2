"""Virtual time and seeded scheduling: several event loops that run in turns in one thread.

Each simulated process has an event loop of its own. The world picks the loop and the callback that run
next by a seeded generator: so the order of callbacks, of replies on different connections and of processes
is drawn, and a seed repeats a run exactly. Time moves when nothing is ready. A paused process runs nothing;
a killed one never again.
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
from typing import Any

EPOCH = 1_700_000_000.0


class ViolationError(AssertionError):
    """A promise that was broken."""


class ProcessLoop(asyncio.BaseEventLoop):
    """The event loop of one simulated process; the world runs its callbacks."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.paused = False
        self.dead = False
        self.stopping = False
        """Whether its process was told to stop: only then may it release jobs."""
        self.ready: list[events.Handle] = []
        self._thread_id = threading.get_ident()  # it counts as running, as far as anybody asks

    def time(self) -> float:
        return self.world.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        if not self.dead:
            self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        timer = events.TimerHandle(when, callback, args, self, context)
        self.world.push(when, timer)
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        return self.call_at(self.world.now + max(0.0, delay), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """The world drops it when its time comes."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:  # what a killed process leaves behind is nobody's
            self.world.unhandled.append(
                f"{self.name}: {context.get('message')}: {context.get('exception')!r}"
            )

    def run(self, handle: events.Handle) -> None:
        """Run one callback as this loop."""
        events._set_running_loop(self)
        try:
            handle._run()
        finally:
            events._set_running_loop(None)

    def discard(self) -> None:
        """Close what a killed or ended process left suspended, without noise."""
        self.dead = True
        events._set_running_loop(self)
        try:
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(BaseException):
                    task.get_coro().close()  # type: ignore[union-attr]
        finally:
            events._set_running_loop(None)
            self.ready.clear()


class World:
    """All loops, the timers and the generator of one run."""

    def __init__(self, seed: object, *, trace: bool = False) -> None:
        self.random = random.Random(str(seed))
        self.now = 0.0
        self.wall = 0.0
        """Seconds by which the store's clock has been set."""
        self.loops: list[ProcessLoop] = []
        self.steps = 0
        self.story: list[str] | None = [] if trace else None
        self.unhandled: list[str] = []
        self.disorder = self.random.choice((0.0, 0.1, 0.5))
        """How often a callback that is not the first runs next."""
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._order = itertools.count()
        self.network = self.loop("network")

    def loop(self, name: str) -> ProcessLoop:
        loop = ProcessLoop(self, name)
        self.loops.append(loop)
        return loop

    def push(self, when: float, timer: events.TimerHandle) -> None:
        heapq.heappush(self._timers, (when, next(self._order), timer))

    def tell(self, text: str) -> None:
        """Add a line to the story of a traced run."""
        if self.story is not None:
            self.story.append(f"{self.now:9.4f}  {text}")

    def after(self, delay: float, callback: Callable[[], None]) -> None:
        """Call back in the network, which is never paused."""
        self.network.call_later(delay, callback)

    def run_until(self, done: Callable[[], bool], limit: float) -> bool:
        """Run until ``done`` or until ``limit`` in virtual time; say whether it was done."""
        while not done():
            if not self.step(limit):
                return done()
        return True

    def step(self, limit: float) -> bool:
        """Run one callback, or move time to the next timer; False if nothing happens until ``limit``."""
        runnable = [loop for loop in self.loops if loop.ready and not loop.paused]
        if not runnable:
            return self._move(limit)
        draw = self.random.random
        loop = runnable[0] if len(runnable) == 1 else runnable[int(draw() * len(runnable))]
        ready = loop.ready
        place = int(draw() * len(ready)) if len(ready) > 1 and draw() < self.disorder else 0
        handle = ready.pop(place)
        if not handle._cancelled:
            self.steps += 1
            loop.run(handle)
        return True

    def _move(self, limit: float) -> bool:
        timers = self._timers
        while timers and (timers[0][2]._cancelled or timers[0][2]._loop.dead):  # type: ignore[attr-defined]
            heapq.heappop(timers)
        if not timers or timers[0][0] > limit:
            self.now = max(self.now, limit) if limit < float("inf") else self.now
            return False
        when, _, timer = heapq.heappop(timers)
        self.now = max(self.now, when)
        timer._loop.ready.append(timer)  # type: ignore[attr-defined]
        return True

    def close(self) -> None:
        for loop in self.loops:
            loop.discard()
            loop._thread_id = None
            loop.close()
        self._timers.clear()


class WorldClock:
    """The `Clock` of one simulated process."""

    virtual = True

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
