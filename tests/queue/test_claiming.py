"""When a worker asks the store for jobs: at once when there may be some."""

from __future__ import annotations

from typing import Any

from jobqueue import Backoff, Job
from jobqueue.storage.base import Exchanged
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.queue.support import DeafStorage, Gate, Hold, Lab, WireStorage, echo, opened, within


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
