"""One thread and one connection renew the leases of all workers on a store. In real time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue import Job, JobQueueError, Queue, StorageUnavailableError
from jobqueue.storage.memory import MemoryStorage
from jobqueue.worker import heartbeat_thread
from tests.support import LIMIT, Gate, Lab, Recorder, WireStorage, echo, opened, until, within

LEASE = 2.0
"""Seconds. A machine that is busy may stand still for one: then a shorter lease is lost, and rightly."""


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobqueue-heartbeat"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    end = time.monotonic() + LIMIT
    while threads():
        assert time.monotonic() < end, "a thread was left"
        time.sleep(0.01)
    assert heartbeat_thread._threads == {}


async def running(lab: Lab, name: str, **options: Any) -> tuple[Queue[Any, Any], Gate]:
    """Start a queue with a job that runs until its gate is opened."""
    gate = Gate(name)
    queue = await lab.start(gate, name=name, **options)
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    return queue, gate


async def renewed(lab: Lab, name: str) -> None:
    """Wait until the lease of job ``a`` of a queue is renewed."""
    before = (await lab.record("a", name)).lease_until
    async with asyncio.timeout(LIMIT):
        while (await lab.record("a", name)).lease_until <= before:
            await asyncio.sleep(0.005)


async def test_many_queues_of_a_store_share_a_thread_and_a_connection() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, names = Lab(storage), [f"q{n}" for n in range(8)]
        gates = [(await running(lab, name, visibility_timeout=LEASE + n))[1] for n, name in enumerate(names)]
        assert len(threads()) == 1
        await within(asyncio.gather(*(renewed(lab, name) for name in names)))
        assert storage.calls("open") == 1 + len(names) + 1, "the store of the test, of each queue, one clone"
        for gate in gates:
            gate.go.set()
        await lab.close()
        assert storage.calls("close") == len(names) + 1


async def test_each_store_has_a_thread_of_its_own() -> None:
    async with opened(WireStorage(MemoryStorage())) as one, opened(WireStorage(MemoryStorage())) as two:
        labs = [Lab(one), Lab(two)]
        gates = [(await running(lab, "q", visibility_timeout=LEASE))[1] for lab in labs]
        assert len(threads()) == 2
        await within(asyncio.gather(*(renewed(lab, "q") for lab in labs)))
        gates[0].go.set()
        await labs[0].close()
        await until(lambda: len(threads()) == 1)
        await renewed(labs[1], "q")
        gates[1].go.set()
        await labs[1].close()


async def test_queues_start_and_stop_while_others_keep_their_leases() -> None:
    async with opened(MemoryStorage()) as storage:
        lab = Lab(storage)
        _, gate = await running(lab, "stays", visibility_timeout=LEASE)
        (thread,) = threads()
        for n in range(5):
            queue, other = await running(lab, f"goes{n}", visibility_timeout=LEASE)
            await renewed(lab, f"goes{n}")
            other.go.set()
            await within(queue.stop())
            await renewed(lab, "stays")
        assert threads() == [thread]
        gate.go.set()
        await lab.close()


async def test_a_worker_that_has_left_is_not_listed_again_by_a_late_renewal() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab = Lab(storage)
        stays, _ = await running(lab, "stays", visibility_timeout=LEASE)
        queue, _ = await running(lab, "goes", visibility_timeout=LEASE)
        for _ in range(10):
            await renewed(lab, "goes")
            await within(queue.stop(timeout=0))
            assert await storage.inner.workers("goes") == []
            await within(queue.start())
            await until(lambda: stays.ready)
            async with asyncio.timeout(LIMIT):
                while await lab.state("a", "goes") != "processing":
                    await asyncio.sleep(0.005)
        await lab.close()


async def test_a_call_that_hangs_for_one_queue_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(MemoryStorage()) as storage:
        lab, extend, reached = Lab(storage), MemoryStorage.extend, threading.Event()
        hangs, hung = await running(lab, "hangs", visibility_timeout=30)
        _, gate = await running(lab, "lives", visibility_timeout=LEASE)

        async def hang(self: MemoryStorage, queue: str, *args: Any) -> Any:
            if queue == "hangs":
                reached.set()
                await asyncio.Event().wait()
            return await extend(self, queue, *args)

        monkeypatch.setattr(MemoryStorage, "extend", hang)
        monkeypatch.setattr("jobqueue.worker.heartbeat.Heartbeat.pause", lambda self: 0.05)
        await within(hangs.stop(timeout=0))
        await within(hangs.start())  # with a job, and a heart that beats soon
        await until(reached.is_set)
        for _ in range(5):
            await renewed(lab, "lives")
        assert gate.cancelled == 0
        monkeypatch.undo()
        hung.go.set()
        gate.go.set()
        await lab.close()


async def test_a_heartbeat_that_breaks_breaks_its_queue_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(MemoryStorage()) as storage:
        lab = Lab(storage)
        broken, _ = await running(lab, "breaks", visibility_timeout=LEASE)
        lives, gate = await running(lab, "lives", visibility_timeout=LEASE)
        extend = MemoryStorage.extend

        async def defect(self: MemoryStorage, queue: str, *args: Any) -> Any:
            if queue == "breaks":
                raise ZeroDivisionError("a defect")
            return await extend(self, queue, *args)

        monkeypatch.setattr(MemoryStorage, "extend", defect)
        with pytest.raises(JobQueueError, match="a defect"):
            await within(broken.until_broken())
        await renewed(lab, "lives")
        assert lives.ready
        gate.go.set()
        monkeypatch.undo()
        await lab.close()


async def test_a_connection_that_breaks_breaks_all_queues_on_it() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab = Lab(storage)
        one, two = await lab.start(name="one"), await lab.start(name="two")
        storage.fault("open", raises=ZeroDivisionError("a defect"))
        for queue in (one, two):
            queue.execute(echo)
        for queue in (one, two):
            with pytest.raises(JobQueueError, match="a defect"):
                await within(queue.until_broken())
        storage.heal()
        await within(one.stop())
        await within(one.start())
        assert await within(one.enqueue_and_wait("a", 1)) == 1
        await lab.close()


async def test_a_store_that_cannot_be_reached_is_reported_to_every_queue() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab = Lab(storage)
        queues = [await lab.start(name=name, visibility_timeout=0.3) for name in ("one", "two")]
        events = [Recorder(queue) for queue in queues]
        gates = [Gate(), Gate()]
        storage.break_down("open")
        for queue, gate in zip(queues, gates, strict=True):
            queue.execute(gate)
            await queue.enqueue("a", 1)
        for recorder, gate in zip(events, gates, strict=True):
            assert (await recorder.wait("error")).doing == "renewing leases"
            await recorder.wait("stalled")
            assert gate.jobs[0].aborted_reason == "lease_lost"
        storage.heal()
        for gate in gates:
            gate.go.set()
        await lab.close()


def test_a_loop_that_ends_without_a_stop_leaves_no_thread() -> None:
    storage = MemoryStorage()
    queue: Queue[Any, Any] = Queue(storage, "q", visibility_timeout=0.3)
    queue.execute(echo)

    async def start() -> None:
        await queue.start()

    asyncio.run(start())

    async def again() -> int:
        async with queue:
            return int(await queue.enqueue_and_wait("a", 1))

    assert asyncio.run(again()) == 1


async def test_a_blocked_loop_is_reported_once_for_all_queues(caplog: pytest.LogCaptureFixture) -> None:
    async def block(job: Job[Any]) -> None:
        time.sleep(1.0)

    async with opened(MemoryStorage()) as storage:
        lab = Lab(storage)
        for name in ("one", "two", "three"):
            await lab.start(block if name == "one" else echo, name=name, visibility_timeout=0.9)
        await asyncio.sleep(0.4)
        one = lab._made[0]
        await within(one.enqueue_and_wait("a", 1))
        warned = [record for record in caplog.records if "has been blocked" in record.getMessage()]
        assert len(warned) == 1
        await lab.close()


async def test_a_queue_with_a_short_lease_does_not_wait_out_the_pause_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(MemoryStorage()) as storage:
        lab, open_, refused = Lab(storage), MemoryStorage.open, threading.Event()

        async def refuse_once(self: MemoryStorage) -> None:
            if threading.current_thread() in threads() and not refused.is_set():
                refused.set()
                raise StorageUnavailableError("too many clients")
            await open_(self)

        monkeypatch.setattr(MemoryStorage, "open", refuse_once)
        _, patient = await running(lab, "patient", visibility_timeout=30)
        await until(refused.is_set)
        _, hurried = await running(lab, "hurried", visibility_timeout=LEASE)
        await renewed(lab, "hurried")
        assert hurried.cancelled == 0
        patient.go.set()
        hurried.go.set()
        await lab.close()


async def test_a_store_may_be_falsy() -> None:
    class Empty(MemoryStorage):
        def __len__(self) -> int:
            return 0

    async with opened(Empty()) as storage:
        lab = Lab(storage)
        _, gate = await running(lab, "q", visibility_timeout=LEASE)
        for _ in range(3):
            await renewed(lab, "q")
        gate.go.set()
        await lab.close()
