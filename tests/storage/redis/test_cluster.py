"""A real cluster of three nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import Confirm, NotConfirmedError, RedisStorage
from jobqueue.storage.redis.net.cluster import ClusterNodes, slot_of
from jobqueue.storage.redis.net.login import Timeouts
from jobqueue.storage.redis.net.target import Address
from jobqueue.storage.redis.net.url import parse_url
from jobqueue.storage.values import InsertStatus, NewJob
from jobqueue.testing.contract.support import Box
from tests.services import Cluster
from tests.storage.redis.load import LEASE, Load
from tests.storage.redis.support import run

SLOT = slot_of(b"{jq:q}:jobs")


@pytest_asyncio.fixture
async def storage(cluster: Cluster) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(cluster.url)
    await storage.open()
    yield storage
    await storage.close()


def test_slots() -> None:
    assert slot_of(b"123456789") == 12739  # the example of the cluster specification
    assert slot_of(b"{user1000}.following") == slot_of(b"user1000")
    assert slot_of(b"foo{}{bar}") != slot_of(b"foo{}{baz}")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")


async def test_queues_are_spread_and_work(cluster: Cluster, storage: RedisStorage) -> None:
    box = Box()
    names = [f"q{i}" for i in range(12)]
    for name in names:
        await storage.subscribe(name, "me", box)
        waiting = asyncio.create_task(storage.wait_for_work(name, "w", 30))
        await storage.insert(
            name, [NewJob("a", b"p", wait=True), NewJob("b", b"p", priority=3)], reply_to="me"
        )
        assert await asyncio.wait_for(waiting, 5)
        jobs = (await storage.exchange(name, "w", [], 5, LEASE)).jobs
        assert [job.id for job in jobs] == ["b", "a"]
        done = [Settlement(j.id, j.fence, Action.COMPLETE, b"r", 1000) for j in jobs]
        await storage.exchange(name, "w", done, 0, LEASE)
        assert await storage.check(name) == []
    await box.take(replies=len(names))
    assert await storage.queues() == sorted(names)
    assert await storage.lock_acquire("lock", "me", 1000)
    assert all(node.command("DBSIZE") for node in cluster.nodes)


@pytest.mark.parametrize("flavour", ["valkey"])
async def test_insertions_are_confirmed_by_the_node_of_their_queue(cluster: Cluster) -> None:
    disk, replica = Confirm(local_fsync=True, timeout=10), Confirm(replicas=1, timeout=0.05)
    for confirm in (disk, replica):
        storage = RedisStorage(cluster.url, confirm=confirm)
        await storage.open()
        for name in ("q0", "q1", "q2"):
            inserting = storage.insert(name, [NewJob(repr(confirm), b"")])
            if confirm is disk:
                await inserting
            else:
                with pytest.raises(NotConfirmedError, match="0 of 1 replicas"):
                    await inserting
            records = await storage.get(name, [repr(confirm)])
            assert records != [None]
        await storage.close()


async def test_a_slot_moves_under_load(cluster: Cluster, storage: RedisStorage) -> None:
    load = Load(storage, 200)
    source = cluster.node_of(SLOT)
    target = next(node for node in cluster.nodes if node is not source)
    moved = False

    async def move() -> None:
        nonlocal moved
        await SYSTEM_CLOCK.sleep(0.05)
        if moved:
            return
        moved = True
        await asyncio.to_thread(cluster.move_slot, SLOT, source, target)

    await load.run(move)
    load.verify()
    assert moved
    assert await storage.check("q") == []
    assert target.command("CLUSTER", "COUNTKEYSINSLOT", str(SLOT))


@pytest.mark.parametrize("flavour", ["redis"])
async def test_a_node_that_hangs_does_not_hold_up_the_queues_of_others(cluster: Cluster) -> None:
    storage = RedisStorage(cluster.url, connect_timeout=8.0, reply_timeout=1.0, retry_for=30.0)
    await storage.open()
    hanging = cluster.nodes[0]  # the one that is asked first
    queues = [(f"n{i}", cluster.node_of(slot_of(b"{jq:n%d}" % i))) for i in range(30)]
    stuck = next(name for name, node in queues if node is hanging)
    names = [name for name, node in queues if node is not hanging]
    for name, _ in queues:
        await storage.insert(name, [NewJob("a", b"")])
    hanging.pause()
    try:
        calling = asyncio.create_task(storage.counts(stuck))
        began = SYSTEM_CLOCK.monotonic()
        while SYSTEM_CLOCK.monotonic() - began < 4.0:  # over the end of its connection
            for name in names:
                async with asyncio.timeout(4.0):
                    assert (await storage.counts(name)).queued == 1
        assert not calling.done()
    finally:
        hanging.resume()
    assert (await asyncio.wait_for(calling, 30)).queued == 1
    await storage.close()


@pytest.mark.parametrize("flavour", ["redis"])
async def test_a_busy_node_keeps_nobody_from_opening(cluster: Cluster) -> None:
    busy, *_ = cluster.nodes
    busy.command("CONFIG", "SET", "lua-time-limit", "10")
    running = asyncio.create_task(run(busy.url, "EVAL", "while true do end", 0))
    storage = RedisStorage(cluster.url)
    try:
        await SYSTEM_CLOCK.sleep(0.2)
        await asyncio.wait_for(storage.open(), 10)
    finally:
        await asyncio.to_thread(busy.command, "SCRIPT", "KILL")
        await asyncio.wait([running])
    assert running.exception() is not None
    await storage.close()


async def test_nodes_that_have_left_are_forgotten() -> None:
    target = parse_url("redis+cluster://127.0.0.1:1")
    nodes = ClusterNodes(target, Timeouts(1.0, 1.0))
    stays, left = Address("127.0.0.1", 2), Address("127.0.0.1", 3)
    for address in (stays, left):
        nodes.link_to(address)
        nodes.suspect(address)
    nodes._forget_others({stays})
    assert (list(nodes._links), nodes._suspects) == ([(stays, "command")], {stays})


async def test_a_killed_node_concerns_only_its_queues(cluster: Cluster) -> None:
    storage = RedisStorage(cluster.url, retry_for=0.5)
    await storage.open()
    dead = cluster.node_of(SLOT)
    names = [f"n{i}" for i in range(30) if cluster.node_of(slot_of(b"{jq:n%d}" % i)) is not dead]
    for name in ("q", *names):
        await storage.insert(name, [NewJob("a", b"")])
    dead.kill()
    with pytest.raises(StorageUnavailableError):
        await storage.insert("q", [NewJob("b", b"")])
    for name in names:
        assert (await storage.counts(name)).queued == 1
    await asyncio.to_thread(dead.start)
    async with asyncio.timeout(20):
        while True:
            try:
                [answer] = await storage.insert("q", [NewJob("a", b"")])
                break
            except StorageUnavailableError:
                continue
    assert answer.status is InsertStatus.FOUND
    await storage.close()
