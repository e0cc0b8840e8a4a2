"""`queue.limits`, `Queue(limits=, group_weight=)`, and what explains and shows them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from jobqueue import (
    InvalidArgumentError,
    Job,
    Limits,
    MemoryStorage,
    NotStartedError,
    Queue,
    Rate,
    ReasonKind,
    UnsupportedError,
)
from jobqueue.storage.capabilities import Limiting
from jobqueue.testing import FakeClock
from tests.support import WireStorage, within

FIVE, SIX = Limits(running=5), Limits(running=6, group_rate=Rate(10, per=60.0, burst=2))


async def declared(store: MemoryStorage, limits: Limits | None) -> Limits:
    """Start a program with these limits, and return what holds then."""
    async with Queue(store, limits=limits).producer() as queue:
        return await queue.limits.get()


async def test_what_a_program_declares_replaces_what_one_declared_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jobqueue.limits")
    store = MemoryStorage()
    assert await declared(store, None) == Limits()
    assert await declared(store, FIVE) == FIVE
    assert not caplog.messages
    assert await declared(store, SIX) == SIX
    assert "running=6" in caplog.text
    assert await declared(store, None) == SIX
    assert await declared(store, Limits()) == Limits()


async def test_what_an_operator_has_set_holds_until_it_is_given_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStorage()
    async with Queue(store, limits=FIVE).producer() as queue:
        await queue.limits.set(running=1, group_running=2)
        assert await queue.limits.get() == Limits(running=1, group_running=2)
    assert await declared(store, SIX) == Limits(running=1, group_running=2)
    assert "operator" in caplog.text
    assert await declared(store, None) == Limits(running=1, group_running=2)
    async with Queue(store, limits=FIVE).producer() as queue:
        assert await queue.limits.reset() == FIVE
    assert await declared(store, SIX) == SIX
    async with Queue(store).producer() as queue:
        assert await queue.limits.reset() == Limits()
        assert await queue.limits.get() == Limits()


async def test_pause_and_limits_leave_each_other_alone() -> None:
    async with Queue(MemoryStorage(), limits=FIVE).producer() as queue:
        await queue.pause()
        await queue.limits.set(running=2)
        assert (await queue.stats()).paused
        await queue.resume()
        stats = await queue.stats()
        assert (stats.paused, stats.limits) == (False, Limits(running=2))


async def test_no_more_jobs_run_than_may() -> None:
    running, most = 0, 0
    queue: Queue[int, None] = Queue(
        MemoryStorage(), concurrency=10, limits=Limits(running=3, group_running=1)
    )

    @queue.execute
    async def handler(_job: Job[int]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    async with queue:
        for n in range(40):
            await queue.enqueue(f"{n}", n, group=f"g{n % 5}")
        assert await within(queue.drain(10))
    assert most == 3


async def test_a_worker_comes_back_when_the_rate_opens() -> None:
    clock = FakeClock()
    queue: Queue[int, float] = Queue(MemoryStorage(clock=clock), concurrency=5, limits=Limits(rate=Rate(2)))

    @queue.execute
    async def handler(_job: Job[int]) -> float:
        return clock.monotonic()

    async with queue:
        for n in range(4):
            await queue.enqueue(f"{n}", n)
        await clock.advance(2.0)
        starts = [await queue.get_result(f"{n}") for n in range(4)]
    assert [round(one - starts[0], 3) for one in starts if one is not None] == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("weights", [{"paying": 2}, lambda group: 2 if group == "paying" else 1])
async def test_weights(weights: Any) -> None:
    order: list[str] = []
    queue: Queue[int, None] = Queue(MemoryStorage(), group_weight=weights)

    @queue.execute
    async def handler(job: Job[int]) -> None:
        order.append(job.group)

    async with queue.producer():
        for group in ("paying", "other"):
            for n in range(4):
                await queue.enqueue(f"{group}:{n}", n, group=group)
    async with queue:
        assert await within(queue.drain(10))
    assert order[:6] == ["paying", "paying", "other", "paying", "paying", "other"]


async def test_a_bad_weight_fails_its_call_alone() -> None:
    weights: Any = {"free": 0, "many": 101, "odd": "2"}
    async with Queue(MemoryStorage(), group_weight=lambda group: weights.get(group, 3)).producer() as queue:
        for group in weights:
            with pytest.raises(InvalidArgumentError, match="group_weight"):
                await queue.enqueue("a", 1, group=group)
        await queue.enqueue("a", 1, group="other")
        await queue.enqueue("b", 1)
        assert (await queue.stats()).total == 2


@pytest.mark.parametrize("bad", [5, "heavy", {"a": 0}, {"a": 1.5}, {"a": True}])
def test_a_bad_group_weight_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="group_weight"):
        Queue(MemoryStorage(), group_weight=bad)


@pytest.mark.parametrize("bad", [5, {"running": 3}, (3,), Rate(1)])
def test_bad_limits_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="limits"):
        Queue(MemoryStorage(), limits=bad)


async def test_bad_limits_change_nothing() -> None:
    async with Queue(MemoryStorage(), limits=FIVE).producer() as queue:
        for name in ("running", "rate", "group_running", "group_rate"):
            with pytest.raises(InvalidArgumentError, match=name):
                await queue.limits.set(**{name: 0})  # type: ignore[arg-type]
        assert await queue.limits.get() == FIVE


async def test_a_queue_that_is_not_started_has_no_limits_to_show() -> None:
    with pytest.raises(NotStartedError):
        await Queue(MemoryStorage()).limits.get()


async def test_a_store_without_limits_says_so() -> None:
    store = WireStorage(MemoryStorage())
    assert not isinstance(store, Limiting)
    with pytest.raises(UnsupportedError, match="limits"):
        await Queue(store, limits=FIVE).start()
    async with Queue(store).producer() as queue:
        with pytest.raises(UnsupportedError, match="limits"):
            await queue.limits.set(running=3)
        assert (await queue.stats()).limits is None


async def test_the_limit_that_is_in_the_way_is_named() -> None:
    started, go = asyncio.Event(), asyncio.Event()
    queue: Queue[int, None] = Queue(MemoryStorage(), concurrency=5, limits=Limits(group_running=1))

    @queue.execute
    async def handler(_job: Job[int]) -> None:
        started.set()
        await go.wait()

    async def reasons(id: str) -> list[ReasonKind]:
        return [reason.kind for reason in (await queue.jobs.explain(id)).reasons]

    async with queue:
        await queue.enqueue("a", 1, group="g")
        await within(started.wait())
        await queue.enqueue("b", 1, group="g")
        await queue.enqueue("c", 1, group="g")
        assert await reasons("b") == [ReasonKind.GROUP_LIMIT]
        assert await reasons("c") == [ReasonKind.GROUP_LIMIT, ReasonKind.BEHIND]
        await queue.limits.set(running=1)
        assert await reasons("b") == [ReasonKind.QUEUE_LIMIT]
        go.set()


async def test_the_instant_at_which_a_rate_opens_is_named() -> None:
    clock = FakeClock()
    hour = Rate(1, per=3600.0)
    queue: Queue[int, int] = Queue(MemoryStorage(clock=clock), limits=Limits(rate=hour, group_rate=hour))

    @queue.execute
    async def handler(job: Job[int]) -> int:
        return job.payload

    async with queue:
        await queue.enqueue("a", 1, group="g")
        await clock.settle()
        await queue.enqueue("b", 1, group="g")
        await clock.settle()
        reasons = (await queue.jobs.explain("b")).reasons
    assert [reason.kind for reason in reasons] == [ReasonKind.RATE, ReasonKind.RATE]
    for reason in reasons:
        assert reason.until is not None
        assert 3599 < reason.until.timestamp() - clock.time() <= 3600
