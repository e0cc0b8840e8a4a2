"""Uses in a forked child what its parent has started. argv[1]: URL of the store."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable
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
    await refused("storage.holder", queue.storage.holder("x"))
    await refused("another queue", Queue(queue.storage, "q").start())
    await queue.stop()
    await reaper.stop()
    await queue.storage.close()
    await refused("start after stop", queue.start())
    async with Queue[Any, Any](open_storage(url), "q") as own:
        print("own queue:", await own.enqueue_and_wait("from the child", None), flush=True)


async def parent() -> None:
    storage = open_storage(url)
    queue: Queue[Any, Any] = Queue(storage, "q")

    @queue.execute
    async def handler(job: Job[Any]) -> int:
        return os.getpid()

    async with queue, Reaper(storage) as reaper:
        assert await queue.enqueue_and_wait("before", None) == os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                # Its own loop: the parent's goes on in the parent.
                asyncio._set_running_loop(None)
                asyncio.run(child(queue, reaper))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        print("child exit", os.waitstatus_to_exitcode(status), flush=True)
        print("parent:", await queue.enqueue_and_wait("after", None) == os.getpid(), flush=True)
    print("parent ended", flush=True)


asyncio.run(parent())
