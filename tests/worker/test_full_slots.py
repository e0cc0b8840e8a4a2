"""A worker whose slots are full for seconds while jobs wait says once what to set."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from jobqueue import Job
from jobqueue.testing import FakeClock
from tests.support import Gate, Lab, WireStorage


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "have been full" in record.getMessage()]


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "jobqueue")


@pytest.mark.parametrize(("concurrency", "level"), [(1, "WARNING"), (3, "INFO")])
async def test_it_is_said_once(
    wire: WireStorage, clock: FakeClock, caplog: pytest.LogCaptureFixture, concurrency: int, level: str
) -> None:
    lab = Lab(wire)
    queue = await lab.start(Gate(), concurrency=concurrency)
    await queue.enqueue_many((f"j{n}", n) for n in range(10))
    await clock.advance(4)
    assert told(caplog) == []
    await clock.advance(300)
    (record,) = told(caplog)
    assert record.levelname == level
    assert f"(concurrency={concurrency})" in record.getMessage()
    assert f"{10 - concurrency} jobs wait" in record.getMessage()
    assert f"--concurrency {10 * concurrency}" in record.getMessage()
    await lab.close()


async def test_short_jobs_in_a_row_fill_a_slot_too(
    wire: WireStorage, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(wire)

    async def handler(job: Job[Any]) -> None:
        await clock.sleep(0.5)

    queue = await lab.start(handler)
    await queue.enqueue_many((f"j{n}", n) for n in range(40))
    await clock.advance(11)
    assert len(told(caplog)) == 1
    await lab.close()


async def test_nothing_is_said_while_a_slot_is_free_or_nobody_waits(
    wire: WireStorage, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(wire)
    full, free = await lab.start(Gate(), name="full"), await lab.start(Gate(), name="free", concurrency=2)
    await full.enqueue("a", 1)
    await free.enqueue("a", 1)
    await clock.advance(600)
    assert told(caplog) == []
    assert wire.calls("counts") < 20
    await lab.close()


async def test_nothing_is_said_of_bursts(
    wire: WireStorage, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(wire)

    async def handler(job: Job[Any]) -> None:
        await clock.sleep(0.5)

    queue = await lab.start(handler)
    for turn in range(20):
        await queue.enqueue_many((f"j{turn}-{n}", n) for n in range(4))
        await clock.advance(3)
    assert told(caplog) == []
    assert wire.calls("counts") == 0
    await lab.close()


async def test_threads_are_not_spoken_of(
    wire: WireStorage, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab, go = Lab(wire), threading.Event()

    def handler(job: Job[Any]) -> None:
        go.wait(10)

    queue = await lab.start(handler)
    await queue.enqueue_many([("a", 1), ("b", 2)])
    await clock.advance(60)
    go.set()
    assert told(caplog) == []
    await lab.close()


async def test_a_store_that_cannot_count_is_asked_again(
    wire: WireStorage, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(wire)
    wire.break_down("counts", times=1)
    queue = await lab.start(Gate())
    await queue.enqueue_many([("a", 1), ("b", 2)])
    await clock.advance(60)
    assert len(told(caplog)) == 1
    await lab.close()
