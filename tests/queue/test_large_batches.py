"""Calls of the store are bounded in bytes, too: one takes no store long, and holds no other up."""

from __future__ import annotations

from typing import Any

import pytest

from jobqueue import Job
from jobqueue.runtime import batching
from tests.support import Lab, WireStorage, within

MOST = 10_000


class Sizes:
    """The bytes of each call, as they pass."""

    def __init__(self, wire: WireStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inserted: list[int] = []
        self.settled: list[int] = []
        monkeypatch.setattr(batching, "MOST_BYTES", MOST)
        do = wire._do

        async def measured(name: str, *args: Any, **options: Any) -> Any:
            if name == "insert":
                self.inserted.append(sum(len(job.payload) for job in args[1]))
            elif name == "exchange" and args[2]:
                self.settled.append(sum(len(settlement.data) for settlement in args[2]))
            return await do(name, *args, **options)

        monkeypatch.setattr(wire, "_do", measured)


@pytest.fixture
def sizes(wire: WireStorage, monkeypatch: pytest.MonkeyPatch) -> Sizes:
    return Sizes(wire, monkeypatch)


async def test_many_large_jobs(wire: WireStorage, sizes: Sizes) -> None:
    queue = await Lab(wire).start()
    text = "x" * 3000
    answers = await within(queue.enqueue_many([(f"j{number}", text) for number in range(40)]))
    assert [answer.id for answer in answers] == [f"j{number}" for number in range(40)]
    assert max(sizes.inserted) <= MOST
    assert len(sizes.inserted) == 14
    await within(queue.enqueue("large", "x" * 5 * MOST))
    assert sizes.inserted[-1] > MOST


async def test_many_large_results(wire: WireStorage, sizes: Sizes) -> None:
    async def handler(job: Job[Any]) -> str:
        return "r" * 3000

    lab = Lab(wire)
    producer = await lab.start()
    await within(producer.enqueue_many([(f"j{number}", number) for number in range(40)]))
    await lab.start(handler, concurrency=40)
    for number in range(40):
        assert len(await within(producer.wait(f"j{number}"))) == 3000
    assert max(sizes.settled) <= MOST
    assert len(sizes.settled) >= 13
