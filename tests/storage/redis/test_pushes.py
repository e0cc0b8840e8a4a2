"""Pushed messages: believed with the secret, else only a reason to look, and harmless in any number."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import example, given
from hypothesis import strategies as st

from jobqueue import CancelStatus, Job, JobNotFoundError, Queue
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis import pushes as pushes_module
from jobqueue.storage.redis.keys import (
    SECRET_BYTES,
    channel_base,
    lock_channel,
    lock_key,
    mailbox,
    queues_key,
)
from jobqueue.storage.redis.net.connection import Connection, ReplyError
from jobqueue.storage.redis.net.faults import ConnectionLostError
from jobqueue.storage.redis.net.pubsub import PubSub, _SubscribedConnection
from jobqueue.storage.redis.net.routes import SingleRoute
from jobqueue.storage.redis.net.target import Address
from jobqueue.storage.redis.pushes import HEARSAY, LOOK_EVERY, CancelRequest, SinkListener, read_message
from jobqueue.storage.values import NewJob, Reply
from jobqueue.testing.contract.support import Box
from tests.services import Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.support import raw_connection

SECRET = bytes(range(SECRET_BYTES))
SIGNED, WRONG = b"s" + SECRET, b"s" + SECRET[::-1]


def frame(kind: bytes, queue: str, id: str, number: int, rest: bytes = b"") -> bytes:
    named = bytes([len(queue.encode())]) + queue.encode() + len(id.encode()).to_bytes(2) + id.encode()
    return kind + named + number.to_bytes(7) + rest


def reply(
    id: str, seq: int, state: bytes = b"C", data: bytes | None = b'"forged"', queue: str = "q"
) -> bytes:
    size = 0 if data is None else len(data) + 1
    return frame(b"r", queue, id, seq, state + (1).to_bytes(4) + size.to_bytes(4) + (data or b""))


def cancel(id: str, fence: int, queue: str = "q") -> bytes:
    return frame(b"c", queue, id, fence)


# -- reading ---------------------------------------------------------------------------------------


def test_frames_are_read() -> None:
    message = reply("a", 5) + cancel("b", 7) + reply("ü", 6, b"F", None) + reply("c", 8, b"X", b"")
    assert read_message(SIGNED + message, len(SIGNED)) == (
        [
            Reply("q", "a", 5, JobState.COMPLETED, b'"forged"', 1),
            Reply("q", "ü", 6, JobState.FAILED, None, 1),
            Reply("q", "c", 8, JobState.CANCELLED, b"", 1),
        ],
        [CancelRequest("q", "b", 7)],
    )


@given(message=st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: reply("a", 1) + b"r" + tail))
@example(message=reply("a", 1, b"Q"))
@example(message=reply("a", 1, b"P"))
@example(message=b"r\xff")
@example(message=b"r\x01q\xff\xff" + b"x" * 10)
def test_anything_else_is_a_value_error_and_nothing_worse(message: bytes) -> None:
    try:
        replies, requests = read_message(message)
    except ValueError:
        return
    assert {reply.state for reply in replies} <= {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}
    # What was read accounts for every byte: nothing is cut off.
    texts = [text for item in (*replies, *requests) for text in (item.queue, item.id)]
    size = sum(len(text.encode()) for text in texts) + sum(len(reply.data or b"") for reply in replies)
    assert len(message) == size + 20 * len(replies) + 11 * len(requests)


REPLIES = st.recursive(
    st.none() | st.integers() | st.binary(max_size=9) | st.sampled_from([b"message", b"subscribe", b"to"]),
    lambda inner: st.lists(inner, max_size=4),
)


@given(replies=st.lists(REPLIES, max_size=5))
def test_no_reply_upsets_a_subscribed_connection(replies: list[Any]) -> None:
    async def feed() -> None:
        hub = PubSub(SingleRoute(refuse_to_connect), 1.0)
        line = _SubscribedConnection(hub, Address("", 0))
        for reply in replies:
            line._push(reply)
        await hub.close()

    asyncio.run(feed())


async def refuse_to_connect(kind: str, key: bytes | None = None) -> Connection:
    raise ConnectionLostError(kind)


@given(data=st.binary(max_size=100) | st.binary(max_size=20).map(lambda tail: b"*3\r\n$-1\r\n" + tail))
def test_no_bytes_upset_a_connection(data: bytes) -> None:
    async def feed() -> None:
        connection = Connection(Address("h", 1), 5.0)
        waiting = connection.send(b"PING")
        connection.data_received(data)
        connection.abort("done")
        assert waiting.done()
        assert waiting.exception() is None or isinstance(
            waiting.exception(), (ConnectionLostError, ReplyError)
        )

    asyncio.run(feed())


@given(cut=st.integers(1, len(reply("some id", 12345)) - 1))
def test_a_cut_message_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="not a message"):
        read_message(reply("some id", 12345)[:cut])


# -- believing -------------------------------------------------------------------------------------


class Listening:
    """A listener whose store confirms the cancel requests of some fences."""

    def __init__(self, *fences: int) -> None:
        self.box = Box()
        self.looks: list[int] = []
        self._fences = fences
        self._tasks: set[asyncio.Task[None]] = set()
        self.listener = SinkListener("q", self.box, SECRET, self._confirm, self._spawn)

    async def _confirm(self, queue: str, requests: Sequence[CancelRequest]) -> list[bool]:
        self.looks.append(len(requests))
        return [request.fence in self._fences for request in requests]

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def looked(self) -> None:
        """Wait until all that has come was looked at."""
        async with asyncio.timeout(10):
            while self._tasks:
                await asyncio.wait(self._tasks)


async def test_with_the_secret_a_reply_is_handed_on_at_once() -> None:
    one = Listening()
    one.listener.message(SIGNED + reply("a", 1) + reply("b", 2, queue="another"))
    assert one.box.replies == [Reply("q", "a", 1, JobState.COMPLETED, b'"forged"', 1)]


@pytest.mark.parametrize("opening", [WRONG, b"", b"s"], ids=["wrong", "none", "cut"])
@pytest.mark.parametrize("state", [b"C", b"F", b"X"])
async def test_without_it_a_reply_says_only_that_there_is_something_to_read(
    opening: bytes, state: bytes
) -> None:
    one = Listening()
    one.listener.message(opening + reply("a", 1, state))
    await one.looked()
    # "s" alone takes bytes of the frame for a secret: then nothing is left to read.
    assert [(reply.id, reply.data) for reply in one.box.replies] == ([] if opening == b"s" else [("a", None)])
    assert all(reply.seq > 10**16 for reply in one.box.replies), "it could be taken for the truth of a job"


async def test_a_cancel_request_is_handed_on_if_the_store_confirms_it() -> None:
    one = Listening(7)
    one.listener.message(cancel("a", 7) + cancel("b", 8) + cancel("a", 7, queue="another"))
    await one.looked()
    assert one.box.cancels == [("q", "a", 7)]


async def test_a_flood_of_forged_messages_is_looked_at_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0

    def counted(message: bytes, at: int) -> Any:
        nonlocal reads
        reads += len(message)
        return read_message(message, at)

    monkeypatch.setattr(pushes_module, "read_message", counted)
    one, windows = Listening(), 3
    for _ in range(windows):
        for i in range(2_000):
            one.listener.message(b"".join(reply(f"{i}", seq) + cancel(f"{i}", seq) for seq in range(10)))
        await asyncio.sleep(LOOK_EVERY)
    one.listener.message(SIGNED + reply("mine", 1))
    assert one.box.replies[-1].id == "mine", "what is believed passes all the same"
    await one.looked()
    assert reads <= (windows + 2) * (HEARSAY + 1_000)


async def test_a_flood_of_junk_does_not_keep_the_next_message_out() -> None:
    one = Listening(7)
    for _ in range(1_000):
        one.listener.message(b"junk" * 1_000)
    await one.looked()
    one.listener.message(cancel("a", 7))
    await one.looked()
    assert one.box.cancels == [("q", "a", 7)]


async def test_after_the_end_nothing_is_handed_on() -> None:
    one = Listening(7)
    one.listener.message(cancel("a", 7) + reply("a", 1))
    one.listener.close()
    await one.looked()
    one.listener.message(cancel("a", 7))
    await one.looked()
    assert (one.box.cancels, one.box.replies) == ([], [])


async def test_junk_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    one = Listening()
    for _ in range(10):
        one.listener.message(b"junk")
    await one.looked()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


# -- a user who may publish and nothing else --------------------------------------------------------


@pytest_asyncio.fixture
async def forger(server: Server) -> AsyncIterator[Connection]:
    server.command("ACL", "SETUSER", "forger", "on", ">pw", "resetkeys", "allchannels", "-@all", "+publish")
    connection = await raw_connection(f"redis://forger:pw@127.0.0.1:{server.port}")
    yield connection
    await connection.close("done")


def to(address: str) -> bytes:
    return channel_base("jq") + mailbox(address)


async def test_a_forged_reply_neither_answers_nor_fails_a_waiter(server: Server, forger: Connection) -> None:
    go, began = asyncio.Event(), asyncio.Event()

    async def handler(job: Job[int]) -> str:
        began.set()
        await go.wait()
        return "true result"

    queue: Queue[int, str] = Queue(server.url, "q")
    queue.execute(handler)
    async with queue:
        waiting = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        await asyncio.wait_for(began.wait(), 10)
        [record] = await queue.storage.get("q", ["a"])
        assert record is not None
        for opening in (b"", WRONG):
            for state in (b"C", b"F", b"X", b"Q"):
                heard = await forger.send(
                    "PUBLISH", to(queue.worker_id), opening + reply("a", record.seq, state)
                )
                assert heard == 1, "nobody hears what is forged"
            await forger.send("PUBLISH", to(queue.worker_id), opening + cancel("a", record.fence))
        await SYSTEM_CLOCK.sleep(4 * LOOK_EVERY)
        assert not waiting.done()
        go.set()
        assert await asyncio.wait_for(waiting, 10) == "true result"


async def test_a_true_cancel_request_passes(server: Server) -> None:
    began = asyncio.Event()

    async def handler(job: Job[int]) -> None:
        began.set()
        await asyncio.Event().wait()

    queue: Queue[int, None] = Queue(server.url, "q", visibility_timeout=300)
    queue.execute(handler)
    async with queue:
        await queue.enqueue("a", 1)
        await asyncio.wait_for(began.wait(), 10)
        assert await queue.cancel("a", running=True) is CancelStatus.CANCELLING
        async with asyncio.timeout(10):  # far below a third of the lease
            while (await queue.get_status("a")).state is not JobState.CANCELLED:
                await SYSTEM_CLOCK.sleep(0.01)


async def test_forged_unlock_notices_make_no_busy_loop(
    server: Server, storage: RedisStorage, forger: Connection
) -> None:
    assert await storage.lock_acquire("lock", "leader", 60_000)
    looks, holder = 0, storage._open_session().steps.lock_holder

    async def counted(lock: str) -> Any:
        nonlocal looks
        looks += 1
        return await holder(lock)

    storage._open_session().steps.lock_holder = counted  # type: ignore[method-assign]
    began = SYSTEM_CLOCK.monotonic()
    waiting = asyncio.create_task(storage.wait_for_lock("lock", 60))
    for _ in range(500):
        await forger.send("PUBLISH", lock_channel("jq", "lock"), b"")
    passed = SYSTEM_CLOCK.monotonic() - began
    assert not waiting.done()
    assert looks <= passed / LOOK_EVERY + 2
    await storage.lock_release("lock", "leader")
    assert await asyncio.wait_for(waiting, 5)


async def test_another_object_with_the_same_address_hears_that_there_is_something_to_read(
    server: Server, storage: RedisStorage
) -> None:
    other, box = RedisStorage(server.url), Box()
    await other.open()
    await other.subscribe("q", "me", box)
    await storage.insert("q", [NewJob("a", b"", wait=True)], reply_to="me")
    await storage.cancel("q", ["a"])
    assert ((await box.reply()).id, (await box.reply()).data) == ("a", None)
    await other.close()


async def test_forged_replies_leave_no_trace_in_what_a_waiter_is_told_at_the_end(
    server: Server, forger: Connection
) -> None:
    queue: Queue[int, str] = Queue(server.url, "q")
    async with queue:
        waiting = asyncio.create_task(queue.enqueue_and_wait("a", 1, timeout=20))
        async with asyncio.timeout(10):
            while (seq := await seq_of(queue, "a")) is None:
                await SYSTEM_CLOCK.sleep(0.01)
        await forger.send("PUBLISH", to(queue.worker_id), reply("a", seq, b"C", None))
        await SYSTEM_CLOCK.sleep(4 * LOOK_EVERY)
        assert not waiting.done()
        server.command("FLUSHALL")
        await forger.send("PUBLISH", to(queue.worker_id), reply("a", seq, b"C", None))
        with pytest.raises(JobNotFoundError, match="unknown"):
            await waiting


async def seq_of(queue: Queue[int, str], id: str) -> int | None:
    [record] = await queue.storage.get("q", [id])
    return None if record is None else record.seq


# -- names -----------------------------------------------------------------------------------------


async def test_no_prefix_hears_what_is_meant_for_another(server: Server) -> None:
    short, long, box = RedisStorage(server.url, "jq"), RedisStorage(server.url, "jq:to"), Box()
    async with asyncio.TaskGroup() as group:
        group.create_task(short.open())
        group.create_task(long.open())
    await short.subscribe("q", "to:bob", box)
    await long.subscribe("q", "bob", own := Box())
    await long.insert("q", [NewJob("a", b"", wait=True)], reply_to="bob")
    await long.cancel("q", ["a"])
    await own.reply()
    await SYSTEM_CLOCK.sleep(0.05)
    assert (box.replies, box.cancels) == ([], [])
    await short.close()
    await long.close()


PARTS = st.lists(st.sampled_from(["a", "to", "lock", "unlocked", "queues", "q"]), min_size=1, max_size=3)
NAMES = PARTS.map(":".join)


@given(prefixes=st.tuples(NAMES, NAMES), given=st.tuples(NAMES, NAMES))
def test_no_two_names_are_the_same(prefixes: tuple[str, str], given: tuple[str, str]) -> None:
    def names(prefix: str, name: str) -> list[bytes]:
        return [
            queues_key(prefix),
            lock_key(prefix, name),
            lock_channel(prefix, name),
            channel_base(prefix) + mailbox(name),
            channel_base(prefix, "q") + mailbox(name),
        ]

    (one, other), (first, second) = prefixes, given
    alike = set(names(one, first)) & set(names(other, second))
    if one != other:
        assert alike == set()
    elif first != second:
        assert alike == {queues_key(one)}


@pytest.mark.parametrize("address", ["w" * 256, "ü" * 128, "with:colons", "{braces}"])
async def test_any_worker_id_that_a_queue_takes_can_be_told_to_cancel(
    storage: RedisStorage, address: str
) -> None:
    box = Box()
    await storage.subscribe("q", address, box)
    await storage.insert("q", [NewJob("a", b"", wait=True)], reply_to=address)
    [job] = (await storage.exchange("q", address, [], 1, LEASE)).jobs
    await storage.cancel("q", ["a"], running=True)
    await box.take(cancels=1)
    assert box.cancels == [("q", "a", job.fence)]


def test_a_forked_child_has_a_secret_of_its_own() -> None:
    store = RedisStorage("redis://127.0.0.1:1")
    before = store._settings.secret
    assert store.clone()._settings.secret == before
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.write(writable, store._settings.secret)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(readable, 64) != before
    os.close(readable)
    os.close(writable)
    assert store._settings.secret == before
