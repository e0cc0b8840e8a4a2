"""`FakeClock`: time that only a test moves."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.runtime.clock import Clock
from jobqueue.testing import FakeClock


async def test_time_stands_still_until_moved() -> None:
    clock = FakeClock()
    assert isinstance(clock, Clock)
    assert clock.virtual
    start, monotonic = clock.time(), clock.monotonic()
    await clock.settle()
    assert (clock.time(), clock.monotonic()) == (start, monotonic)
    await clock.advance(1.5)
    clock.move(0.25)
    assert clock.time() - start == pytest.approx(1.75, abs=1e-6)
    assert clock.monotonic() - monotonic == 1.75


def test_milliseconds_are_exact_however_time_was_moved() -> None:
    clock = FakeClock()
    start = clock.now_ms()
    for step in range(1, 3000):
        clock.move(0.001)
        assert clock.now_ms() == start + step
    clock.move(0.1 + 0.2)
    assert clock.now_ms() == start + 2999 + 300


async def test_timers_fire_in_order_at_their_instant() -> None:
    clock = FakeClock()
    start = clock.now_ms()
    fired: list[tuple[str, int]] = []

    def note(name: str) -> None:
        fired.append((name, clock.now_ms() - start))

    for name, delay in (("c", 3), ("a", 1), ("b", 1), ("z", 9)):
        clock.call_later(delay, partial(note, name))
    await clock.advance(5)
    assert fired == [("a", 1000), ("b", 1000), ("c", 3000)]
    assert clock.now_ms() == start + 5000
    clock.move(4)
    assert fired[-1] == ("z", 9000)


async def test_a_cancelled_timer_does_not_fire() -> None:
    clock = FakeClock()
    fired: list[int] = []
    timer = clock.call_later(1, lambda: fired.append(1))
    clock.call_later(0.5, timer.cancel)
    await clock.advance(2)
    assert fired == []
    timer.cancel()


async def test_a_timer_may_set_the_next() -> None:
    clock = FakeClock()
    beats: list[float] = []

    def beat() -> None:
        beats.append(clock.monotonic())
        clock.call_later(1, beat)

    beat()
    await clock.advance(3.5)
    assert beats == [0, 1, 2, 3]


async def test_no_delay_calls_back_without_time_passing() -> None:
    clock = FakeClock()
    fired: list[float] = []
    clock.call_later(0, lambda: fired.append(clock.monotonic()))
    await clock.settle()
    assert fired == [0]


async def test_sleepers_wake_in_order_and_their_work_runs_between_the_steps() -> None:
    clock = FakeClock()
    log: list[tuple[str, float]] = []

    async def worker(name: str, pause: float) -> None:
        for _ in range(2):
            await clock.sleep(pause)
            log.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        group.create_task(worker("slow", 3))
        group.create_task(worker("fast", 2))
        await clock.advance(10)
    assert log == [("fast", 2), ("slow", 3), ("fast", 4), ("slow", 6)]


async def test_sleep_zero_only_yields() -> None:
    clock = FakeClock()
    await clock.sleep(0)
    assert clock.monotonic() == 0


async def test_a_cancelled_sleeper_leaves_nothing_behind() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(10)
    assert clock.monotonic() == 10


async def test_a_timer_of_another_threads_loop_fires_there() -> None:
    clock = FakeClock()
    seen: list[int] = []
    waiting = threading.Event()

    async def other() -> None:
        woken = asyncio.Event()

        def wake() -> None:
            seen.append(threading.get_ident())
            woken.set()

        clock.call_later(1, wake)
        waiting.set()
        await asyncio.wait_for(woken.wait(), 5)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    assert await asyncio.to_thread(waiting.wait, 5)
    clock.move(1)
    await asyncio.to_thread(thread.join, 5)
    assert seen == [thread.ident]


def test_a_timer_of_a_closed_loop_is_dropped() -> None:
    clock = FakeClock()
    fired: list[int] = []

    async def leave() -> None:
        clock.call_later(1, lambda: fired.append(1))

    asyncio.run(leave())
    clock.move(2)
    assert fired == []


def test_jitter_repeats() -> None:
    draws = [[FakeClock(seed=seed).uniform(0, 1) for _ in range(3)] for seed in (7, 7, 8)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_time_never_goes_back(seconds: float) -> None:
    clock = FakeClock()
    with pytest.raises(InvalidArgumentError, match="seconds"):
        clock.move(seconds)
    with pytest.raises(InvalidArgumentError, match="seconds"):
        await clock.advance(seconds)
    assert clock.monotonic() == 0


async def test_a_step_sets_the_wall_clock_and_lets_no_time_pass() -> None:
    clock, fired = FakeClock(), list[int]()
    before, now = clock.now_ms(), clock.monotonic()
    clock.call_later(5, lambda: fired.append(1))
    clock.step(3600)
    assert (clock.now_ms(), clock.monotonic(), fired) == (before + 3_600_000, now, [])
    clock.step(-7200)
    assert clock.now_ms() == before - 3_600_000
    clock.move(5)
    assert (clock.now_ms(), fired) == (before - 3_595_000, [1])
