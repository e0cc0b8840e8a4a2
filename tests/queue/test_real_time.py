"""What virtual time cannot show: leases renewed from a thread, and nothing left in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections import Counter
from typing import Any

import pytest

from jobqueue import Backoff, Job, MaxRetriesError, Queue, Reaper, Storage, StorageUnavailableError
from jobqueue.storage.memory import MemoryStorage
from tests.support import LIMIT, Gate, Hold, Lab, Recorder, WireStorage, echo, opened, until, within


class Sweeper(threading.Thread):
    """A reaper in a process of its own, as near as a thread comes: it sweeps all the time."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(daemon=True)
        self.storage = storage
        self.go = threading.Event()
        self.sweeps = 0
        self.stalled: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._sweep())
        except BaseException as error:
            self.failure = error

    async def _sweep(self) -> None:
        reaper = Reaper(self.storage.clone())
        reaper.on("stalled", lambda event: self.stalled.append(event.id))
        await reaper._storage.open()
        while not self.go.is_set():
            await reaper.sweep()
            self.sweeps += 1
            await asyncio.sleep(0.01)
        await reaper._storage.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals twenty times a second, so that leases may be long and a slow machine does not lose them."""
    monkeypatch.setattr("jobqueue.worker.heartbeat.Heartbeat.pause", lambda self: 0.05)


@pytest.mark.usefixtures("often")
async def test_a_handler_that_blocks_the_event_loop_keeps_its_job() -> None:
    lease = 1.2
    async with opened(MemoryStorage()) as storage:
        sweeper = Sweeper(storage)

        async def handler(job: Job[Any]) -> str:
            sweeper.start()
            end = time.monotonic() + 3 * lease
            while time.monotonic() < end or sweeper.sweeps < 10:
                time.sleep(0.005)  # the loop stands still
            return "kept"

        lab = Lab(storage)
        queue = await lab.start(handler, visibility_timeout=lease)
        events = Recorder(queue)
        assert await within(queue.enqueue_and_wait("a", 1)) == "kept"
        sweeper.go.set()
        await asyncio.to_thread(sweeper.join, LIMIT)
        assert sweeper.failure is None
        assert sweeper.stalled == []
        assert [event.attempts for event in events.of("completed")] == [1]
        await lab.close()


@pytest.mark.usefixtures("often")
async def test_a_thread_that_cannot_reach_the_store_tells_in_the_owners_loop() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(visibility_timeout=60)
        events = Recorder(queue)
        told: list[int] = []
        queue.on("error", lambda event: told.append(threading.get_ident()))
        storage.break_down("open")
        queue.execute(gate)
        await queue.enqueue("a", 1)
        error = await events.wait("error", 2)
        assert isinstance(error.error, StorageUnavailableError)
        assert error.doing == "renewing leases"
        assert set(told) == {threading.get_ident()}
        storage.heal()
        await until(lambda: storage.calls("extend") >= 1)
        gate.go.set()
        await lab.close()


async def test_a_thread_that_never_reached_the_store_ends_in_distrust() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, reasons = Lab(storage), list[str]()

        async def handler(job: Job[Any]) -> None:
            try:
                await job.aborted.wait()
            finally:
                reasons.append(str(job.aborted_reason))

        queue = await lab.start(visibility_timeout=0.3)
        storage.break_down("open")
        queue.execute(handler)
        await queue.enqueue("a", 1)
        await until(lambda: bool(reasons))
        assert reasons[0] == "lease_lost"
        storage.heal()
        await lab.close()


async def test_a_renewal_without_an_answer_ends_in_distrust() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=0.3)
        events = Recorder(queue)
        never = threading.Event()

        async def hang() -> None:
            while not never.is_set():
                await asyncio.sleep(0.01)

        storage.fault("extend", before=hang)
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
        await events.wait("stalled")
        assert gate.cancelled >= 1
        assert gate.jobs[0].aborted_reason == "lease_lost"
        assert isinstance(events.of("error")[0].error, TimeoutError)
        never.set()
        storage.heal()
        gate.go.set()
        await lab.close()


@pytest.mark.usefixtures("often")
async def test_a_heartbeat_that_breaks_breaks_the_queue() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, gate = Lab(storage), Gate()
        queue = await lab.start(gate, visibility_timeout=60)
        storage.fault("extend", raises=ZeroDivisionError("a defect"))
        await queue.enqueue("a", 1)
        with pytest.raises(Exception, match="a defect"):
            await within(queue.until_broken())
        storage.heal()
        await lab.close()


async def test_a_stop_while_the_heartbeat_connects() -> None:
    async with opened(WireStorage(MemoryStorage())) as storage:
        lab, hold = Lab(storage), Hold()
        queue = await lab.start()
        stuck = threading.Event()

        async def hang() -> None:
            stuck.set()
            await asyncio.Event().wait()

        storage.fault("open", before=hang)
        queue.execute(echo)
        assert await within(queue.enqueue_and_wait("a", 1)) == 1
        await until(stuck.is_set)
        await within(queue.stop())
        assert not hold.reached.is_set()
        storage.heal()
        await until(lambda: not [t for t in threading.enumerate() if t.name == "jobqueue-heartbeat"])


async def test_a_queue_stopped_as_soon_as_it_started_leaves_no_thread() -> None:
    async with opened(MemoryStorage()) as storage:
        for _ in range(20):
            queue: Queue[Any, Any] = Queue(storage, "q")
            queue.execute(echo)
            await within(queue.start())
            await within(queue.stop())
        await until(lambda: not [t for t in threading.enumerate() if t.name == "jobqueue-heartbeat"])


def counts() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects())


async def failures(queue: Queue[Any, Any], payloads: range) -> int:
    """How many of these jobs fail."""

    async def fails(n: int) -> bool:
        try:
            return await queue.enqueue_and_wait(f"j{n}", n) != n
        except MaxRetriesError:
            return True

    return sum(await within(asyncio.gather(*map(fails, payloads))))


async def test_ten_thousand_jobs_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "jobqueue")  # the log of a hundred errors is not what is looked at

    async def handler(job: Job[Any]) -> Any:
        if job.payload % 100 == 0:
            raise ValueError("now and then")
        return job.payload

    async with opened(MemoryStorage()) as storage:
        queue: Queue[Any, Any] = Queue(
            storage,
            "q",
            concurrency=100,
            job_timeout=3600.0,
            max_attempts=1,
            backoff=Backoff.fixed(0),
            result_ttl=0.001,
            dead_letter_ttl=0,
        )
        queue.execute(handler)
        queue.on("error", print)
        await queue.start()
        tasks, before = len(asyncio.all_tasks()), counts()
        for start in range(0, 10_000, 500):
            assert await failures(queue, range(start, start + 500)) == 5
        session = queue._session
        assert session is not None
        worker = session.worker
        assert worker is not None
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 1)
        await until(lambda: not worker._runs and not worker._finished)
        assert len(session.waiters) == 0
        assert session.waiters._told == session.waiters._missed == set()
        assert len(session.timers) == 0
        assert len(session.timers._lanes) <= 2
        assert worker._stuck_threads == 0
        assert counts()["Waiter"] <= before["Waiter"]
        assert counts()["Run"] <= before["Run"] + 1
        assert counts()["Job"] <= before["Job"] + 1
        await within(queue.stop())
        assert await Reaper(storage).sweep() == 0
        assert storage._engine.size() == 0
        assert len(storage._hints) == 0


async def test_cancelled_and_timed_out_waits_leave_nothing_behind() -> None:
    async with opened(MemoryStorage()) as storage:
        lab = Lab(storage)
        queue = await lab.start()
        calls = [
            asyncio.create_task(queue.enqueue_and_wait(f"j{n}", n, timeout=0.05 + n % 7)) for n in range(500)
        ]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert queue._session is not None
        assert len(queue._session.waiters) == 0
        assert len(queue._session.timers) == 0
        await lab.close()
