"""A started object belongs to one event loop: another is refused, and one that has ended is forgotten."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobqueue import FileStorage, JobQueueError, MemoryStorage, Queue, Reaper, Storage
from tests.support import echo

SECONDS = 10.0
Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def bounded(call: Coroutine[Any, Any, Any]) -> Any:
    """Run something in a loop of its own."""

    async def main() -> Any:
        async with asyncio.timeout(SECONDS):
            return await call

    return asyncio.run(main())


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return MemoryStorage() if request.param == "memory" else FileStorage(tmp_path, fsync=False)


@pytest.fixture
def queue(store: Storage) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue(store, "q")
    queue.execute(echo)
    return queue


async def use(queue: Queue[Any, Any], id: str) -> Any:
    async with queue:
        return await queue.enqueue_and_wait(id, id)


CALLS: dict[str, Callable[[Queue[Any, Any]], Awaitable[Any]]] = {
    "enqueue": lambda queue: queue.enqueue("x", 1),
    "enqueue_many": lambda queue: queue.enqueue_many([("x", 1)]),
    "enqueue_and_wait": lambda queue: queue.enqueue_and_wait("x", 1),
    "wait": lambda queue: queue.wait("x"),
    "cancel": lambda queue: queue.cancel("x"),
    "get_status": lambda queue: queue.get_status("x"),
    "get_result": lambda queue: queue.get_result("x"),
    "update_result_ttl": lambda queue: queue.update_result_ttl("x", 1),
    "start": lambda queue: queue.start(),
    "stop": lambda queue: queue.stop(),
    "until_broken": lambda queue: queue.until_broken(),
}


def bounded_in_a_thread(call: Coroutine[Any, Any, Any]) -> Any:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(bounded, call).result(SECONDS)


@pytest.mark.parametrize("run", [bounded, bounded_in_a_thread], ids=["same thread", "other thread"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_from_another_loop_is_refused(queue: Queue[Any, Any], name: str, run: Runner) -> None:
    async def call() -> Any:
        return await CALLS[name](queue)

    owner = asyncio.new_event_loop()
    try:
        owner.run_until_complete(queue.start())
        with pytest.raises(JobQueueError, match="in another event loop"):
            run(call())
        # The owner is not disturbed.
        assert owner.run_until_complete(queue.enqueue_and_wait("mine", 1)) == 1
        owner.run_until_complete(queue.stop())
        assert bounded(use(queue, "other")) == "other"
    finally:
        owner.close()


def test_a_handler_cannot_be_registered_from_another_loop(store: Storage) -> None:
    queue: Queue[Any, Any] = Queue(store, "q")

    async def register() -> None:
        queue.execute(echo)

    owner = asyncio.new_event_loop()
    try:
        owner.run_until_complete(queue.start())
        with pytest.raises(JobQueueError, match="in another event loop"):
            bounded(register())
        assert queue.handler is None
        owner.run_until_complete(queue.stop())
    finally:
        owner.close()


def test_a_loop_may_go_on_in_another_thread(queue: Queue[Any, Any]) -> None:
    owner = asyncio.new_event_loop()
    owner.run_until_complete(queue.start())
    thread = threading.Thread(target=owner.run_forever)
    thread.start()
    try:
        for n in range(2):
            call = asyncio.run_coroutine_threadsafe(queue.enqueue_and_wait(f"a{n}", n), owner)
            assert call.result(SECONDS) == n
        asyncio.run_coroutine_threadsafe(queue.stop(), owner).result(SECONDS)
    finally:
        owner.call_soon_threadsafe(owner.stop)
        thread.join()
        owner.close()


@pytest.mark.parametrize("first", ["start", "stop", "enqueue"])
def test_a_queue_whose_loop_has_ended_can_be_started_again(queue: Queue[Any, Any], first: str) -> None:
    asyncio.run(queue.start())
    if first == "stop":
        bounded(queue.stop())
    elif first == "enqueue":
        with pytest.raises(JobQueueError, match="not started"):
            bounded(queue.enqueue("x", 1))
    assert bounded(use(queue, "a")) == "a"


CLOSED_AS_IT_IS = """
import asyncio, os
from jobqueue import MemoryStorage, Queue

queue = Queue(MemoryStorage(), "q")

@queue.execute
async def echo(job):
    return job.payload

loop = asyncio.new_event_loop()
loop.run_until_complete(queue.start())
loop.close()

async def again():
    async with queue:
        print(await queue.enqueue_and_wait("a", "it goes on", timeout=10), flush=True)

asyncio.run(again())
os._exit(0)  # without a look at the tasks that nobody ended
"""


def test_a_queue_whose_loop_was_closed_with_its_tasks_can_be_started_again() -> None:
    command = [sys.executable, "-W", "ignore", "-c", CLOSED_AS_IT_IS]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert run.stdout.strip() == "it goes on", run.stderr


def test_a_reaper_is_of_one_loop(store: Storage) -> None:
    reaper = Reaper(store, ["q"])
    owner = asyncio.new_event_loop()
    try:
        owner.run_until_complete(reaper.start())
        for call in (reaper.start, reaper.stop, reaper.until_broken):
            with pytest.raises(JobQueueError, match="in another event loop"):
                bounded(call())
        owner.run_until_complete(reaper.stop())
    finally:
        owner.close()
    asyncio.run(reaper.start())

    async def again() -> bool:
        async with reaper:
            return await reaper.sweep() == 0

    assert bounded(again())
