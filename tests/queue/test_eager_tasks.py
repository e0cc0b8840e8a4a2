"""A program may have its event loop start tasks at once."""

from __future__ import annotations

import asyncio
import sys

import pytest

from jobqueue.storage.values import CancelStatus
from tests.support import Hold, Lab, Recorder, WireStorage, echo, within

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")


@pytest.fixture(autouse=True)
async def eager() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]


async def test_calls_of_one_turn_are_all_answered(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue_many([(str(n), n) for n in range(3)])
    answers = await within(asyncio.gather(*(queue.cancel(str(n)) for n in range(3))))
    assert answers == [CancelStatus.CANCELLED] * 3


async def test_a_job_that_ends_at_once_during_a_stop_is_handed_in(wire: WireStorage) -> None:
    lab = Lab(wire)
    hold = Hold()
    producer = await lab.start()
    await producer.enqueue("a", 1)
    wire.fault("exchange", after=hold, times=1)
    worker = await lab.start(echo)
    events = Recorder(worker)
    await within(hold.reached.wait())
    stopping = asyncio.create_task(worker.stop())
    hold.go.set()
    await lab.finish(stopping)
    assert events.of("error") == []
    assert await lab.state("a") == "completed"
    await lab.close()
