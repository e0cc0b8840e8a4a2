"""Wake-ups and pushes inside a process, beyond what the contract shows."""

from __future__ import annotations

import asyncio

from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.engine.wakeups import WakeUps
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from jobqueue.testing.contract.support import Box


async def test_resync_reaches_every_sink() -> None:
    hints = WakeUps(FakeClock())
    boxes = [Box() for _ in range(4)]
    for address, box in zip("aabc", boxes, strict=True):
        hints.subscribe("q", address, box)
    hints.unsubscribe("other", "b", boxes[2])
    hints.unsubscribe("q", "c", boxes[3])
    hints.resync()
    assert [box.resyncs for box in boxes] == [1, 1, 1, 0]


async def test_all_who_wait_for_a_topic_are_woken_and_nobody_else() -> None:
    hints = WakeUps(FakeClock())

    async def wait(kind: str, name: str) -> bool:
        with hints.waiting((kind, name)) as hint:
            return await hints.wait(hint, 5)

    topics = [("work", "q"), ("work", "q"), ("work", "r"), ("lock", "q")]
    tasks = [asyncio.create_task(wait(*topic)) for topic in topics]
    await asyncio.sleep(0)
    engine = Engine()
    engine.insert("q", [NewJob("a", b"")], 0)
    hints.publish(engine.effects)
    done, rest = await asyncio.wait(tasks, timeout=0)
    assert not done or {task.result() for task in done} == {True}
    await asyncio.gather(*tasks[:2])
    assert [task.done() for task in tasks] == [True, True, False, False]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    assert hints.topics == {}


async def test_resync_wakes_all_who_wait() -> None:
    """A wake-up may be among what was missed."""
    hints = WakeUps(FakeClock())

    async def wait(topic: tuple[str, str]) -> bool:
        with hints.waiting(topic) as hint:
            return await hints.wait(hint, 5)

    tasks = [asyncio.create_task(wait(topic)) for topic in (("work", "q"), ("lock", "l"))]
    await asyncio.sleep(0)
    hints.resync()
    assert await asyncio.gather(*tasks) == [True, True]


async def test_a_wait_that_ran_out_leaves_no_timer_and_no_waiter() -> None:
    clock = FakeClock()
    hints = WakeUps(clock)
    with hints.waiting(("work", "q")) as hint:
        task = asyncio.create_task(hints.wait(hint, 5))
        await clock.advance(4.999)
        assert not task.done()
        await clock.advance(0.001)
        assert await task is False
        hints.wake(("work", "q"))
    assert hints.topics == {}
