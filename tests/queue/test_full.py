"""`on_full="wait"`: producers that wait for room."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from jobqueue import (
    EnqueueRequest,
    InvalidArgumentError,
    OnFull,
    Queue,
    QueueFullError,
    StoppedError,
    WaitTimeoutError,
)
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import Lab, echo, within


async def full(lab: Lab, **options: Any) -> Queue[Any, Any]:
    queue = await lab.start(max_length=2, **options)
    await queue.enqueue_many([("a", 1), ("b", 2)])
    return queue


async def test_it_waits_until_there_is_room(lab: Lab) -> None:
    queue = await full(lab)
    waiting = asyncio.ensure_future(queue.enqueue("c", 3, on_full="wait"))
    found = await queue.enqueue("a", 1, on_full=OnFull.WAIT)
    assert found.status == "duplicate"
    with pytest.raises(QueueFullError):
        await queue.enqueue("d", 4)
    assert not waiting.done()
    await queue.cancel("a")
    assert (await lab.finish(within(waiting))).status == "queued"
    assert (await queue.get_status("c")) is not None


async def test_many_find_room_in_their_order(lab: Lab) -> None:
    seen: list[Any] = []

    async def handler(job: Any) -> None:
        seen.append(job.payload)

    requests = [EnqueueRequest(f"{n}", n, on_full="wait") for n in range(1_200)]
    big = await lab.start(max_length=700)
    waiting = asyncio.ensure_future(big.enqueue_many(requests))
    await lab.start(handler, concurrency=100)
    answers = await lab.finish(within(waiting, 120))
    assert [answer.id for answer in answers] == [f"{n}" for n in range(1_200)]
    assert {answer.status for answer in answers} == {"queued"}
    assert seen == sorted(seen)


async def test_one_that_does_not_wait_makes_its_batch_raise(lab: Lab) -> None:
    queue = await full(lab)
    with pytest.raises(QueueFullError):
        await within(queue.enqueue_many([EnqueueRequest("c", 3, on_full="wait"), ("d", 4)]))
    assert await queue.get_status("c") is None


async def test_enqueue_and_wait_waits_for_room_within_its_timeout(lab: Lab) -> None:
    queue = await full(lab)
    with pytest.raises(WaitTimeoutError):
        await lab.finish(queue.enqueue_and_wait("c", 3, timeout=0.3, on_full="wait"))
    assert await queue.get_status("c") is None
    waiting = asyncio.ensure_future(queue.enqueue_and_wait("c", 3, timeout=60.0, on_full="wait"))
    await lab.start(echo)
    assert await lab.finish(within(waiting, 90)) == 3


async def test_a_task_waits_too(lab: Lab) -> None:
    queue = await full(lab)

    @queue.task
    async def double(n: int) -> int:
        return 2 * n

    waiting = asyncio.ensure_future(double.using(on_full="wait", wait_timeout=60.0).enqueue_and_wait(4))
    await queue.cancel("a")
    await queue.cancel("b")
    assert await lab.finish(within(waiting, 90)) == 8


async def test_middleware_may_make_it_wait(lab: Lab) -> None:
    queue = lab.queue(max_length=2)

    @queue.around_enqueue
    async def patient(requests: Any, call_next: Any) -> Any:
        return await call_next([replace(request, on_full="wait") for request in requests])

    await within(queue.start())
    await queue.enqueue_many([("a", 1), ("b", 2)])
    waiting = asyncio.ensure_future(queue.enqueue("c", 3))
    await queue.cancel("a")
    assert (await lab.finish(within(waiting))).status == "queued"
    with pytest.raises(WaitTimeoutError):
        await lab.finish(queue.enqueue_and_wait("d", 3, timeout=0.3))


async def test_the_pauses_grow_and_end_with_the_queue(lab: Lab, clock: FakeClock) -> None:
    queue = await full(lab)
    tries: list[float] = []
    insert = lab.storage.insert

    async def seen(*args: Any, **options: Any) -> Any:
        tries.append(clock.monotonic())
        return await insert(*args, **options)

    lab.storage.insert = seen  # type: ignore[method-assign]
    waiting = asyncio.ensure_future(queue.enqueue("c", 3, on_full="wait"))
    await clock.advance(20)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert 20 <= len(tries) <= 50
    assert pauses[0] <= 0.06
    assert max(pauses) <= 1.01
    assert min(pauses[10:]) >= 0.49
    stopping = asyncio.ensure_future(queue.stop())
    await clock.advance(2)
    await within(stopping)
    with pytest.raises(StoppedError, match="'c'"):
        await within(waiting)


async def test_a_caller_may_give_up(lab: Lab) -> None:
    queue = await full(lab)
    waiting = asyncio.ensure_future(queue.enqueue("c", 3, on_full="wait"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(waiting)
    assert await queue.get_status("c") is None


async def test_a_full_store_is_waited_for(clock: FakeClock) -> None:
    class Full(MemoryStorage):
        full = True

        async def insert(self, *args: Any, **options: Any) -> Any:
            if self.full:
                raise QueueFullError("the disk is full")
            return await super().insert(*args, **options)

    storage = Full(clock=clock)
    async with Queue[Any, Any](storage, "q").producer() as queue:
        with pytest.raises(QueueFullError, match="disk"):
            await queue.enqueue("a", 1)
        waiting = asyncio.ensure_future(queue.enqueue("a", 1, on_full="wait"))
        await clock.advance(3)
        storage.full = False
        await clock.advance(2)
        assert (await within(waiting)).status == "queued"


async def test_what_is_refused(lab: Lab) -> None:
    queue = await full(lab)
    bad: list[Any] = ["block", None, 5]
    for value in bad:
        for call in (queue.enqueue, queue.enqueue_and_wait):
            with pytest.raises(InvalidArgumentError, match="on_full"):
                await call("c", 3, on_full=value)
        with pytest.raises(InvalidArgumentError, match=r"requests\[0\].on_full"):
            await queue.enqueue_many([EnqueueRequest("c", 3, on_full=value)])
    with pytest.raises(InvalidArgumentError, match="on_full"):
        await queue.enqueue("c", 3, on_full="wait", connection=object())
