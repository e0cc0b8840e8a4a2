"""What is pushed on a cluster: by sharded pub/sub, to the node of the queue, wherever that is now.

At this level nothing polls: what is not pushed never comes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import CancelStatus, Job, JobCancelledError, Queue
from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage, Severity
from jobqueue.storage.redis import open_store as session
from jobqueue.storage.redis.keys import mailbox
from jobqueue.storage.redis.net.cluster import ClusterNodes, slot_of
from jobqueue.storage.values import NewJob
from jobqueue.testing.contract.support import Box
from tests.services import Cluster, Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.test_security import documented_rule

NAMES = [f"q{i}" for i in range(12)]
SLOT = slot_of(b"{jq:q}:jobs")
PUSHED_WITHIN = 5.0
FOUND_WITHIN = 20.0
"""Seconds for a cluster to notice that a node is gone, and for its clients to follow."""


def channel(queue: str) -> bytes:
    return b"{jq:%b}:to:" % queue.encode() + mailbox("me")


def unlike(cluster: Cluster, node: Server) -> Server:
    return next(other for other in cluster.nodes if other is not node)


@pytest_asyncio.fixture
async def opened(cluster: Cluster) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def open(**options: Any) -> RedisStorage:
            storage = RedisStorage(cluster.url, **options)
            await storage.open()
            stack.push_async_callback(storage.close)
            return storage

        yield open


@pytest_asyncio.fixture
async def storage(opened: Callable[..., Any]) -> RedisStorage:
    storage: RedisStorage = await opened(retry_for=30.0)
    return storage


@pytest_asyncio.fixture
async def other(opened: Callable[..., Any]) -> RedisStorage:
    """Another client."""
    other: RedisStorage = await opened(retry_for=30.0)
    return other


@pytest.fixture
def _without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue.client.waiters.REREAD_INTERVAL", 300.0)


async def answer(storage: RedisStorage, queue: str = "q") -> None:
    """Run all jobs of a queue."""
    jobs = (await storage.exchange(queue, "w", [], 100, LEASE)).jobs
    assert jobs
    done = [Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000) for job in jobs]
    await storage.exchange(queue, "w", done, 0, LEASE)


async def ask(storage: RedisStorage, box: Box, id: str, queue: str = "q") -> None:
    await storage.subscribe(queue, "me", box)
    await storage.insert(queue, [NewJob(id, b"", wait=True)], reply_to="me")


async def until(condition: Callable[[], object], within: float = FOUND_WITHIN) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await SYSTEM_CLOCK.sleep(0.01)


def sent(cluster: Cluster, kind: str = "publish") -> int:
    """Say how many messages the nodes have sent each other."""
    total = 0
    for node in cluster.nodes:
        info = node.command("CLUSTER", "INFO")
        assert isinstance(info, bytes)
        found = re.search(rb"cluster_stats_messages_%b_sent:(\d+)" % kind.encode(), info)
        total += int(found[1]) if found else 0
    return total


@pytest.mark.usefixtures("_without_polling")
async def test_results_and_cancel_requests_come_without_polling(
    storage: RedisStorage, other: RedisStorage
) -> None:
    began: list[str] = []

    async def handler(job: Job[int]) -> int:
        if job.payload < 0:
            began.append(job.queue)
            await asyncio.Event().wait()
        return job.payload + 1

    async with AsyncExitStack() as stack:
        producers: dict[str, Queue[int, int]] = {}
        for name in NAMES:
            consumer: Queue[int, int] = Queue(other, name, concurrency=5)
            consumer.execute(handler)
            await stack.enter_async_context(consumer)
            producers[name] = await stack.enter_async_context(Queue(storage, name))
        for _ in range(2):
            async with asyncio.timeout(PUSHED_WITHIN):
                calls: list[Any] = [q.enqueue_and_wait(None, 1) for q in producers.values()]
                assert await asyncio.gather(*calls) == [2] * len(NAMES)
        waiting: list[Any] = [
            asyncio.create_task(q.enqueue_and_wait("endless", -1))
            for q in producers.values()  # type: ignore[arg-type]
        ]
        await until(lambda: len(began) == len(NAMES))
        async with asyncio.timeout(PUSHED_WITHIN):  # a renewal would tell the worker after 10 s
            for queue in producers.values():
                assert await queue.cancel("endless", running=True) is CancelStatus.CANCELLING
            ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {JobCancelledError}


async def test_a_release_wakes_who_waits_for_the_lock(storage: RedisStorage, other: RedisStorage) -> None:
    for lock in ("a", "b", "c", "in {braces}", "{"):
        assert await storage.lock_acquire(lock, "leader", 60_000)
        following = asyncio.create_task(other.wait_for_lock(lock, 30))
        await SYSTEM_CLOCK.sleep(0.1)
        assert not following.done()
        await storage.lock_release(lock, "leader")
        assert await asyncio.wait_for(following, PUSHED_WITHIN)


async def test_messages_stay_on_the_node_of_their_queue(
    cluster: Cluster, storage: RedisStorage, other: RedisStorage
) -> None:
    box = Box()
    for name in NAMES:
        await ask(storage, box, "a", name)
        await answer(other, name)
    await box.take(replies=len(NAMES))
    for node in cluster.nodes:
        mine = {channel(n) for n in NAMES if cluster.node_of(slot_of(b"{jq:%b}" % n.encode())) is node}
        channels, clients = node.command("PUBSUB", "SHARDCHANNELS"), node.command("CLIENT", "LIST")
        assert isinstance(channels, list)
        assert isinstance(clients, bytes)
        assert set(channels) == mine
        assert clients.count(b"name=jobqueue-pubsub-") == 1, "one connection for each node"
        assert node.command("PUBSUB", "CHANNELS") == []
    assert sent(cluster) == 0
    cluster.nodes[0].command("PUBLISH", "plain", "message")
    assert sent(cluster) == 2, "what plain messages cost is not seen here"


@pytest.mark.parametrize("flavour", ["redis"])
async def test_after_unsubscribing_no_channel_is_left(cluster: Cluster, storage: RedisStorage) -> None:
    box = Box()
    for _ in range(5):
        await storage.subscribe("q", "me", box)
        await storage.unsubscribe("q", "me", box)
    await ask(storage, box, "a")
    await answer(storage)
    await box.take(replies=1)
    await storage.unsubscribe("q", "me", box)
    await until(lambda: cluster.node_of(SLOT).command("PUBSUB", "SHARDCHANNELS") == [])


async def test_a_slot_moves_while_somebody_waits(
    cluster: Cluster, storage: RedisStorage, other: RedisStorage
) -> None:
    box, still = Box(), Box()
    await ask(storage, box, "a")
    (name, *_) = [
        n for n in NAMES if cluster.node_of(slot_of(b"{jq:%b}" % n.encode())) is cluster.node_of(SLOT)
    ]
    await ask(storage, still, "a", name)
    here = cluster.node_of(SLOT)
    for i in range(4):  # there and back
        there = unlike(cluster, here)
        await asyncio.to_thread(cluster.move_slot, SLOT, here, there)
        await until(lambda i=i: box.resyncs > i, PUSHED_WITHIN)  # type: ignore[misc]
        await answer(other)
        await box.take(replies=i + 1)
        await ask(other, Box(), f"next-{i}")
        await ask(storage, box, f"next-{i}")
        here = there
    await answer(other, name)
    assert (await still.reply()).queue == name
    assert still.resyncs == 0, "only the slot has moved, not the others of its node"


@pytest.mark.parametrize("flavour", ["valkey"])
async def test_a_subscription_goes_to_where_the_slot_is_by_now(
    cluster: Cluster, storage: RedisStorage
) -> None:
    nodes = storage._open_session()._connector
    assert isinstance(nodes, ClusterNodes)
    right = await nodes.node(SLOT)
    wrong = next(address for address in await nodes.masters() if address != right)
    box, there = Box(), Box()
    (name, *_) = [n for n in NAMES if await nodes.node(slot_of(b"{jq:%b}" % n.encode())) == wrong]
    await ask(storage, there, "a", name)
    nodes.move(SLOT, wrong)
    async with asyncio.timeout(PUSHED_WITHIN):
        await ask(storage, box, "a")
    assert await nodes.node(SLOT) == right
    await answer(storage)
    await box.take(replies=1)
    assert there.resyncs == 0, "only what was asked for goes away from the wrong node"


@pytest.mark.parametrize("known", [True, False], ids=["all-know", "only-its-node-knows"])
async def test_a_slot_that_nobody_serves_for_a_while(
    cluster: Cluster, storage: RedisStorage, other: RedisStorage, known: bool
) -> None:
    box, late, owner = Box(), Box(), cluster.nodes[-1]  # not the one that is asked where slots are
    name = next(n for n in NAMES if cluster.node_of(slot_of(b"{jq:%b}" % n.encode())) is owner)
    slot = str(slot_of(b"{jq:%b}" % name.encode()))
    await ask(storage, box, "a", name)
    for node in cluster.nodes if known else [owner]:
        node.command("CLUSTER", "DELSLOTS", slot)
    subscribing = asyncio.create_task(storage.subscribe(name, "late", late))
    await SYSTEM_CLOCK.sleep(0.3)
    assert not subscribing.done()
    owner.command("CLUSTER", "ADDSLOTS", slot)
    await asyncio.wait_for(subscribing, FOUND_WITHIN)
    await until(lambda: box.resyncs)
    await answer(other, name)
    await box.take(replies=1)


async def test_a_node_is_killed_and_comes_back_while_somebody_waits(
    cluster: Cluster, storage: RedisStorage, other: RedisStorage
) -> None:
    box, dead = Box(), cluster.node_of(SLOT)
    await ask(storage, box, "a")
    for name in NAMES:  # their names may be on the node that dies
        await storage.insert(name, [NewJob("first", b"")])
    dead.kill()
    for name in NAMES:  # the others are served meanwhile
        if cluster.node_of(slot_of(b"{jq:%b}" % name.encode())) is not dead:
            async with asyncio.timeout(PUSHED_WITHIN):
                elsewhere = Box()
                await ask(storage, elsewhere, "a", name)
                await answer(other, name)
                await elsewhere.take(replies=1)
    assert box.resyncs == 0
    await asyncio.to_thread(dead.start)
    await until(lambda: box.resyncs)
    await answer(other)
    await box.take(replies=1)


def has_all_of(replica: Any, master: Any) -> bool:
    """Return whether a replica has what its master has: WAIT tells that of one connection only."""

    def offset(server: Any) -> bytes:
        return re.findall(rb"master_repl_offset:(\d+)", server.command("INFO", "replication"))[0]

    return offset(replica) == offset(master)


async def test_a_replica_takes_over_while_somebody_waits(
    cluster: Cluster, storage: RedisStorage, other: RedisStorage
) -> None:
    box, master = Box(), cluster.node_of(SLOT)
    replica = await asyncio.to_thread(cluster.add_replica, master)
    await ask(storage, box, "a")
    await until(lambda: has_all_of(replica, master))
    master.kill()
    await until(lambda: box.resyncs)
    assert replica.command("PUBSUB", "SHARDCHANNELS") == [channel("q")]
    await answer(other)
    await box.take(replies=1)


@pytest.mark.parametrize("flavour", ["valkey"])
async def test_subscribing_at_a_dead_node_fails_in_time(cluster: Cluster, opened: Callable[..., Any]) -> None:
    storage = await opened(retry_for=0.5, connect_timeout=0.5, reply_timeout=0.5)
    cluster.node_of(SLOT).kill()
    with pytest.raises(StorageUnavailableError):
        await asyncio.wait_for(storage.subscribe("q", "me", Box()), 5)
    assert storage._open_session().pubsub._listeners == {}


@pytest.mark.parametrize("flavour", ["redis"])
async def test_nodes_without_sharded_messages_get_plain_ones(
    cluster: Cluster, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "is_modern", lambda infos: False)
    storage, other, box = await opened(), await opened(), Box()
    before = sent(cluster)
    for name in NAMES:
        await ask(storage, box, "a", name)
        await answer(other, name)
    await box.take(replies=len(NAMES))
    assert await storage.lock_acquire("lock", "leader", 60_000)
    following = asyncio.create_task(other.wait_for_lock("lock", 30))
    await SYSTEM_CLOCK.sleep(0.1)
    await storage.lock_release("lock", "leader")
    assert await asyncio.wait_for(following, PUSHED_WITHIN)
    assert sent(cluster) - before == 2 * (len(NAMES) + 1)


# -- every node is looked at -----------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["redis"])
async def test_one_evicting_node_is_enough_to_refuse(cluster: Cluster, opened: Callable[..., Any]) -> None:
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(
            StorageError, match=rf"{node.port}: maxmemory-policy is allkeys-lru.*allow_eviction"
        ):
            await opened()
        allowed = await opened(allow_eviction=True)
        findings = {finding.name: finding for finding in await allowed.diagnose()}
        assert findings["eviction"].severity is Severity.WARNING
        node.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await opened()


@pytest.mark.parametrize("flavour", ["valkey"])
async def test_a_node_that_keeps_nothing_is_warned_of(
    cluster: Cluster, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    careless, *careful = reversed(cluster.nodes)
    careless.command("CONFIG", "SET", "appendonly", "no")
    storage = await opened()
    await storage.exchange("q", "w", [], 1, LEASE)
    [warning] = [text for text in caplog.messages if "appendonly" in text]
    assert f"127.0.0.1:{careless.port}: appendonly is off" in warning
    findings = {finding.name: finding for finding in await storage.diagnose()}
    assert findings["persistence"].severity is Severity.WARNING
    assert findings["rights"].severity is Severity.OK
    assert findings["version"].text.count(" ") == 1, "alike on all: said once"
    careless.kill()
    storage = await opened(retry_for=0.5, connect_timeout=0.5, reply_timeout=0.5)
    findings = {finding.name: finding for finding in await storage.diagnose()}
    assert str(careless.port) in findings["nodes"].text
    assert findings["nodes"].severity is Severity.WARNING
    assert findings["persistence"].severity is Severity.OK
    for node in careful:
        node.kill()
    with pytest.raises(StorageUnavailableError):
        await opened(retry_for=0.1)


# -- rights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["redis"])
async def test_the_documented_rights_suffice_on_a_cluster(cluster: Cluster) -> None:
    rule = ["resetpass" if word == ">change-me" else word for word in documented_rule("acl of a cluster")]
    for node in cluster.nodes:
        node.command(*documented_rule(), ">secret")
        node.command(*rule)
    storage = RedisStorage(cluster.url.replace("://", "://jobs:secret@"))
    await storage.open()
    box = Box()
    await ask(storage, box, "a")
    await answer(storage)
    await box.take(replies=1)
    await asyncio.to_thread(
        cluster.move_slot, SLOT, cluster.node_of(SLOT), unlike(cluster, cluster.node_of(SLOT))
    )
    await until(lambda: box.resyncs)
    findings = {finding.name: finding for finding in await storage.diagnose()}
    assert findings["rights"].severity is Severity.OK, findings["rights"]
    for right in ("-spublish", "-ssubscribe"):
        for node in cluster.nodes:
            node.command("ACL", "SETUSER", "jobs", right)
        findings = {finding.name: finding for finding in await storage.diagnose()}
        assert findings["rights"].severity is Severity.WARNING, right
        assert "guides/redis.md" in findings["rights"].text
        for node in cluster.nodes:
            node.command("ACL", "SETUSER", "jobs", right.replace("-", "+"))
    await storage.close()
