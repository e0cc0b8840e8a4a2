"""Serving until a signal says stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from jobqueue import signals
from jobqueue.signals import serve_until_signal


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
