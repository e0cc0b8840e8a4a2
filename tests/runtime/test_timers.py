"""Timers: many timeouts on few timers of the loop."""

from __future__ import annotations

import random
from typing import Any

from jobqueue.runtime.timers import Lane, Timers
from jobqueue.testing import FakeClock


class Item:
    lane: Lane | None = None
    due = 0.0

    def __init__(self, clock: FakeClock, log: list[Any], name: Any = None, then: Any = None) -> None:
        self.clock, self.log, self.name, self.then = clock, log, name, then

    def expire(self) -> None:
        self.log.append((self.name, self.clock.monotonic()))
        if self.then is not None:
            self.then()


async def test_thousands_of_timeouts_fire_in_time_and_never_early() -> None:
    clock, log, rng = FakeClock(), [], random.Random(7)
    timers = Timers(clock)
    items: dict[int, Item] = {}
    expected: dict[int, float] = {}
    for n in range(3000):
        await clock.advance(rng.random() / 300)
        items[n] = Item(clock, log, n)
        seconds = rng.choice([0.1, 0.25, 1, 3.3])
        expected[n] = clock.monotonic() + seconds
        timers.start(items[n], seconds)
    await clock.advance(5)
    assert sorted(name for name, _ in log) == list(range(3000))
    for name, when in log:
        assert -1e-6 <= when - expected[name] <= 0.02, (name, when, expected[name])
    assert timers._lanes == timers._heads == {}


async def test_a_stopped_timeout_does_not_fire() -> None:
    clock, log = FakeClock(), []
    timers = Timers(clock)
    items = [Item(clock, log, n) for n in range(10)]
    for item in items:
        timers.start(item, 1)
        await clock.advance(0.05)
    for item in items[::2]:
        timers.stop(item)
        timers.stop(item)
    await clock.advance(3)
    assert [name for name, _ in log] == [1, 3, 5, 7, 9]
    for item in items:
        timers.stop(item)
    timers.stop(Item(clock, log))


async def test_one_timer_of_the_loop_serves_all_of_a_duration() -> None:
    clock, log = FakeClock(), []
    timers = Timers(clock)
    for n in range(1000):
        item = Item(clock, log, n)
        timers.start(item, 30)
        if n % 10:
            timers.stop(item)
    assert len([timer for _, _, timer in clock._timers if timer.callback is not None]) == 1
    await clock.advance(31)
    assert len(log) == 100


async def test_an_expiry_may_stop_another_and_start_a_new_one() -> None:
    clock, log = FakeClock(), []
    timers = Timers(clock)
    last = Item(clock, log, "last")
    second = Item(clock, log, "second")

    def then() -> None:
        timers.stop(second)
        timers.start(last, 1)

    timers.start(Item(clock, log, "first", then), 1)
    timers.start(second, 1)
    await clock.advance(5)
    assert [name for name, _ in log] == ["first", "last"]
    assert log[1][1] >= 2


async def test_close_forgets_all() -> None:
    clock, log = FakeClock(), []
    timers = Timers(clock)
    for seconds in (1, 2, 3):
        timers.start(Item(clock, log), seconds)
    timers.close()
    timers.close()
    await clock.advance(10)
    assert log == []


async def test_a_timeout_may_start_again_after_it_fired() -> None:
    clock, log = FakeClock(), []
    timers = Timers(clock)
    item = Item(clock, log, "item")
    for _ in range(3):
        timers.start(item, 0.5)
        await clock.advance(1)
    assert len(log) == 3
