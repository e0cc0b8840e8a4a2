"""A store that fails, loses answers or does not answer: nothing is lost, and nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobqueue import (
    Job,
    JobQueueError,
    StorageError,
    StorageUnavailableError,
    WaitTimeoutError,
)
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import (
    Gate,
    Hold,
    Lab,
    Recorder,
    WireStorage,
    echo,
    opened,
    results_of,
    standing,
    within,
)


@pytest.fixture(params=[True, False], ids=["batched", "single"])
async def wire(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[WireStorage]:
    async with opened(WireStorage(MemoryStorage(clock=clock), batched=request.param)) as storage:
        yield storage
        storage.heal()


@pytest.fixture
async def lab(wire: WireStorage) -> AsyncIterator[Lab]:
    lab = Lab(wire)
    yield lab
    wire.heal()
    await lab.close()


GONE = StorageUnavailableError("the connection broke")


async def test_a_worker_goes_on_after_an_outage(lab: Lab, wire: WireStorage, clock: FakeClock) -> None:
    queue = await lab.start(echo, concurrency=5)
    events = Recorder(queue)
    await queue.enqueue_many((f"j{n}", n) for n in range(20))
    wire.break_down("exchange", "wait_for_work", "get", "insert", "extend")
    await clock.advance(60)
    assert len(events.of("error")) > 5
    assert {type(event.error) for event in events.of("error")} == {StorageUnavailableError}
    assert len(events.of("error")) < 100, "it hammers a store that is down"
    wire.heal()
    await clock.advance(6)
    assert await within(asyncio.gather(*(queue.wait(f"j{n}") for n in range(20)))) == list(range(20))


async def test_an_outcome_is_handed_in_again_until_it_is_stored(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    gate = Gate("kept")
    queue = await lab.start(gate)
    events = Recorder(queue)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(gate.began.wait())
    wire.break_down("exchange", times=5)
    gate.go.set()
    assert await lab.finish(call) == "kept"  # type: ignore[arg-type]
    assert len(gate.jobs) == 1
    assert [event.doing for event in events.of("error")] == ["exchanging jobs with the store"] * 5


async def test_an_outcome_whose_acknowledgement_is_lost_counts_once(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    gate = Gate("once")
    queue = await lab.start(gate)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    wire.fault("exchange", times=1, lost=GONE)
    gate.go.set()
    await clock.advance(2)
    assert await queue.get_result("a") == "once"
    assert [event.result for event in events.of("completed")] == ["once"]
    assert events.of("stalled") == []
    assert len(gate.jobs) == 1


async def test_jobs_whose_claim_was_lost_are_recovered(lab: Lab, wire: WireStorage, clock: FakeClock) -> None:
    queue = await lab.start(echo, visibility_timeout=9, concurrency=3)
    await clock.settle()
    wire.fault("exchange", times=1, lost=GONE)
    await queue.enqueue_many((f"j{n}", n) for n in range(3))
    await clock.advance(3)
    assert await lab.state("j0") == "processing"
    await clock.advance(7)
    assert [swept.state for swept in await wire.sweep("q", 10)] == ["queued"] * 3
    await clock.advance(1)
    assert [await queue.get_result(f"j{n}") for n in range(3)] == [0, 1, 2]


async def test_calls_get_typed_errors(lab: Lab, wire: WireStorage) -> None:
    queue = await lab.start()
    wire.break_down("insert", "get", "cancel", "set_ttl")
    answers = await asyncio.gather(
        queue.enqueue("a", 1),
        queue.enqueue("b", 1),
        queue.enqueue_many([("c", 1)]),
        queue.enqueue_and_wait("d", 1),
        queue.wait("e"),
        queue.get_status("f"),
        queue.get_result("f"),
        queue.cancel("g"),
        queue.update_result_ttl("h", 1),
        return_exceptions=True,
    )
    assert results_of(answers) == [StorageUnavailableError] * 9
    assert standing(queue) == 0
    wire.heal()
    assert (await queue.enqueue("a", 1)).status == "queued"


async def test_an_enqueue_whose_answer_was_lost_is_safe_to_repeat(lab: Lab, wire: WireStorage) -> None:
    queue = await lab.start()
    wire.fault("insert", times=1, lost=GONE)
    with pytest.raises(StorageUnavailableError):
        await queue.enqueue("a", 1)
    assert (await queue.enqueue("a", 1)).status == "duplicate"
    queue.execute(echo)
    assert await within(queue.wait("a")) == 1


async def test_a_failed_subscription_is_the_callers_error_and_the_next_tries_again(
    lab: Lab, wire: WireStorage
) -> None:
    queue = await lab.start()
    wire.break_down("subscribe", times=1)
    answers = await asyncio.gather(queue.enqueue_and_wait("a", 1), queue.wait("a"), return_exceptions=True)
    assert results_of(answers) == [StorageUnavailableError] * 2
    queue.execute(echo)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1


async def test_a_wait_ends_in_time_although_the_store_cannot_be_asked(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    queue = await lab.start()
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=3))
    await clock.settle()
    wire.break_down("get")
    await clock.advance(3.1)
    with pytest.raises(WaitTimeoutError, match="store cannot be asked") as caught:
        await within(call)
    assert isinstance(caught.value.__cause__, StorageUnavailableError)


async def test_a_failed_poll_is_reported_and_the_next_succeeds(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    queue = await lab.start()
    events = Recorder(queue)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await clock.settle()
    wire.break_down("get", times=1)
    await clock.advance(5)
    assert [event.doing for event in events.of("error")] == ["reading the outcome of awaited jobs"]
    queue.execute(echo)
    assert await lab.finish(call) == 1  # type: ignore[arg-type]


async def test_progress_that_cannot_be_stored_is_the_handlers_error(lab: Lab, wire: WireStorage) -> None:
    async def handler(job: Job[Any]) -> str:
        with pytest.raises(StorageUnavailableError):
            await job.progress(1)
        await job.progress(2)
        return "went on"

    queue = await lab.start(handler)
    wire.break_down("extend", times=1)
    assert await within(queue.enqueue_and_wait("a", 1)) == "went on"


async def test_a_stop_in_an_outage_ends_and_says_what_it_could_not_store(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    gate = Gate()
    queue = await lab.start(gate, concurrency=2)
    events = Recorder(queue)
    await queue.enqueue_many([("a", 1), ("b", 2)])
    await clock.settle()
    wire.break_down("exchange", "wait_for_work", "extend", "unsubscribe", "get")
    gate.go.set()
    began = clock.monotonic()
    await lab.finish(queue.stop())
    assert clock.monotonic() - began < 40
    assert events.names[-1] == "stopped"
    told = [event for event in events.of("error") if event.doing == "stopping"]
    assert "outcomes of 2 runs could not be stored" in str(told[0].error)
    last = {event.doing for event in events.of("error")[-2:]}
    assert last == {"unsubscribing", "leaving the list of workers"}
    wire.heal()
    assert await lab.state("a") == "processing"
    await clock.advance(31)
    assert len(await wire.sweep("q", 10)) == 2


@pytest.mark.parametrize("call", ["exchange", "wait_for_work", "unsubscribe", "extend"])
async def test_a_stop_ends_although_the_store_does_not_answer(
    lab: Lab, wire: WireStorage, clock: FakeClock, call: str
) -> None:
    gate = Gate()
    queue = await lab.start(gate, visibility_timeout=9)
    events = Recorder(queue)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    hold = Hold()
    wire.fault(call, before=hold)
    if call == "extend":
        await clock.advance(3.1)
        assert hold.reached.is_set()
    gate.go.set()
    await clock.settle()
    began = clock.monotonic()
    await lab.finish(queue.stop())
    assert clock.monotonic() - began <= 45
    assert events.names[-1] == "stopped"
    assert await asyncio.wait_for(queue.storage.inner.get("q", ["a"]), 1)  # type: ignore[attr-defined]
    if call in {"exchange", "unsubscribe"}:
        assert any(
            "no answer" in str(event.error) or "could not be stored" in str(event.error)
            for event in events.of("error")
        )


async def test_a_stop_answers_calls_that_the_store_does_not(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as wire:
        lab, hold = Lab(wire), Hold()
        queue = await lab.start()
        wire.fault("insert", before=hold)
        calls = [asyncio.create_task(queue.enqueue(f"j{n}", n)) for n in range(3)]
        calls.append(asyncio.create_task(queue.enqueue_and_wait("w", 1)))  # type: ignore[arg-type]
        await within(hold.reached.wait())
        calls.append(asyncio.create_task(queue.enqueue("queued behind", 1)))
        await lab.finish(queue.stop())
        answers = await within(asyncio.gather(*calls, return_exceptions=True))
        assert all(isinstance(answer, JobQueueError) for answer in answers), answers
        wire.heal()


async def test_a_cancelled_caller_leaves_its_batch(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as wire:
        lab, hold = Lab(wire), Hold()
        queue = await lab.start()
        wire.fault("insert", times=1, before=hold)
        first = asyncio.create_task(queue.enqueue("first", 1))
        await within(hold.reached.wait())
        gone = asyncio.create_task(queue.enqueue("gone", 1))
        stays = asyncio.create_task(queue.enqueue("stays", 1))
        await clock.settle()
        gone.cancel()
        hold.go.set()
        assert (await within(first)).status == (await within(stays)).status == "queued"
        assert gone.cancelled()
        assert await lab.state("gone") is None
        await lab.close()


async def test_a_store_that_refuses_for_good_is_reported(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    queue = await lab.start(echo)
    events = Recorder(queue)
    wire.fault("exchange", raises=StorageError("no permission"))
    await queue.enqueue("a", 1)
    await clock.advance(5)
    assert {str(event.error) for event in events.of("error")} == {"no permission"}
    wire.heal()
    await clock.advance(6)
    assert await queue.get_result("a") == 1


async def test_a_defect_of_the_store_breaks_the_queue_and_nobody_waits_for_it(
    lab: Lab, wire: WireStorage, clock: FakeClock
) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    events = Recorder(queue)
    call = asyncio.create_task(queue.enqueue_and_wait("a", 1))
    await within(gate.began.wait())
    wire.fault("exchange", raises=ZeroDivisionError("a defect"))
    gate.go.set()
    with pytest.raises(JobQueueError, match=r"broke.*a defect"):
        await within(call)
    assert not queue.ready
    with pytest.raises(JobQueueError, match="a defect"):
        await queue.until_broken()
    assert isinstance(events.of("error")[-1].error, ZeroDivisionError)
    wire.heal()
    await lab.finish(queue.stop())
    await within(queue.start())
    await clock.advance(40)
    await wire.sweep("q", 10)
    await clock.advance(6)
    assert await within(queue.wait("a")) == "done"


async def test_many_outcomes_are_handed_in_together(lab: Lab, wire: WireStorage, clock: FakeClock) -> None:
    queue = await lab.start(echo, concurrency=100)
    await clock.settle()
    before = wire.calls("exchange")
    await queue.enqueue_many((f"j{n}", n) for n in range(1000))
    await within(asyncio.gather(*(queue.wait(f"j{n}") for n in range(1000))))
    assert wire.calls("exchange") - before <= 30


async def test_single_inserts_of_one_moment_travel_together(clock: FakeClock) -> None:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as wire:
        lab = Lab(wire)
        queue = await lab.start()
        answers = await within(asyncio.gather(*(queue.enqueue(f"j{n}", n) for n in range(100))))
        assert {answer.status for answer in answers} == {"queued"}
        assert wire.calls("insert") <= 2
        await within(asyncio.gather(*(queue.get_status(f"j{n}") for n in range(100))))
        assert wire.calls("get") <= 2
        await within(asyncio.gather(*(queue.cancel(f"j{n}") for n in range(100))))
        assert wire.calls("cancel") <= 2
        await lab.close()


async def test_an_idle_worker_hardly_asks(lab: Lab, wire: WireStorage, clock: FakeClock) -> None:
    await lab.start(echo, block_timeout=5)
    await clock.advance(100)
    assert wire.calls("exchange") <= 22
    assert wire.calls("get") == 0


async def test_a_busy_worker_does_not_listen_for_work(lab: Lab, wire: WireStorage, clock: FakeClock) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue_many([("a", 1), ("b", 2)])
    await within(gate.began.wait())
    await clock.settle()
    before = wire.calls("wait_for_work"), wire.calls("exchange")
    await clock.advance(30)
    assert (wire.calls("wait_for_work"), wire.calls("exchange")) == before
    assert wire.inner._hints.topics == {}  # type: ignore[attr-defined]
    gate.go.set()
    assert await within(queue.wait("b")) == "done"


async def test_a_worker_that_has_become_busy_gives_its_place_to_an_idle_one(clock: FakeClock) -> None:
    """A hint that a full worker kept to itself would be missing to a free one."""
    async with opened(WireStorage(MemoryStorage(clock=clock))) as wire:
        lab, gates, left = Lab(wire), {id: Gate(id) for id in "abc"}, asyncio.Event()

        async def handler(job: Job[Any]) -> Any:
            return await gates[job.id](job)

        async def listen() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                left.set()
                raise

        queue = await lab.start(handler, concurrency=2)
        await queue.enqueue("a", 1)
        await within(gates["a"].began.wait())
        await clock.settle()
        wire.fault("wait_for_work", before=listen)  # hears of nothing
        await clock.advance(6)
        await queue.enqueue_many([("b", 2), ("c", 3)])
        await clock.settle()
        assert not gates["b"].began.is_set()
        gates["a"].go.set()
        await within(gates["c"].began.wait())
        await within(left.wait())
        wire.heal()
        gates["b"].go.set()
        gates["c"].go.set()
        assert await within(queue.wait("c")) == "c"
        await lab.close()


async def test_a_worker_that_cannot_listen_asks(lab: Lab, wire: WireStorage, clock: FakeClock) -> None:
    queue = await lab.start(echo)
    events = Recorder(queue)
    wire.break_down("wait_for_work")
    await clock.advance(6)
    await queue.enqueue("a", 1)
    await clock.advance(6)
    assert await queue.get_result("a") == 1
    assert {event.doing for event in events.of("error")} == {"waiting for work"}
