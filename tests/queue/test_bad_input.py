"""Bad input: a typed error that names the argument, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from jobqueue import (
    Backoff,
    EnqueueRequest,
    InvalidArgumentError,
    JobQueueError,
    JsonSerde,
    LeaderElection,
    MemoryStorage,
    MsgpackSerde,
    Queue,
    Reaper,
    SerializationError,
    open_storage,
)
from tests.support import Lab, echo, standing, within

NAN, INF = float("nan"), float("inf")
NOT_NUMBERS = ["1", None, True, [], b"1", 1j]
NOT_IDS = [
    "",
    "x" * 257,
    "ü" * 129,
    "a\x00b",
    "a\n",
    "\x1f",
    "\x7f",
    "\x80",
    "\x9f",
    "\ud800",
    5,
    b"a",
    True,
    ("a",),
    object(),
]
NOT_SECONDS = [*NOT_NUMBERS, -1, -0.001, NAN, INF, -INF, 10**12, 10**400]
NOT_COUNTS = ["1", True, [], 1.0, 2.5, 0, -1, NAN, 2**31, 10**30]
NOT_QUEUE_NAMES = ["", "a" * 65, "a b", "a/b", "a:b", "ü", "a\n", "{a}", "*", None, 5, b"a"]


def label(value: Any) -> str:
    """Name a value the same in every process: without addresses."""
    return re.sub(r" at 0x\w+", "", ascii(value))[:24]


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(argument, value, id=f"{argument}={type(value).__name__}-{label(value)}-{n}")
        for argument, values in table.items()
        for n, value in enumerate(values)
    ]


def refused(call: Callable[[], Any], argument: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        call()
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
    assert isinstance(caught.value, ValueError)


QUEUE = {
    "name": NOT_QUEUE_NAMES,
    "worker_id": [value for value in NOT_IDS if value is not None],
    "concurrency": [*NOT_COUNTS, None, 100_001],
    "max_attempts": [*NOT_COUNTS, None],
    "visibility_timeout": [*NOT_SECONDS, 0],
    "job_timeout": [value for value in [*NOT_SECONDS, 0] if value is not None],
    "result_ttl": [*NOT_SECONDS, 0],
    "block_timeout": [*NOT_SECONDS, 0],
    "backoff": [1.0, "fast", lambda attempts: 1.0, Backoff],
    "max_stalls": [value for value in [*NOT_COUNTS, None] if value != 0],
    "max_length": [value for value in NOT_COUNTS if value is not None],
    "max_payload_bytes": [*NOT_COUNTS, None, 2**30],
    "payload_serde": [5, "json", object(), JsonSerde, MsgpackSerde],
    "result_serde": [5, "json", object(), JsonSerde],
    "after_execution": [5, "hook"],
    "tracebacks": [1, 0, "no", None],
    "storage": [
        5,
        None,
        b"memory://",
        object(),
        MemoryStorage,
        "",
        "memory",
        "nosuch://x",
        "http://host",
        "://",
    ],
}


@pytest.mark.parametrize(("argument", "value"), cases(QUEUE))
def test_arguments_of_a_queue(argument: str, value: Any) -> None:
    arguments = {"storage": MemoryStorage(), argument: value}
    refused(lambda: Queue(**arguments), argument)


ENQUEUE = {
    "id": NOT_IDS,
    "max_attempts": [value for value in NOT_COUNTS if value is not None],
    "result_ttl": [value for value in [*NOT_SECONDS, 0] if value is not None],
    "delay": [value for value in NOT_SECONDS if value is not None],
    "run_at": [datetime(2030, 1, 1), date(2030, 1, 1), "2030-01-01", 1.5, 0, True],  # noqa: DTZ001
    "priority": [1001, -1001, 1.0, "1", None, True, False, NAN],
    "reuse": ["again", "", None, 5, True, [], b"rerun", "RERUN"],
    "expires": [value for value in [*NOT_SECONDS, 0] if value is not None],
    "timeout": [*NOT_SECONDS, 0],
}


@pytest.mark.parametrize(("argument", "value"), cases(ENQUEUE))
async def test_arguments_of_an_enqueue(argument: str, value: Any) -> None:
    async with Queue(MemoryStorage(), "q") as queue:
        arguments = {"id": "a", "payload": 1, argument: value}
        calls: list[Callable[[], Any]] = [lambda: queue.enqueue_and_wait(**arguments)]
        if argument != "timeout":
            calls.append(lambda: queue.enqueue(**arguments))
        for call in calls:
            with pytest.raises(InvalidArgumentError) as caught:
                await call()
            assert caught.value.argument == argument
        if argument != "timeout":
            with pytest.raises(InvalidArgumentError) as caught:
                await queue.enqueue_many([("good", 1), EnqueueRequest(**arguments)])
            assert caught.value.argument == f"requests[1].{argument}"
        assert sum(value or 0 for value in (await queue.storage.counts("q"))[:7]) == 0
        assert standing(queue) == 0


async def test_delay_and_run_at_together(lab: Lab) -> None:
    queue = await lab.start()
    with pytest.raises(InvalidArgumentError, match="not both") as caught:
        await queue.enqueue("a", 1, delay=0, run_at=datetime.now(UTC) + timedelta(hours=1))
    assert caught.value.argument == "run_at"
    assert await lab.total() == 0


async def test_a_payload_over_the_cap(lab: Lab) -> None:
    queue = await lab.start(max_payload_bytes=10)
    for call in (
        lambda: queue.enqueue("a", "x" * 9),
        lambda: queue.enqueue("a", "x" * 9, delay=5),
        lambda: queue.enqueue_and_wait("a", "x" * 9),
        lambda: queue.enqueue_many([("fits", "x" * 8), ("a", "x" * 9)]),
    ):
        with pytest.raises(InvalidArgumentError, match="11 bytes, the limit is 10") as caught:
            await call()
        assert caught.value.argument in {"payload", "requests[1].payload"}
    assert await lab.total() == 0
    await queue.enqueue("a", "x" * 8)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Refusing:
    def dumps(self, value: Any) -> bytes:
        raise Unprintable

    def loads(self, data: bytes) -> Any:
        raise Unprintable


@pytest.mark.parametrize(
    "payload", [object(), {1, 2}, b"raw", NAN, INF, "\ud800", {("a", 1): 2}, 1j], ids=label
)
async def test_an_unserialisable_payload(lab: Lab, payload: Any) -> None:
    queue = await lab.start()
    for call in (
        lambda: queue.enqueue("a", payload),
        lambda: queue.enqueue_and_wait("a", payload),
        lambda: queue.enqueue_many([("good", 1), ("a", payload)]),
    ):
        with pytest.raises(SerializationError, match="payload cannot be serialized by JsonSerde"):
            await call()
    assert await lab.total() == 0


async def test_a_payload_without_end(lab: Lab) -> None:
    payload: list[Any] = []
    payload.append(payload)
    queue = await lab.start()
    with pytest.raises(SerializationError):
        await queue.enqueue("a", payload)
    assert await lab.total() == 0


async def test_a_serde_whose_error_has_no_text(lab: Lab) -> None:
    queue = await lab.start(payload_serde=Refusing())
    with pytest.raises(SerializationError, match="Unprintable"):
        await queue.enqueue("a", 1)


@pytest.mark.parametrize("data", [None, "text", bytearray(b"1"), 5], ids=repr)
async def test_a_serde_that_gives_no_bytes(lab: Lab, data: Any) -> None:
    class Wrong(JsonSerde):
        def dumps(self, value: Any) -> Any:
            return data

    queue = await lab.start(payload_serde=Wrong())
    with pytest.raises(SerializationError, match="must return bytes"):
        await queue.enqueue("a", 1)
    assert await lab.total() == 0


@pytest.mark.parametrize("requests", [None, 5, object(), True], ids=label)
async def test_requests_that_cannot_be_iterated(lab: Lab, requests: Any) -> None:
    queue = await lab.start()
    with pytest.raises(InvalidArgumentError) as caught:
        await queue.enqueue_many(requests)
    assert caught.value.argument == "requests"


@pytest.mark.parametrize("request_", [None, "ab", ("a",), ("a", 1, 2), ["a", 1], {"id": "a"}, 5], ids=label)
async def test_requests_of_another_shape(lab: Lab, request_: Any) -> None:
    queue = await lab.start()
    with pytest.raises(InvalidArgumentError) as caught:
        await queue.enqueue_many([("good", 1), request_])
    assert caught.value.argument == "requests[1]"
    assert await lab.total() == 0


@pytest.mark.parametrize("id", [*NOT_IDS, None], ids=label)
async def test_ids_to_ask_for(id: Any) -> None:
    async with Queue(MemoryStorage(), "q") as queue:
        for call in (queue.wait, queue.cancel, queue.get_result, queue.get_status):
            with pytest.raises(InvalidArgumentError) as caught:
                await call(id)
            assert caught.value.argument == "id"
        with pytest.raises(InvalidArgumentError) as caught:
            await queue.update_result_ttl(id, 5)
        assert caught.value.argument == "id"


@pytest.mark.parametrize("value", [*NOT_SECONDS, 0], ids=label)
async def test_seconds_to_ask_for(value: Any) -> None:
    async with Queue(MemoryStorage(), "q") as queue:
        with pytest.raises(InvalidArgumentError) as caught:
            await queue.wait("a", timeout=value)
        assert caught.value.argument == "timeout"
        with pytest.raises(InvalidArgumentError) as caught:
            await queue.update_result_ttl("a", value)
        assert caught.value.argument == "ttl"
        if value is not None and value != 0:
            with pytest.raises(InvalidArgumentError) as caught:
                await queue.stop(timeout=value)
            assert caught.value.argument == "timeout"
        assert (await queue.enqueue("a", 1)).status == "queued", "the queue must not have stopped"


@pytest.mark.parametrize("value", [1, 0, None, "yes"], ids=label)
async def test_running_to_ask_for(lab: Lab, value: Any) -> None:
    queue = await lab.start()
    await queue.enqueue("a", 1)
    with pytest.raises(InvalidArgumentError) as caught:
        await queue.cancel("a", running=value)
    assert caught.value.argument == "running"
    assert await lab.state("a") == "queued"


@pytest.mark.parametrize("handler", [None, 5, "handler", object()], ids=lambda value: type(value).__name__)
async def test_handlers(lab: Lab, handler: Any) -> None:
    queue = await lab.start()
    with pytest.raises(InvalidArgumentError) as caught:
        queue.execute(handler)
    assert caught.value.argument == "handler"
    queue.execute(echo)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1


REAPER = {
    "storage": [5, None, object(), MemoryStorage, "nosuch://x"],
    "queues": ["q", b"q", 5, object(), {"q": 1}, ["a b"], [""], [None], [5]],
    "sweep_interval": [*NOT_SECONDS, 0],
    "leader_election": [True, 5, "leader", {"lock_ttl": 5}, LeaderElection],
}


@pytest.mark.parametrize(("argument", "value"), cases(REAPER))
def test_arguments_of_a_reaper(argument: str, value: Any) -> None:
    arguments = {"storage": MemoryStorage(), argument: value}
    refused(lambda: Reaper(**arguments), argument)


ELECTION = {
    "lock_ttl": [*NOT_SECONDS, 0],
    "renewal_interval": [*NOT_SECONDS, 0, 30.0, 31],
    "acquire_retry_interval": [*NOT_SECONDS, 0],
}


@pytest.mark.parametrize(("argument", "value"), cases(ELECTION))
def test_arguments_of_an_election(argument: str, value: Any) -> None:
    refused(lambda: LeaderElection(**{argument: value}), argument)


BACKOFF = {
    "initial": NOT_SECONDS,
    "factor": [*NOT_NUMBERS, 0.5, 0, -1, NAN, INF],
    "max": NOT_SECONDS,
    "jitter": [*NOT_NUMBERS, -0.1, 1.1, NAN, INF],
}


@pytest.mark.parametrize(("argument", "value"), cases(BACKOFF))
def test_arguments_of_an_exponential_backoff(argument: str, value: Any) -> None:
    refused(lambda: Backoff.exponential(**{"initial": 1.0, argument: value}), argument)


@pytest.mark.parametrize("value", NOT_SECONDS, ids=label)
def test_arguments_of_the_other_backoffs(value: Any) -> None:
    refused(lambda: Backoff.fixed(value), "delay")
    refused(lambda: Backoff.custom(value), "rule")


@pytest.mark.parametrize("url", ["", "memory", "nosuch://x", "http://host", None, 5, b"memory://"], ids=label)
def test_urls(url: Any) -> None:
    refused(lambda: open_storage(url), "storage")


def test_what_is_allowed_at_the_edges() -> None:
    Queue(
        MemoryStorage(),
        "A-z0.9_-" * 8,
        worker_id="x" * 256,
        concurrency=100_000,
        max_stalls=0,
        visibility_timeout=0.001,
        result_ttl=1,
        max_payload_bytes=1,
    )
    Backoff.exponential(0, factor=1, max=0, jitter=1)
    Backoff.exponential(1, factor=10**400)
    Reaper(MemoryStorage(), [], sweep_interval=0.001)
    Reaper("memory://", ("a", "b"))


async def test_configure_before_the_start_only(lab: Lab) -> None:
    queue = lab.queue(echo)
    with pytest.raises(InvalidArgumentError) as caught:
        queue.configure(concurrency=0)
    assert caught.value.argument == "concurrency"
    with pytest.raises(InvalidArgumentError) as caught:
        queue.configure(storage="nosuch://")
    assert caught.value.argument == "storage"
    with pytest.raises(InvalidArgumentError, match="worker_id"):
        queue.configure(worker_id="")
    queue.configure(concurrency=7, worker_id="w1")
    assert (queue.concurrency, queue.worker_id) == (7, "w1")
    await within(queue.start())
    with pytest.raises(JobQueueError, match="before start"):
        queue.configure(concurrency=8)
    assert await within(queue.enqueue_and_wait("a", 1)) == 1
