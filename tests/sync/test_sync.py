"""The synchronous client: the calls of a queue from threads without an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import pytest

from jobqueue import (
    BrokenError,
    CancelStatus,
    EnqueueRequest,
    EnqueueStatus,
    InvalidArgumentError,
    Job,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    JobState,
    MemoryStorage,
    Queue,
    QueueFullError,
    RedisStorage,
    StoppedError,
    Storage,
    StorageUnavailableError,
    SyncEnqueueResult,
    SyncJobs,
    WaitTimeoutError,
    WrongLoopError,
)
from jobqueue.client.options import EnqueueOptions, JobOptions
from jobqueue.jobs import QueueJobs
from jobqueue.runtime.background import running_background
from jobqueue.tasks.options import OPTIONS_OF_A_REQUEST
from tests.services import free_port

T = TypeVar("T")
LIMIT = 30.0


async def away(call: Callable[[], T]) -> T:
    """Make a call in a thread without an event loop, and not for ever."""
    async with asyncio.timeout(LIMIT):
        return await asyncio.to_thread(call)


@pytest.fixture
async def queue(storage: Storage) -> AsyncIterator[Queue[Any, Any]]:
    """A queue that is never started, and whose client is closed in the end."""
    queue: Queue[Any, Any] = Queue(storage, "q")
    yield queue
    await away(queue.sync.close)


@pytest.fixture
async def worker(storage: Storage) -> AsyncIterator[Queue[Any, Any]]:
    """A worker on the same store, in the event loop of the test."""

    async def handle(job: Job[Any]) -> Any:
        if job.payload == "bad":
            raise ValueError("no good")
        return {"got": job.payload}

    worker: Queue[Any, Any] = Queue(storage, "q", concurrency=20, max_attempts=1)
    worker.execute(handle)
    async with worker:
        yield worker


async def test_its_calls_answer_as_those_of_the_queue(
    queue: Queue[Any, Any], worker: Queue[Any, Any]
) -> None:
    def use() -> None:
        sync = queue.sync
        assert sync.enqueue_and_wait("a", 1) == {"got": 1}
        again = sync.enqueue("a", 1)
        assert (again.status, again.state, again.result) == ("completed", "completed", {"got": 1})
        assert again.wait() == {"got": 1}
        new = sync.enqueue("b", 2, priority=5, group="g")
        assert isinstance(new, SyncEnqueueResult)
        assert (new.id, new.status) == ("b", EnqueueStatus.QUEUED)
        assert new.wait(timeout=LIMIT) == sync.wait("b") == sync.get_result("b") == {"got": 2}
        many = sync.enqueue_many([("c", 3), EnqueueRequest("later", 4, delay=600.0)])
        assert [one.state for one in many] == [JobState.QUEUED, JobState.SCHEDULED]
        assert many[0].wait() == {"got": 3}
        assert sync.cancel("later") is CancelStatus.CANCELLED
        assert (sync.get_status("none"), sync.get_result("none", "x")) == (None, "x")
        status = sync.get_status("b")
        assert status is not None
        assert (status.priority, status.group) == (5, "g")

    await away(use)


async def test_its_errors_are_those_of_the_queue(queue: Queue[Any, Any], worker: Queue[Any, Any]) -> None:
    def use() -> None:
        sync = queue.sync
        with pytest.raises(JobFailedError, match="no good"):
            sync.enqueue_and_wait("f", "bad", max_attempts=1)
        with pytest.raises(WaitTimeoutError, match="still scheduled"):
            sync.enqueue_and_wait("late", 1, delay=600.0, timeout=0.05)
        with pytest.raises(WaitTimeoutError):
            sync.enqueue("late", 1).wait(timeout=0.05)
        with pytest.raises(JobNotFoundError):
            sync.wait("none", timeout=5.0)
        with pytest.raises(InvalidArgumentError, match="priority"):
            sync.enqueue("x", 1, priority=5_000)
        with pytest.raises(InvalidArgumentError, match="requests"):
            sync.enqueue_many(5)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match=r"requests\[1\]"):
            sync.enqueue_many(pair for pair in [("y", 1), ("", 2)])
        with pytest.raises(TypeError, match="sooner"):
            sync.enqueue("x", 1, sooner=True)  # type: ignore[call-arg]
        assert sync.get_status("y") is None
        with pytest.raises(JobQueueError, match="no queue made this answer"):
            pickle.loads(pickle.dumps(sync.enqueue("z", 1))).wait()

    await away(use)


async def test_a_full_queue_is_refused(storage: Storage) -> None:
    queue: Queue[Any, Any] = Queue(storage, "q", max_length=1)
    try:
        await away(lambda: queue.sync.enqueue("a", 1))
        with pytest.raises(QueueFullError):
            await away(lambda: queue.sync.enqueue("b", 1))
    finally:
        await away(queue.sync.close)


async def test_a_job_that_is_cancelled_ends_its_waits(queue: Queue[Any, Any]) -> None:
    await away(lambda: queue.sync.enqueue("a", 1, delay=600.0))
    wait = asyncio.create_task(away(lambda: queue.sync.wait("a", timeout=LIMIT)))
    await asyncio.sleep(0.05)
    assert await away(lambda: queue.sync.cancel("a")) is CancelStatus.CANCELLED
    with pytest.raises((JobCancelledError, JobNotFoundError)):  # the wait may have begun after it
        await wait


async def test_any_number_of_threads_use_one_producer(
    queue: Queue[Any, Any], worker: Queue[Any, Any]
) -> None:
    started: list[str] = []
    queue.on("started", lambda event: started.append(event.worker_id))
    got: dict[str, Any] = {}
    failed: list[BaseException] = []
    go = threading.Barrier(12)

    def use(name: str) -> None:
        try:
            go.wait(LIMIT)
            for number in range(10):
                id = f"{name}:{number}"
                got[id] = queue.sync.enqueue_and_wait(id, id, timeout=LIMIT)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(str(n),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await away(thread.join)
    assert failed == []
    assert got == {f"{n}:{number}": {"got": f"{n}:{number}"} for n in range(12) for number in range(10)}
    assert len(started) == 1
    assert started[0] not in {queue.worker_id, worker.worker_id}


async def test_it_only_produces(queue: Queue[Any, Any]) -> None:
    ran: list[str] = []
    queue.execute(lambda job: ran.append(job.id))
    await away(lambda: queue.sync.enqueue("a", 1))
    with pytest.raises(WaitTimeoutError):
        await away(lambda: queue.sync.wait("a", timeout=0.3))
    assert ran == []
    async with queue:  # the queue itself works beside it
        await away(lambda: queue.sync.wait("a", timeout=LIMIT))
    assert ran == ["a"]


async def test_a_running_event_loop_is_not_blocked(queue: Queue[Any, Any]) -> None:
    for call in (
        lambda: queue.sync.enqueue("a", 1),
        lambda: queue.sync.wait("a"),
        queue.sync.jobs.list,
        queue.sync.close,
    ):
        with pytest.raises(WrongLoopError, match=r"asyncio\.to_thread"):
            call()

    @queue.around_enqueue
    async def outer(requests: Any, call_next: Any) -> Any:
        queue.sync.enqueue("inner", 1)  # in the background loop itself: it would wait for ever
        return await call_next(requests)

    with pytest.raises(WrongLoopError):
        await away(lambda: queue.sync.enqueue("a", 1))
    assert await away(lambda: queue.sync.get_status("a")) is None


async def test_close_ends_the_waits_and_the_next_call_begins_anew(queue: Queue[Any, Any]) -> None:
    stored = threading.Event()
    queue.on("enqueued", lambda event: stored.set())
    wait = asyncio.create_task(away(lambda: queue.sync.enqueue_and_wait("a", 1, timeout=LIMIT)))
    await away(lambda: stored.wait(LIMIT))
    assert queue.sync.is_open
    await away(queue.sync.close)
    assert not queue.sync.is_open
    with pytest.raises(StoppedError):
        await wait
    await away(queue.sync.close)  # does nothing
    status = await away(lambda: queue.sync.get_status("a"))
    assert status is not None
    assert status.state is JobState.QUEUED


async def test_one_that_broke_is_replaced(queue: Queue[Any, Any]) -> None:
    await away(lambda: queue.sync.enqueue("a", 1))
    there = running_background()
    assert there is not None
    twin: Any = there.open[queue.sync].producer.queue

    async def break_it() -> None:
        twin._session._break(RuntimeError("a defect"))

    await away(lambda: there.call(break_it))
    with pytest.raises(BrokenError):
        await away(lambda: there.call(lambda: twin.get_status("a")))
    status = await away(lambda: queue.sync.get_status("a"))
    assert status is not None
    assert there.open[queue.sync].producer.queue is not twin


async def test_middleware_and_listeners_of_the_queue_are_heard_in_the_context_of_the_caller(
    queue: Queue[Any, Any],
) -> None:
    trace: ContextVar[str] = ContextVar("trace", default="none")
    enqueued: list[str] = []
    queue.on("enqueued", lambda event: enqueued.append(event.id))

    @queue.around_enqueue
    async def traced(requests: Any, call_next: Any) -> Any:
        return await call_next(
            [
                EnqueueRequest(request.id, request.payload, headers={"trace": trace.get()})
                for request in requests
            ]
        )

    def use() -> Any:
        trace.set("t1")
        return queue.sync.enqueue("a", 1), queue.sync.enqueue_many([("b", 1)])

    await away(use)
    assert enqueued == ["a", "b"]
    records = await queue.storage.get("q", ["a", "b"])
    assert [record is not None and b"t1" in record.headers for record in records] == [True, True]
    with pytest.raises(JobQueueError, match=r"queue\.sync"):
        queue.around_enqueue(traced)


async def test_it_follows_a_queue_to_another_store(queue: Queue[Any, Any]) -> None:
    await away(lambda: queue.sync.enqueue("a", 1))
    other = MemoryStorage()
    queue.configure(storage=other)
    assert await away(lambda: queue.sync.get_status("a")) is None
    await away(lambda: queue.sync.enqueue("b", 1))
    await other.open()
    assert await other.get("q", ["b"]) != [None]
    await other.close()


async def test_two_queues_of_a_store_share_its_clone(queue: Queue[Any, Any], storage: Storage) -> None:
    other: Queue[Any, Any] = Queue(storage, "other")
    try:
        await away(lambda: (queue.sync.enqueue("a", 1), other.sync.enqueue("a", 1)))
        there = running_background()
        assert there is not None
        stores = {id(there.open[each.sync].producer.queue.storage) for each in (queue, other)}
        assert len(stores) == 1
        await away(other.sync.close)
        assert await away(lambda: queue.sync.get_status("a")) is not None  # it is still open
        before = len(there.open)
        await away(queue.sync.close)
        assert len(there.open) == before - 2  # the producer, and the clone that nobody uses now
    finally:
        await away(other.sync.close)


async def test_jobs_are_operated(queue: Queue[Any, Any], worker: Queue[Any, Any]) -> None:
    def use() -> None:
        sync, jobs = queue.sync, queue.sync.jobs
        with pytest.raises(JobFailedError):
            sync.enqueue_and_wait("f", "bad", max_attempts=1)
        sync.enqueue_many([EnqueueRequest(f"later:{n}", n, delay=600.0) for n in range(3)])
        assert [job.id for job in jobs.list(state="failed").jobs] == ["f"]
        assert len(jobs.list(limit=2).jobs) == 2
        known = jobs.get("f")
        assert known is not None
        assert known.payload == "bad"
        assert [reason.kind for reason in jobs.explain("later:0").reasons] == ["scheduled"]
        assert jobs.cancel(["later:0", "later:1"]) == 2
        assert jobs.remove("later:2") == 1
        assert jobs.retry("f", payload="good") == 1
        states = [status.state for status in jobs.watch("f", timeout=LIMIT)]
        assert states[-1] is JobState.COMPLETED
        assert jobs.retry("f") == 0
        assert list(jobs.watch("none")) == []

    await away(use)


async def test_tasks_are_enqueued(queue: Queue[Any, Any], storage: Storage) -> None:
    worker: Queue[Any, Any] = Queue(storage, "q")

    async def add(a: int, b: int = 2) -> int:
        return a + b

    task = queue.task(add)
    worker.task(add)
    async with worker:

        def use() -> None:
            assert task.sync.enqueue_and_wait(1) == 3
            ticket = task.sync.using(id="mine", delay=0.01).enqueue(2, b=5)
            assert ticket.id == "mine"
            assert ticket.wait(timeout=LIMIT) == 7
            assert task.using(id="mine").sync.enqueue(0).result == 7
            with pytest.raises(WaitTimeoutError):
                task.sync.using(delay=600.0, wait_timeout=0.05).enqueue_and_wait(1)
            with pytest.raises(TypeError, match="missing"):
                task.sync.enqueue()  # type: ignore[call-arg]
            with pytest.raises(InvalidArgumentError, match="delays"):
                task.sync.using(delays=1)  # type: ignore[call-arg]
            answers = queue.sync.enqueue_many([task.request(1), task.using(priority=3).request(2)])
            assert [answer.wait(timeout=LIMIT) for answer in answers] == [3, 4]

        await away(use)
    assert repr(task.sync) == "<SyncTask 'add'>"


async def test_a_store_that_is_down_is_an_error_and_tried_again() -> None:
    queue: Queue[Any, Any] = Queue(
        RedisStorage(f"redis://127.0.0.1:{free_port()}", retry_for=0.0, connect_timeout=1.0), "q"
    )
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await away(lambda: queue.sync.enqueue("a", 1))
    queue.configure(storage=MemoryStorage())
    assert (await away(lambda: queue.sync.enqueue("a", 1))).status == "queued"
    await away(queue.sync.close)


def test_it_passes_on_the_options_of_the_queue() -> None:
    for call, options in (
        (Queue.enqueue, EnqueueOptions),
        (Queue.enqueue_and_wait, JobOptions),
    ):
        taken = set(inspect.signature(call).parameters) - {"self", "id", "payload", "timeout"}
        assert set(options.__annotations__) == taken
    fields = {field.name for field in dataclasses.fields(EnqueueRequest)} - {"payload", "headers", "task"}
    assert fields == OPTIONS_OF_A_REQUEST
    own = {"payload_serde", "result_serde", "max_payload_bytes"}
    calls = {name for name in vars(QueueJobs) if not name.startswith("_")} - own
    assert {name for name in vars(SyncJobs) if not name.startswith("_")} == calls
