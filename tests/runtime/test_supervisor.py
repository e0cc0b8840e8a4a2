"""Supervisor: background tasks that end together."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue import JobQueueError
from jobqueue.runtime.supervisor import Supervisor


async def forever(log: list[str] | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if log is not None:
            log.append("ended")


async def test_stop_cancels_all_tasks_and_waits_for_them() -> None:
    crashes: list[BaseException] = []
    supervisor, log = Supervisor(crashes.append), []
    await supervisor.stop()
    supervisor = Supervisor(crashes.append)
    await supervisor.start()
    tasks = [supervisor.spawn(forever(log), f"t{n}") for n in range(3)]
    short = supervisor.spawn(asyncio.sleep(0), "short")
    await short
    await supervisor.stop()
    await supervisor.stop()
    assert log == ["ended"] * 3
    assert all(task.cancelled() for task in tasks)
    assert supervisor._tasks == set()
    assert crashes == []


async def test_a_crash_ends_the_others_and_is_told() -> None:
    crashes: list[BaseException] = []
    supervisor, log = Supervisor(crashes.append), []
    await supervisor.start()
    supervisor.spawn(forever(log), "other")

    async def crash() -> None:
        raise ZeroDivisionError("a defect")

    supervisor.spawn(crash(), "crash")
    async with asyncio.timeout(5):
        while not crashes:
            await asyncio.sleep(0)
    assert log == ["ended"]
    assert [type(error) for error in crashes] == [ZeroDivisionError]
    await supervisor.stop()


async def test_crashes_at_once_are_told_together() -> None:
    crashes: list[BaseException] = []
    supervisor = Supervisor(crashes.append)
    await supervisor.start()

    async def crash() -> None:
        raise ZeroDivisionError

    supervisor.spawn(crash(), "one")
    supervisor.spawn(crash(), "two")
    await asyncio.sleep(0.01)
    (group,) = crashes
    assert isinstance(group, ExceptionGroup)
    assert len(group.exceptions) == 2
    await supervisor.stop()


@pytest.mark.parametrize("name", ["jobqueue-one", "jobqueue-supervisor"])
async def test_a_task_that_other_code_cancels_ends_the_others_and_is_told(name: str) -> None:
    crashes: list[BaseException] = []
    supervisor, log = Supervisor(crashes.append), []
    await supervisor.start()
    tasks = [supervisor.spawn(forever(log), each) for each in ("one", "two")]
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if task.get_name() == name:
            task.cancel()
    await asyncio.wait_for(asyncio.wait(tasks), 5)
    await supervisor.stop()
    assert log == ["ended"] * 2
    (crash,) = crashes
    assert isinstance(crash, JobQueueError)
    assert f"{name} was cancelled by other code" in str(crash)


async def test_a_start_that_other_code_cancels_is_an_error() -> None:
    supervisor = Supervisor(print)
    starting = asyncio.create_task(supervisor.start())
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if task.get_name() == "jobqueue-supervisor":
            task.cancel()
    with pytest.raises(JobQueueError, match="was cancelled by other code"):
        await asyncio.wait_for(starting, 5)
    await supervisor.stop()


async def test_a_dismissed_task_is_missed_by_nobody() -> None:
    crashes: list[BaseException] = []
    supervisor, log = Supervisor(crashes.append), []
    await supervisor.start()
    other = supervisor.spawn(forever(), "other")
    task = supervisor.spawn(forever(log), "dismissed")
    await asyncio.sleep(0)
    supervisor.dismiss(task)
    await asyncio.wait_for(asyncio.wait([task]), 5)
    await asyncio.sleep(0)
    assert (log, other.done(), crashes) == (["ended"], False, [])
    await supervisor.stop()


async def test_tasks_need_a_start() -> None:
    work = forever()
    with pytest.raises(AssertionError, match="before start"):
        Supervisor(print).spawn(work, "early")
    work.close()
