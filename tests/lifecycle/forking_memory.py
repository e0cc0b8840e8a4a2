"""Uses a memory store in a forked child, that its parent has opened; and one that nobody has."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Awaitable
from typing import Any

from jobqueue import Job, MemoryStorage, Queue, StorageError
from jobqueue.storage.values import NewJob


async def refused(name: str, call: Awaitable[Any]) -> None:
    try:
        print(f"{name}: {await asyncio.wait_for(call, 10)}", flush=True)
    except StorageError as error:
        print(f"{name}: {error}", flush=True)


async def echo(job: Job[Any]) -> Any:
    return job.payload


async def child(opened: MemoryStorage, closed: MemoryStorage, fresh: MemoryStorage) -> None:
    await refused("open", opened.open())
    await refused("insert", opened.insert("q", [NewJob("b", b"1")]))
    await refused("exchange", opened.exchange("q", "me", [], 1, 1000))
    await refused("lock_acquire", opened.lock_acquire("lock", "me", 1000))
    await refused("wait_for_work", opened.wait_for_work("q", "me", 1.0))
    await refused("queue", Queue[Any, Any](opened, "q").start())
    await refused("closed", closed.open())
    await opened.close()
    await refused("after close", opened.open())
    queue: Queue[Any, Any] = Queue(fresh, "q")
    queue.execute(echo)
    async with queue:
        print("fresh:", await queue.enqueue_and_wait("a", 42), flush=True)


async def parent() -> None:
    opened, closed, fresh = MemoryStorage(), MemoryStorage(), MemoryStorage()
    for storage in (opened, closed):
        await storage.open()
        await storage.insert("q", [NewJob("a", b"1")])
    await closed.close()
    pid = os.fork()
    if pid == 0:
        opened._lock.acquire()  # as a thread of the parent may have held it at that moment
        try:
            asyncio._set_running_loop(None)
            asyncio.run(child(opened, closed, fresh))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    print("child exit", os.waitstatus_to_exitcode(status), flush=True)
    answer = await opened.exchange("q", "me", [], 2, 1000)
    print("parent:", [job.id for job in answer.jobs], flush=True)


asyncio.run(parent())
