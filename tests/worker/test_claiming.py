"""When a worker asks the store for jobs: at once when there may be some."""

from __future__ import annotations

import asyncio
from typing import Any

from jobqueue import Backoff, Job
from jobqueue.errors import StorageUnavailableError
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Exchanged
from jobqueue.testing import FakeClock
from tests.support import (
    ArrivalStorage,
    DeafStorage,
    Gate,
    Hold,
    Lab,
    WireStorage,
    echo,
    opened,
    within,
)


class Gates:
    """A handler with a gate for each job."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def __getitem__(self, id: str) -> Gate:
        return self._gates.setdefault(id, Gate(id))

    async def __call__(self, job: Job[Any]) -> Any:
        return await self[job.id](job)


class OnceStorage(MemoryStorage):
    """Tells each waiting worker once of a new job, and nobody of one that is there already."""

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        with self._hints.waiting(("work", queue)) as hint:
            return await self._hints.wait(hint, timeout)


async def test_a_job_that_comes_during_an_exchange_runs_at_once(clock: FakeClock) -> None:
    async with opened(WireStorage(OnceStorage(clock=clock))) as wire:
        lab, gates, answered = Lab(wire), Gates(), Hold()
        queue = await lab.start(gates, concurrency=2)
        await clock.settle()
        await queue.enqueue("first", 1)
        await within(gates["first"].began.wait())
        await clock.settle()  # the free slot waits for work by now
        wire.fault("exchange", times=1, after=answered)
        gates["first"].go.set()
        await within(answered.reached.wait())  # it has found nothing to claim
        await queue.enqueue("second", 2)
        await clock.settle()  # the wake-up has come
        answered.go.set()
        await within(gates["second"].began.wait())
        gates["second"].go.set()
        await lab.close()


class FrugalStorage(DeafStorage):
    """Gives one job an answer, says if there are more, and wakes nobody."""

    async def exchange(self, queue: str, worker: str, settlements: Any, limit: int, lease: int) -> Exchanged:
        answer = await super().exchange(queue, worker, settlements, min(limit, 1), lease)
        return answer._replace(more=limit > 1 and bool((await self.counts(queue)).queued))


async def test_a_store_that_has_more_is_asked_again_at_once(clock: FakeClock) -> None:
    async with opened(FrugalStorage(clock=clock)) as storage:
        lab, gate = Lab(storage), Gate()
        queue = lab.queue(gate, concurrency=10)
        producer = await lab.start(name="q")
        await producer.enqueue_many((f"j{n}", n) for n in range(5))
        await within(queue.start())
        await clock.settle()
        assert len(gate.jobs) == 5
        gate.go.set()
        await lab.close()


async def test_a_claim_that_failed_is_made_again_soon(clock: FakeClock) -> None:
    async with opened(WireStorage(DeafStorage(clock=clock))) as wire:
        lab = Lab(wire)
        producer = await lab.start()
        await producer.enqueue("a", 1)
        wire.break_down("exchange", times=1)
        await lab.start(echo, block_timeout=60)
        await clock.advance(1)
        assert await lab.state("a") == "completed"
        await lab.close()


class DeafToSchedules(OnceStorage):
    """Wakes nobody for a job that is scheduled while the wait is on its way to the store."""

    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.timeouts: list[float] = []

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        self.timeouts.append(timeout)
        await self.clock.sleep(timeout)
        return False


async def test_a_retry_is_on_time_although_a_longer_wait_had_begun(clock: FakeClock) -> None:
    async with opened(DeafToSchedules(clock=clock)) as storage:
        lab, gates = Lab(storage), Gates()
        attempts: list[int] = []

        async def fail_once(job: Job[Any]) -> None:
            attempts.append(job.attempts)
            await gates[job.id](job)
            if job.attempts == 1:
                raise ValueError

        queue = lab.queue(fail_once, concurrency=2, block_timeout=60, backoff=Backoff.fixed(2.0))
        producer = await lab.start(name="q")
        await producer.enqueue("a", 1)
        await within(queue.start())
        await within(gates["a"].began.wait())
        await clock.settle()
        assert storage.timeouts == [60]  # the free slot waits
        gates["a"].go.set()
        await clock.settle()
        await clock.advance(2.1)
        assert attempts == [1, 2]
        await lab.close()


class NotingStorage(MemoryStorage):
    """Notes the calls of a worker."""

    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.noted: list[str] = []

    async def exchange(self, queue: str, worker: str, settlements: Any, limit: int, lease: int) -> Exchanged:
        answer = await super().exchange(queue, worker, settlements, limit, lease)
        self.noted += ["hand in"] * len(settlements) + ["claim"] * len(answer.jobs)
        return answer

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        self.noted.append("wait")
        return await super().wait_for_work(queue, worker, timeout)


async def test_a_run_that_ends_at_once_is_handed_in_before_the_worker_waits_again(clock: FakeClock) -> None:
    async with opened(NotingStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, concurrency=2)
        await clock.settle()
        assert await within(queue.enqueue_and_wait("a", 1)) == 1
        await clock.settle()
        assert storage.noted == ["wait", "claim", "hand in", "wait"]
        await lab.close()


class Burst:
    """Ends each job when all of its burst have begun."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = 0
        self.all = asyncio.Event()

    async def __call__(self, job: Job[Any]) -> Any:
        self.begun += 1
        if self.begun % self.size == 0:
            self.all.set()
            self.all = asyncio.Event()
        else:
            await self.all.wait()
        return job.payload


async def arriving(clock: FakeClock, handler: Any, **options: Any) -> tuple[ArrivalStorage, Lab, Any]:
    """Start a queue on a store that claims on arrival."""
    storage = ArrivalStorage(MemoryStorage(clock=clock))
    await storage.open()
    lab = Lab(storage)
    queue = await lab.start(handler, concurrency=10, **options)
    await clock.settle()
    return storage, lab, queue


async def test_a_worker_that_was_just_busy_claims_on_arrival(clock: FakeClock) -> None:
    storage, lab, queue = await arriving(clock, echo)
    assert storage.arrivals == []
    for number in range(3):
        assert await within(queue.enqueue_and_wait(None, number)) == number
        await clock.settle()
    assert storage.arrivals == [(1, 1.0)] * 3
    assert storage.calls("wait_for_work") == 1
    # One claims the first job, the others hand in, and so would claim more.
    assert storage.calls("exchange") == 1 + 1 + 3
    await lab.close()


async def test_one_that_has_been_idle_for_a_while_waits_and_then_claims(clock: FakeClock) -> None:
    storage, lab, queue = await arriving(clock, echo)
    assert await within(queue.enqueue_and_wait(None, 1)) == 1
    await clock.advance(1.1)
    assert len(storage.arrivals) == 1
    assert await within(queue.enqueue_and_wait(None, 2)) == 2
    await clock.settle()
    assert len(storage.arrivals) == 2
    await lab.close()


async def test_one_that_is_busy_waits_and_then_claims(clock: FakeClock) -> None:
    gates = Gates()
    storage, lab, queue = await arriving(clock, gates)
    await queue.enqueue("a", 1)
    await within(gates["a"].began.wait())
    await clock.settle()
    assert (storage.arrivals, storage.calls("wait_for_work")) == ([], 2)
    gates["a"].go.set()
    await clock.settle()
    assert storage.arrivals == [(1, 1.0)]
    await queue.enqueue("b", 2)
    await within(gates["b"].began.wait())
    gates["b"].go.set()
    await lab.close()


async def test_as_many_are_claimed_on_arrival_as_ran_together(clock: FakeClock) -> None:
    storage, lab, queue = await arriving(clock, Burst(3))
    for _ in range(2):
        await within(asyncio.gather(*(queue.enqueue_and_wait(None, n) for n in range(3))))
        await clock.settle()
    assert storage.arrivals == [(3, 1.0)] * 2
    await lab.close()


async def test_a_claim_on_arrival_takes_a_small_part_of_a_short_lease(clock: FakeClock) -> None:
    storage, lab, queue = await arriving(clock, echo, visibility_timeout=2.0)
    assert await within(queue.enqueue_and_wait(None, 1)) == 1
    await clock.settle()
    assert storage.arrivals == [(1, 0.2)]
    await lab.close()


async def test_a_worker_that_stops_leaves_no_claim_on_arrival_behind(clock: FakeClock) -> None:
    _, lab, queue = await arriving(clock, echo)
    assert await within(queue.enqueue_and_wait(None, 1)) == 1
    await clock.settle()
    await within(queue.stop())
    producer = await lab.start(name="q")
    await producer.enqueue("a", 1)
    await clock.settle()
    assert await lab.state("a") == "queued"
    await lab.close()


async def test_a_store_that_cannot_claim_on_arrival_now_is_asked(clock: FakeClock) -> None:
    storage, lab, queue = await arriving(clock, echo)
    assert await within(queue.enqueue_and_wait(None, 1)) == 1

    async def none(*_: object) -> None:
        await storage.inner.wait_for_work("q", "w", 60)

    storage.claim_on_arrival = none  # type: ignore[method-assign]
    await clock.settle()
    assert await within(queue.enqueue_and_wait(None, 2)) == 2
    assert await within(queue.enqueue_and_wait(None, 3)) == 3
    await lab.close()


def listeners() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name() == "jobqueue-hint"}


async def test_a_worker_listens_in_one_task_again_and_again(clock: FakeClock) -> None:
    async with opened(MemoryStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, concurrency=2)
        await clock.settle()
        first = listeners()
        assert len(first) == 1
        for number in range(3):
            assert await within(queue.enqueue_and_wait(f"{number}", number)) == number
            await clock.settle()
            assert listeners() == first
        await lab.close()
        assert not listeners()


class TroubledStorage(DeafStorage):
    """Wakes nobody, and says of a wait that is given up that it has failed."""

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        try:
            return await super().wait_for_work(queue, worker, timeout)
        except asyncio.CancelledError:
            raise StorageUnavailableError("the connection was closed") from None


async def test_a_listener_that_was_sent_away_ends_even_if_its_store_hides_that(clock: FakeClock) -> None:
    async with opened(TroubledStorage(clock=clock)) as storage:
        lab, gates = Lab(storage), Gates()
        producer = await lab.start(None)
        await producer.enqueue("a", 1)
        await lab.start(gates, concurrency=2)
        await within(gates["a"].began.wait())
        await clock.settle()
        sent_away = listeners()  # it listens for the second slot
        assert len(sent_away) == 1
        await producer.enqueue_many([("b", 1), ("c", 1)])
        gates["a"].go.set()
        await within(gates["c"].began.wait())  # with "b": the worker is full
        for id in ("b", "c"):
            gates[id].go.set()
        await clock.advance(1.0)
        assert len(listeners()) == 1
        assert not listeners() & sent_away
        await lab.close()
        assert not listeners()
