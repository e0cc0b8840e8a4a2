"""Threads with an event loop: what is called before they run, what ends them, and what breaks them."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from jobqueue.runtime.threads import start_loop
from tests.support import within

pytestmark = pytest.mark.quick


async def started(main, called=()) -> BaseException | None:
    """Run ``main`` in a thread, with calls that may come before it runs; return what broke it."""
    owner, over = asyncio.get_running_loop(), asyncio.Event()
    failures: list[BaseException | None] = []

    def ended(failure: BaseException | None) -> None:
        failures.append(failure)
        owner.call_soon_threadsafe(over.set)

    loop = start_loop(main, ended, "test-loop")
    for function in called:
        loop.call_soon_threadsafe(function)
    await within(over.wait())
    assert loop.is_closed()
    return failures[0]


async def test_calls_to_its_loop_are_kept_until_it_runs() -> None:
    order: list[str] = []
    go_on = asyncio.Event()

    async def main() -> None:
        await go_on.wait()
        order.append(threading.current_thread().name)

    assert await started(main, [partial(order.append, "called"), go_on.set]) is None
    assert order == ["called", "test-loop"]


async def test_who_waits_is_told_what_broke_it() -> None:
    async def main() -> None:
        raise LookupError("gone")

    assert repr(await started(main)) == "LookupError('gone')"


async def test_without_a_thread_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        raise AssertionError("it never runs")

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def noted() -> asyncio.AbstractEventLoop:
        made.append(new_event_loop())
        return made[0]

    new_event_loop = asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        start_loop(main, lambda _: None, "test-loop")
    assert made[0].is_closed()
