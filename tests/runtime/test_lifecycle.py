"""A service of any kind: what `Service` promises for all of them."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.errors import JobQueueError
from jobqueue.runtime.lifecycle import Service, Session
from jobqueue.runtime.loops import Home


class Bell(Session):
    def __init__(self, home: Home, log: list[str]) -> None:
        super().__init__("this bell", "Bell", home)
        self.log = log
        self.task: asyncio.Task[object] | None = None

    @property
    def ready(self) -> bool:
        return self.defect is None

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        return task is self.task

    async def drain(self, timeout: float | None) -> None:
        self.log.append(f"drain {timeout}")

    async def close(self) -> None:
        self.log.append("close")


class Ringing(Service[Bell]):
    def __init__(self) -> None:
        super().__init__("this bell", "Bell")
        self.log: list[str] = []

    async def _begin(self, home: Home) -> Bell:
        self.log.append("begin")
        return Bell(home, self.log)

    async def stop(self, timeout: float | None = None) -> None:
        await self._stop(timeout)

    def break_it(self) -> None:
        assert self._session is not None
        self._session.broke(ZeroDivisionError("a defect"))

    def fork(self) -> None:
        assert self._session is not None
        self._session.forked()

    def run_in(self, task: asyncio.Task[object] | None) -> None:
        assert self._session is not None
        self._session.task = task


async def test_starts_and_stops_count_once_and_it_can_start_again() -> None:
    bell = Ringing()
    for _ in range(2):
        assert not bell.ready
        await asyncio.gather(bell.start(), bell.start())
        assert bell.ready
        await asyncio.gather(bell.stop(3), bell.stop())
    assert bell.log == ["begin", "drain 3", "close"] * 2


async def test_what_broke_it_is_raised_until_it_has_stopped() -> None:
    async with Ringing() as bell:
        waiting = asyncio.create_task(bell.until_broken())
        await asyncio.sleep(0)
        bell.break_it()
        for call in (waiting, bell.until_broken()):
            with pytest.raises(
                JobQueueError, match=r"this bell broke and must be restarted.*a defect"
            ) as caught:
                await call
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert not bell.ready
    await bell.until_broken()


async def test_a_stop_by_another_task_ends_the_wait_for_a_defect() -> None:
    async with Ringing() as bell:
        waiting = asyncio.create_task(bell.until_broken())
        await asyncio.sleep(0)
    await waiting


async def test_a_forked_child_can_neither_start_it_nor_wait_for_it_and_a_stop_touches_nothing() -> None:
    bell = Ringing()
    await bell.start()
    bell.fork()
    for call in (bell.start(), bell.until_broken()):
        with pytest.raises(JobQueueError, match="this bell was started before a fork: make a new Bell"):
            await call
    await bell.stop()
    assert bell.log == ["begin"]


async def test_nobody_stops_what_would_wait_for_him() -> None:
    async with Ringing() as bell:
        bell.run_in(asyncio.current_task())
        with pytest.raises(JobQueueError, match="would wait for itself"):
            await bell.stop()
        bell.run_in(None)


def test_another_loop_is_refused_and_one_that_has_ended_is_forgotten() -> None:
    bell, owner = Ringing(), asyncio.new_event_loop()
    try:
        owner.run_until_complete(bell.start())
        for call in (bell.start, bell.stop, bell.until_broken):
            with pytest.raises(JobQueueError, match="this bell was started in another event loop"):
                asyncio.run(call())
    finally:
        owner.close()
    asyncio.run(bell.start())
    assert bell.log == ["begin", "begin"]
