"""Serving until a signal says stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from jobqueue import JobQueueError
from jobqueue.runtime import signals
from jobqueue.runtime.signals import serve_until_signal


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.started = asyncio.Event()
        self.hurried = asyncio.Event()
        self.stopping = asyncio.Event()
        self.broken = asyncio.Event()
        self.go = asyncio.Event()
        self.slow = False

    async def start(self) -> None:
        self.log.append("start")
        self.started.set()

    async def stop(self) -> None:
        self.log.append("stop")
        self.stopping.set()
        if self.slow:
            await self.go.wait()
        self.log.append("stopped")

    def hurry(self) -> None:
        self.log.append("hurry")
        self.hurried.set()

    async def until_broken(self) -> None:
        await self.broken.wait()
        raise ZeroDivisionError("a defect")

    def serve(self, start: Callable[[], Coroutine[Any, Any, None]] | None = None) -> asyncio.Task[int | None]:
        return asyncio.create_task(
            serve_until_signal(start or self.start, self.stop, self.hurry, self.until_broken)  # type: ignore[arg-type]
        )


async def soon(awaitable: Awaitable[object]) -> None:
    await asyncio.wait_for(awaitable, 5)


@pytest.fixture(autouse=True)
def handlers_are_restored() -> object:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops(number: signal.Signals) -> None:
    service = Service()
    serving = service.serve()
    await soon(service.started.wait())
    os.kill(os.getpid(), number)
    await soon(serving)
    assert service.log == ["start", "stop", "stopped"]


async def test_a_second_signal_hurries_and_a_third_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    service, exits = Service(), []
    left = asyncio.Event()

    def leave(code: int) -> None:
        exits.append(code)
        left.set()

    monkeypatch.setattr(signals.os, "_exit", leave)
    service.slow = True
    serving = service.serve()
    await soon(service.started.wait())
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(service.stopping.wait())
    os.kill(os.getpid(), signal.SIGINT)
    await soon(service.hurried.wait())
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(left.wait())
    service.go.set()
    await soon(serving)
    assert service.log[:3] == ["start", "stop", "hurry"]
    assert exits[:1] == [128 + signal.SIGTERM]


async def test_what_broke_is_raised_after_a_stop() -> None:
    service = Service()
    serving = service.serve()
    await soon(service.started.wait())
    service.broken.set()
    with pytest.raises(ZeroDivisionError, match="a defect"):
        await soon(serving)
    assert service.log == ["start", "stop", "stopped"]


async def test_what_another_has_stopped_is_not_stopped_again() -> None:
    service = Service()
    serving = asyncio.create_task(
        serve_until_signal(service.start, service.stop, service.hurry, service.started.wait)  # type: ignore[arg-type]
    )
    await soon(serving)
    assert service.log == ["start"]


async def test_a_start_that_fails_is_raised() -> None:
    service = Service()

    async def fail() -> None:
        raise ConnectionError("no store")

    with pytest.raises(ConnectionError):
        await soon(service.serve(fail))
    assert service.log == []


async def test_being_cancelled_stops_and_leaves_no_task() -> None:
    service, before = Service(), len(asyncio.all_tasks())
    serving = service.serve()
    await soon(service.started.wait())
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert service.log == ["start", "stop", "stopped"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_during_the_start_cancels_it(number: signal.Signals) -> None:
    service = Service()

    async def start() -> None:
        service.started.set()
        await service.go.wait()

    serving = service.serve(start)
    await soon(service.started.wait())
    os.kill(os.getpid(), number)
    await soon(serving)
    assert serving.result() == number
    assert service.log == []


async def test_a_second_signal_during_the_start_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    service, exits = Service(), []
    cancelled, left = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        service.started.set()
        try:
            await service.go.wait()
        finally:
            cancelled.set()
            await left.wait()

    def leave(code: int) -> None:
        exits.append(code)
        left.set()

    monkeypatch.setattr(signals.os, "_exit", leave)
    serving = service.serve(start)
    await soon(service.started.wait())
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(cancelled.wait())
    os.kill(os.getpid(), signal.SIGINT)
    await soon(serving)
    assert exits == [128 + signal.SIGINT]


async def test_a_start_that_a_signal_cannot_cancel_is_stopped() -> None:
    service = Service()

    async def start() -> None:
        service.started.set()
        try:
            await service.go.wait()
        except asyncio.CancelledError:
            service.log.append("start")

    serving = service.serve(start)
    await soon(service.started.wait())
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(serving)
    assert serving.result() is None
    assert service.log == ["start", "stop", "stopped"]


async def test_cancelled_while_it_starts() -> None:
    service = Service()

    async def start() -> None:
        service.started.set()
        await service.go.wait()

    serving = service.serve(start)
    await soon(service.started.wait())
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert service.log == []


async def test_all_that_is_served_shares_the_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    services, exits = [Service(), Service()], []
    left = asyncio.Event()

    def leave(code: int) -> None:
        exits.append(code)
        left.set()

    monkeypatch.setattr(signals.os, "_exit", leave)
    serving = []
    for service in services:
        service.slow = True
        serving.append(service.serve())
        await soon(service.started.wait())
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(asyncio.gather(*(service.stopping.wait() for service in services)))
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(asyncio.gather(*(service.hurried.wait() for service in services)))
    services[0].go.set()
    await soon(serving[0])
    assert exits == []
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(left.wait())
    services[1].go.set()
    await soon(serving[1])


async def test_one_that_is_served_longer_still_hears_signals() -> None:
    first, second = Service(), Service()
    serving = [first.serve(), second.serve()]
    await soon(asyncio.gather(first.started.wait(), second.started.wait()))
    first.broken.set()
    with pytest.raises(ZeroDivisionError):
        await soon(serving[0])
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(serving[1])
    assert second.log == ["start", "stop", "stopped"]


async def test_a_start_that_is_cut_short_leaves_the_others_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second signal ends a process that has not started, but not one in which others drain."""
    exits: list[int] = []
    monkeypatch.setattr(signals.os, "_exit", exits.append)
    runs, starts = Service(), Service()
    began, cancelled, let = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def start() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await let.wait()

    runs.slow = True
    serving = [runs.serve(), starts.serve(start)]
    await soon(asyncio.gather(runs.started.wait(), began.wait()))
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(asyncio.gather(cancelled.wait(), runs.stopping.wait()))
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(runs.hurried.wait())
    assert exits == []
    let.set()
    runs.go.set()
    await soon(asyncio.gather(*serving))


async def test_a_handler_that_was_not_made_by_python_gives_way_to_the_default_one() -> None:
    service = Service()
    serving = service.serve()
    await soon(service.started.wait())
    mine = signals._before[signal.SIGTERM]
    signals._before[signal.SIGTERM] = None  # what `signal.signal` says of such a one
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(serving)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signals._before == {}
    signal.signal(signal.SIGTERM, mine)


async def test_only_the_main_thread_can_serve() -> None:
    service = Service()

    def elsewhere() -> None:
        asyncio.run(serve_until_signal(service.start, service.stop, service.hurry, service.until_broken))  # type: ignore[arg-type]

    with pytest.raises(JobQueueError, match="only the main thread"):
        await asyncio.to_thread(elsewhere)
    assert service.log == []


def fork_and_terminate() -> int:
    """Return the signal that ends a forked child which is sent SIGTERM."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, b"1")
        time.sleep(10)
        os._exit(0)
    os.read(read, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


@pytest.mark.parametrize("threaded", [True, False])
async def test_a_forked_child_can_be_ended_and_tells_the_parent_nothing(*, threaded: bool) -> None:
    service = Service()
    serving = service.serve()
    await soon(service.started.wait())
    # As a handler of the user's own does, so that Python writes every signal into a pipe of the loop.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, service.log.append, "usr1")
    try:
        ended = await asyncio.to_thread(fork_and_terminate) if threaded else fork_and_terminate()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    assert ended == signal.SIGTERM
    for _ in range(10):
        await asyncio.sleep(0)
    assert not serving.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(serving)
    assert service.log == ["start", "stop", "stopped"]


async def test_a_wait_that_other_code_cancels_is_begun_again() -> None:
    service, waits = Service(), []

    async def until_broken() -> None:
        waits.append(asyncio.current_task())
        await service.broken.wait()

    serving = asyncio.create_task(
        serve_until_signal(service.start, service.stop, service.hurry, until_broken)  # type: ignore[arg-type]
    )
    await soon(service.started.wait())
    for count in (1, 2):
        while len(waits) < count:
            await asyncio.sleep(0)
        waits[-1].cancel()
    while len(waits) < 3:
        await asyncio.sleep(0)
    assert not serving.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(serving)
    assert service.log == ["start", "stop", "stopped"]


async def test_interrupts_that_are_ignored_stay_so() -> None:
    service = Service()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        serving = service.serve()
        await soon(service.started.wait())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        await soon(serving)
    finally:
        signal.signal(signal.SIGINT, before)
    assert service.log == ["start", "stop", "stopped"]
