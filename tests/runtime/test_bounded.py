"""Waits that end: by a clock that a test moves, and by the machine's."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.runtime.bounded import all_end, end_within, within
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.testing import FakeClock


async def test_a_call_that_answers_in_time_is_returned_and_leaves_no_timer() -> None:
    clock = FakeClock()

    async def answer() -> int:
        await clock.sleep(1)
        return 42

    call = asyncio.create_task(within(clock, answer(), 2))
    await clock.advance(1)
    assert await call == 42
    assert all(timer.callback is None for _, _, timer in clock._timers)


@pytest.mark.parametrize("virtual", [True, False])
async def test_a_call_that_does_not_answer_is_cancelled_and_raises(virtual: bool) -> None:
    clock = FakeClock() if virtual else SYSTEM_CLOCK
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = asyncio.create_task(within(clock, hang(), 5 if virtual else 0.01))
    if isinstance(clock, FakeClock):
        await clock.advance(4.9)
        assert not call.done()
        await clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await call
    assert ended.is_set()


async def test_a_bounded_call_that_is_cancelled_by_others_is_cancelled() -> None:
    clock = FakeClock()
    call = asyncio.create_task(within(clock, asyncio.Event().wait(), 5))
    await clock.settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_timeout_error_of_the_call_itself_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await within(FakeClock(), fail(), 5)


async def test_waiting_for_tasks_cancels_none_of_them() -> None:
    clock, go = FakeClock(), asyncio.Event()
    tasks = [asyncio.create_task(go.wait()), asyncio.create_task(asyncio.sleep(0))]
    waiting = asyncio.create_task(all_end(clock, tasks, 5))
    await clock.advance(5)
    assert await waiting is False
    go.set()
    assert await all_end(clock, tasks, 5) is True


async def test_a_task_is_ended_after_its_time_and_when_nobody_waits_any_more() -> None:
    clock = FakeClock()
    late = asyncio.create_task(asyncio.Event().wait())
    waiting = asyncio.create_task(end_within(clock, late, 5))
    await clock.advance(5)
    await waiting
    assert late.cancelled()
    left = asyncio.create_task(asyncio.Event().wait())
    waiting = asyncio.create_task(end_within(clock, left, 5))
    await clock.settle()
    waiting.cancel()
    await clock.settle()
    assert waiting.cancelled()
    assert left.cancelled()
