"""Batcher: group commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jobqueue import InvalidArgumentError, StorageUnavailableError
from jobqueue.runtime import batching
from jobqueue.runtime.batching import Batcher


class Store:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: BaseException | None = None

    async def send(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_calls_of_one_turn_and_of_one_flight_share_a_batch() -> None:
    store = Store()
    batcher = Batcher(store.send)
    store.gate.clear()
    first = [batcher.call(n) for n in range(3)]
    await turns()
    second = [batcher.call(n) for n in range(3, 8)]
    await turns()
    store.gate.set()
    assert await asyncio.gather(*first, *second) == [n * 10 for n in range(8)]
    assert store.batches == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert await batcher.call(9) == 90


async def test_a_batch_has_a_limit_and_the_order_is_kept() -> None:
    store = Store()
    batcher = Batcher(store.send, limit=4)
    assert await asyncio.gather(*(batcher.call(n) for n in range(10))) == [n * 10 for n in range(10)]
    assert store.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([], 0),
        ([5], 1),
        ([999], 1),
        ([4, 6], 2),
        ([4, 7], 1),
        ([999, 1], 1),
        ([0] * 50, 50),
        ([3, 3, 3, 3], 3),
    ],
)
def test_what_fits_into_a_batch(sizes: list[int], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_BYTES", 10)
    assert batching.fitting(sizes) == count


async def test_a_batch_has_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_BYTES", 10)
    store = Store()
    batcher = Batcher(store.send, sizes=list)
    numbers = [4, 6, 1, 99, 2, 3, 6]
    assert await asyncio.gather(*(batcher.call(n) for n in numbers)) == [n * 10 for n in numbers]
    assert store.batches == [[4, 6], [1], [99], [2, 3], [6]]


async def test_an_error_is_the_error_of_its_batch_only() -> None:
    store = Store()
    batcher = Batcher(store.send)
    store.error = StorageUnavailableError("down")
    answers = await asyncio.gather(batcher.call(1), batcher.call(2), return_exceptions=True)
    assert answers == [store.error, store.error]
    store.error = None
    assert await batcher.call(3) == 30


class Picky(Store):
    """Refuses batches with an odd number."""

    async def send(self, items: Sequence[int]) -> Sequence[int]:
        answers = await super().send(items)
        if any(item % 2 for item in items):
            raise InvalidArgumentError("item", "is odd")
        return answers


async def test_an_item_that_is_refused_fails_its_caller_alone() -> None:
    store = Picky()
    batcher = Batcher(store.send)
    answers = await asyncio.gather(*(batcher.call(n) for n in (2, 3, 4)), return_exceptions=True)
    assert [answers[0], answers[2]] == [20, 40]
    assert isinstance(answers[1], InvalidArgumentError)
    assert store.batches == [[2, 3, 4], [2], [3], [4]]
    with pytest.raises(InvalidArgumentError):
        await batcher.call(5)
    assert store.batches[4:] == [[5]]


async def test_a_close_while_items_are_sent_one_by_one_answers_the_rest() -> None:
    alone = asyncio.Event()

    async def send(items: Sequence[int]) -> Sequence[int]:
        if len(items) > 1:
            raise InvalidArgumentError("item", "is odd")
        alone.set()
        await asyncio.Event().wait()
        raise AssertionError

    batcher = Batcher(send)
    calls = [batcher.call(n) for n in (1, 2, 3)]
    await asyncio.wait_for(alone.wait(), 5)
    await batcher.close()
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert [type(answer) for answer in answers] == [StorageUnavailableError] * 3


async def test_a_caller_that_is_cancelled_leaves_its_batch() -> None:
    store = Store()
    batcher = Batcher(store.send)
    store.gate.clear()
    sent = batcher.call(1)
    await turns()
    gone, stays = batcher.call(2), batcher.call(3)
    await turns()
    sent.cancel()
    gone.cancel()
    await turns()
    store.gate.set()
    assert await stays == 30
    assert store.batches == [[1], [3]]
    assert sent.cancelled()
    assert gone.cancelled()


async def test_a_batch_that_everybody_left_is_not_sent() -> None:
    store = Store()
    batcher = Batcher(store.send)
    store.gate.clear()
    first = batcher.call(1)
    await turns()
    gone = batcher.call(2)
    await turns()
    gone.cancel()
    await turns()
    store.gate.set()
    assert await first == 10
    await batcher.drain()
    assert store.batches == [[1]]


async def test_a_wrong_number_of_answers_is_an_error_and_no_hang() -> None:
    async def send(items: Sequence[int]) -> Sequence[int]:
        return list(items)[:1]

    batcher = Batcher(send)
    answers = await asyncio.wait_for(
        asyncio.gather(batcher.call(1), batcher.call(2), return_exceptions=True), 5
    )
    assert answers[0] == 1
    assert isinstance(answers[1], ValueError)


async def test_drain_waits_for_all_and_close_answers_the_rest() -> None:
    store = Store()
    batcher = Batcher(store.send)
    await batcher.drain()
    await batcher.close()
    store.gate.clear()
    calls = [batcher.call(1)]
    await turns()
    calls.append(batcher.call(2))
    await turns()
    draining = asyncio.create_task(batcher.drain())
    await turns()
    assert not draining.done()
    await batcher.close()
    await asyncio.wait_for(draining, 5)
    for call in calls:
        with pytest.raises(StorageUnavailableError, match="before the store answered"):
            await asyncio.wait_for(call, 5)
    store.gate.set()
    assert await batcher.call(3) == 30


async def test_a_close_before_the_batch_is_begun_answers_it_too() -> None:
    store = Store()
    batcher = Batcher(store.send)
    call = batcher.call(1)
    await batcher.close()  # the sender has not run yet
    with pytest.raises(StorageUnavailableError, match="before the store answered"):
        await asyncio.wait_for(call, 5)
    assert store.batches == []
    assert await asyncio.wait_for(batcher.call(2), 5) == 20
