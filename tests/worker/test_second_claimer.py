"""A worker with large batches has two calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jobqueue import Fatal, Job, Queue, StorageUnavailableError
from jobqueue.model.outcomes import CheckedSettlement, Settlement
from jobqueue.model.states import Action
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Claimed, Exchanged
from jobqueue.testing import FakeClock
from jobqueue.worker.outbox import Outbox
from jobqueue.worker.run import Run
from tests.support import ArrivalStorage, Lab, Recorder, opened, until, within

SLOTS = 100


class TwoLanes(ArrivalStorage):
    """Notes what each exchange hands in and asks for, and holds those that hand in many."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(MemoryStorage(clock=clock))
        self.held: list[tuple[int, int, asyncio.Future[None]]] = []
        self.holds = True

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        if self.holds and len(settlements) > 1:
            go = asyncio.get_running_loop().create_future()
            self.held.append((len(settlements), limit, go))
            await go
        answer: Exchanged = await super().exchange(queue, worker, settlements, limit, lease)
        return answer

    def go_on(self) -> None:
        self.holds = False
        for _, _, go in self.held:
            if not go.done():
                go.set_result(None)


class Crowd:
    """A handler whose first jobs all end together; the last of them fails. Notes how many run at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = self.most = 0
        self.ran: list[str] = []

    async def __call__(self, job: Job[int]) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        self.ran.append(job.id)
        await self.gate.wait()
        self.running -= 1
        if job.payload == SLOTS - 1:
            raise Fatal("the last of the first")
        return job.payload


async def crowded(storage: TwoLanes) -> tuple[Lab, Crowd, Queue[int, int]]:
    """Start a queue with a job in each of its slots."""
    lab, crowd = Lab(storage), Crowd()
    queue = await lab.start(crowd, name="q", concurrency=SLOTS)
    await queue.enqueue_many([(f"j{n}", n) for n in range(SLOTS)])
    await until(lambda: crowd.running == SLOTS)
    return lab, crowd, queue


async def test_two_calls_are_under_way_and_ask_for_no_more_than_the_free_slots(clock: FakeClock) -> None:
    async with opened(TwoLanes(clock)) as storage:
        lab, crowd = Lab(storage), Crowd()
        queue = lab.queue(crowd, concurrency=SLOTS)
        events = Recorder(queue)
        async with queue:
            await queue.enqueue_many([(f"j{n}", n) for n in range(3 * SLOTS)])
            await until(lambda: crowd.running == SLOTS)
            crowd.gate.set()
            await until(lambda: len(storage.held) == 2)
            await clock.settle()
            assert [(handed_in, limit) for handed_in, limit, _ in storage.held] == [(50, 50), (50, 50)]
            storage.go_on()
            await until(lambda: len(crowd.ran) == 3 * SLOTS and not crowd.running)
        assert crowd.most == SLOTS
        assert len(set(crowd.ran)) == 3 * SLOTS
        # The call that did not hand it in was answered first or last: its event is not lost.
        assert [event.id for event in events.of("failed")] == [f"j{SLOTS - 1}"]
        counts = await storage.counts("q")
        assert (counts.completed, counts.failed) == (3 * SLOTS - 1, 1)
        await lab.close()


async def test_a_stop_waits_for_both_calls(clock: FakeClock) -> None:
    async with opened(TwoLanes(clock)) as storage:
        lab, crowd, queue = await crowded(storage)
        crowd.gate.set()
        await until(lambda: len(storage.held) == 2)
        stopping = asyncio.create_task(queue.stop())
        await clock.settle()
        first, second = (go for _, _, go in storage.held)
        first.set_result(None)
        await clock.settle()
        assert not stopping.done()
        storage.holds = False
        second.set_result(None)
        await within(stopping)
        counts = await storage.counts("q")
        assert (counts.completed, counts.failed, counts.processing) == (SLOTS - 1, 1, 0)
        await lab.close()


async def test_what_one_of_the_calls_could_not_store_is_handed_in_again(clock: FakeClock) -> None:
    async with opened(TwoLanes(clock)) as storage:
        lab, crowd, queue = await crowded(storage)
        events = Recorder(queue)
        crowd.gate.set()
        await until(lambda: len(storage.held) == 2)
        storage.holds = False
        storage.held[1][2].set_exception(StorageUnavailableError("no connection"))
        await clock.settle()
        storage.go_on()
        await clock.advance(1)
        counts = await storage.counts("q")
        assert (counts.completed, counts.failed, counts.processing) == (SLOTS - 1, 1, 0)
        assert [event.id for event in events.of("failed")] == [f"j{SLOTS - 1}"]
        assert len(crowd.ran) == SLOTS
        await lab.close()


async def test_jobs_that_arrive_while_a_call_may_fill_the_slots_are_not_claimed_beside_it(
    clock: FakeClock,
) -> None:
    async with opened(TwoLanes(clock)) as storage:
        lab, crowd, queue = await crowded(storage)
        crowd.gate.set()
        await until(lambda: len(storage.held) == 2)
        crowd.gate.clear()
        storage.held[0][2].set_result(None)  # it finds nothing
        await clock.settle()
        await queue.enqueue_many([(f"k{n}", SLOTS + n) for n in range(3 * SLOTS)])
        await clock.settle()
        storage.go_on()
        await until(lambda: crowd.running == SLOTS)
        await clock.settle()
        assert crowd.most == SLOTS
        crowd.gate.set()
        await until(lambda: len(crowd.ran) == 4 * SLOTS and not crowd.running)
        assert crowd.most == SLOTS
        await lab.close()


async def test_a_worker_that_stops_has_one_call_under_way(clock: FakeClock) -> None:
    async with opened(TwoLanes(clock)) as storage:
        lab, crowd, queue = await crowded(storage)
        stopping = asyncio.create_task(queue.stop())
        await clock.settle()
        crowd.gate.set()
        await until(lambda: bool(storage.held))
        await clock.settle()
        assert [(handed_in, limit) for handed_in, limit, _ in storage.held] == [(SLOTS, 0)]
        storage.go_on()
        await within(stopping)
        await lab.close()


def ended(fence: int, action: Action = Action.COMPLETE) -> Run:
    run = Run(Claimed(f"j{fence}", b"", fence, 1, 3, 1000, 0), 0.0, 0.0)
    run.settlement = CheckedSettlement(run.id, fence, action)
    return run


def test_an_outbox_shows_what_waits_and_what_is_on_its_way() -> None:
    outbox = Outbox()
    outbox.waiting += [ended(fence) for fence in range(1, 6)]
    first, second = outbox.send(2, 10), outbox.send(2, 5)
    assert (outbox.asked, outbox.under_way, len(outbox)) == (15, True, 5)
    assert {run.fence for run in outbox} == {1, 2, 3, 4, 5}
    outbox.put_back(second)
    assert [run.fence for run in outbox.waiting] == [3, 4, 5]
    outbox.answered(first)
    assert (outbox.asked, outbox.under_way, len(outbox)) == (0, False, 3)
    last = outbox.send(1, 0)
    assert [run.fence for run in outbox.drop_waiting()] == [4, 5]
    assert [run.fence for run in outbox] == [3]
    outbox.put_back(last)
    outbox.send(1, 0)
    outbox.waiting += [ended(4), ended(5)]
    assert sorted(run.fence for run in outbox.clear()) == [3, 4, 5]
    assert len(outbox) == 0


def test_an_outbox_knows_which_batches_need_more_events() -> None:
    outbox = Outbox()
    outbox.waiting += [ended(1, Action.FAIL), ended(2), ended(3)]
    outbox.telling = True
    first = outbox.send(2, 0)
    assert (first.telling, outbox.telling) == (True, False)
    second = outbox.send(1, 0)
    assert not second.telling
    outbox.put_back(second)
    assert not outbox.telling
    outbox.put_back(first)
    assert outbox.telling
    assert [run.fence for run in outbox.waiting] == [1, 2, 3]
