"""Threads of simulated processes: lanes that the world runs in turns with all others.

A handler that is a plain function is written as a generator here: where it yields a number it blocks for so
many seconds, and elsewhere for no time. So the hand-overs between a thread and the event loop come in every
order, but never in the middle of a step: two threads that write to one object at the same instant are beyond
this simulation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from jobqueue.worker import execution, heartbeat_thread
from tests.sim.world import Lane, ProcessLoop


def _owner() -> ProcessLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ProcessLoop)
    return loop


def start_thread(function: Callable[[], Any], name: str) -> asyncio.Future[tuple[bool, Any]]:
    """Stand in for `jobqueue.runtime.threads.start_thread`."""
    loop = _owner()
    future: asyncio.Future[tuple[bool, Any]] = loop.create_future()
    lane = Lane(loop.world, f"{loop.life.name}/{name}", loop.life)

    def post(outcome: tuple[bool, Any]) -> None:
        if not future.done():
            future.set_result(outcome)

    def hand_over(*, raised: bool, value: Any) -> None:
        loop.call_soon_threadsafe(post, (raised, value))
        lane.ready.clear()
        loop.life.lanes.remove(lane)
        loop.world.lanes.remove(lane)

    def go_on(steps: Generator[float, None, Any]) -> None:
        try:
            blocked_for = next(steps)
        except StopIteration as end:
            hand_over(raised=False, value=end.value)
        except BaseException as error:
            hand_over(raised=True, value=error)
        else:
            loop.world.push(loop.world.now + blocked_for, lane, partial(go_on, steps))

    lane.ready.append(lambda: go_on(function()))
    return future


def start_loop(
    main: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[BaseException | None], None], name: str
) -> asyncio.AbstractEventLoop:
    """Stand in for `jobqueue.runtime.threads.start_loop`."""
    owner = _owner()
    loop = ProcessLoop(owner.world, f"{owner.life.name}/{name}", owner.life)

    def over(task: asyncio.Task[None]) -> None:
        ended(None if task.cancelled() else task.exception())
        loop.over = True
        loop.ready.clear()
        with suppress(ValueError):
            owner.life.lanes.remove(loop)
            owner.world.lanes.remove(loop)

    loop.create_task(main()).add_done_callback(over)
    return loop


@contextmanager
def simulated() -> Iterator[None]:
    """Let all that starts threads start them in the simulated world."""
    places = ((execution, "start_thread", start_thread), (heartbeat_thread, "start_loop", start_loop))
    real = [getattr(module, name) for module, name, _ in places]
    for module, name, stand_in in places:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for (module, name, _), function in zip(places, real, strict=True):
            setattr(module, name, function)
        heartbeat_thread._threads.clear()
