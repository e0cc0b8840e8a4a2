"""Uses in a forked child what its parent has started. argv[1]: URL of the store."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from jobqueue import Job, JobQueueError, Queue, Reaper, open_storage

url = sys.argv[1]


async def refused(name: str, call: Awaitable[Any]) -> None:
    try:
        await asyncio.wait_for(call, 10)
    except JobQueueError as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"{name}: worked", flush=True)


async def child(queue: Queue[Any, Any], reaper: Reaper) -> None:
    await refused("enqueue", queue.enqueue("a", None))
    await refused("enqueue_and_wait", queue.enqueue_and_wait("a", None, timeout=5.0))
    await refused("start", queue.start())
    await refused("reaper.start", reaper.start())
    await refused("storage.open", queue.storage.open())
    await refused("storage.lock_holder", queue.storage.lock_holder("x"))
    await refused("another queue", Queue(queue.storage, "q").start())
    await queue.stop()
    await reaper.stop()
    await queue.storage.close()
    await refused("start after stop", queue.start())
    async with Queue[Any, Any](open_storage(url), "q") as own:
        print("own queue:", await own.enqueue_and_wait("from the child", None), flush=True)


async def child_of_a_stop(queue: Queue[Any, Any]) -> None:
    await refused("start during the parent's stop", queue.start())
    await asyncio.wait_for(queue.stop(), 10)


async def fork(life: Callable[[], Coroutine[Any, Any, None]]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            # Its own loop: the parent's goes on in the parent.
            asyncio._set_running_loop(None)
            asyncio.run(life())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


async def parent() -> None:
    storage = open_storage(url)
    queue: Queue[Any, Any] = Queue(storage, "q")
    begun, go_on = asyncio.Event(), asyncio.Event()

    @queue.execute
    async def handler(job: Job[Any]) -> int:
        if job.id == "long":
            begun.set()
            await go_on.wait()
        return os.getpid()

    async with queue, Reaper(storage) as reaper:
        assert await queue.enqueue_and_wait("before", None) == os.getpid()
        print("child exit", await fork(lambda: child(queue, reaper)), flush=True)
        print("parent:", await queue.enqueue_and_wait("after", None) == os.getpid(), flush=True)
        await queue.enqueue("long", None)
        await begun.wait()
        stopping = asyncio.create_task(queue.stop())
        await asyncio.sleep(0)
        print("second child exit", await fork(lambda: child_of_a_stop(queue)), flush=True)
        go_on.set()
        await stopping
    print("parent ended", flush=True)


asyncio.run(parent())
