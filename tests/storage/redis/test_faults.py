"""What breaks on the way to the server, or in it, and what a user sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jobqueue.errors import QueueFullError, StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import InsertStatus, NewJob, SettleStatus
from jobqueue.testing.contract.support import Box
from tests.services import Server, free_port
from tests.storage.redis.load import LEASE, Load
from tests.storage.redis.proxy import chaos_proxy
from tests.storage.redis.support import raw_connection


async def test_flushed_scripts_are_sent_again(server: Server, storage: RedisStorage) -> None:
    connection = await raw_connection(server.url)
    flushes = 0

    async def flush() -> None:
        nonlocal flushes
        await connection.send("SCRIPT", "FLUSH")
        flushes += 1

    load = Load(storage, 200)
    await load.run(flush)
    await connection.close("done")
    load.verify()
    assert flushes > 20
    assert await storage.check("q") == []


@pytest.mark.parametrize("kind", ["command", "blocking", "pubsub"])
async def test_killed_connections_are_replaced(server: Server, storage: RedisStorage, kind: str) -> None:
    killer = await raw_connection(server.url, "killer")
    box, kills = Box(), 0
    await storage.subscribe("q", "me", box)

    async def kill() -> None:
        nonlocal kills
        for line in (await killer.send("CLIENT", "LIST")).decode().splitlines():
            fields = dict(field.partition("=")[::2] for field in line.split())
            if fields["name"].startswith(f"jobqueue-{kind}-"):
                kills += await killer.send("CLIENT", "KILL", "ID", fields["id"])
        await SYSTEM_CLOCK.sleep(0.01)

    load = Load(storage, 200)
    await load.run(kill)
    load.verify()
    assert await storage.check("q") == []
    if kind == "blocking":  # the work may be done before anybody has to wait for it
        waiting = asyncio.create_task(storage.wait_for_work("q", "w", 30))
        while not kills:
            await kill()
        await storage.insert("q", [NewJob("last", b"")])
        assert await asyncio.wait_for(waiting, 10)
    assert kills > 0
    await killer.close("done")


async def test_after_a_lost_subscription_sinks_are_told_and_replies_come_again(
    server: Server, storage: RedisStorage
) -> None:
    box = Box()
    await storage.subscribe("q", "me", box)
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    async with asyncio.timeout(10):
        while not box.resyncs:
            await SYSTEM_CLOCK.sleep(0.01)
    await storage.insert("q", [NewJob("a", b"", wait=True)], reply_to="me")
    [job] = (await storage.exchange("q", "w", [], 1, LEASE)).jobs
    await storage.exchange("q", "w", [Settlement("a", job.fence, Action.COMPLETE, b"1", 1000)], 0, LEASE)
    assert (await box.reply()).data == b"1"


async def test_a_paused_server_only_delays(server: Server) -> None:
    storage = RedisStorage(server.url, reply_timeout=0.1)
    await storage.open()
    server.command("CLIENT", "PAUSE", "700", "ALL")
    load = Load(storage, 20)
    await load.run(lambda: SYSTEM_CLOCK.sleep(0.05))
    load.verify()
    await storage.close()


@pytest.mark.parametrize("flags", [True, False])
async def test_a_full_server_refuses_new_jobs_and_finishes_old_ones(
    server: Server, storage: RedisStorage, *, flags: bool
) -> None:
    transport = storage._open_session().transport
    if flags and not transport.flags:
        pytest.skip("this server does not know flags")
    # Without flags the server treats scripts as versions before 7.0 do.
    transport.flags = flags
    await storage.insert("q", [NewJob(f"old-{i}", b"x" * 1000) for i in range(200)])
    claimed = (await storage.exchange("q", "w", [], 50, LEASE)).jobs
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(QueueFullError, match="maxmemory"):
        await storage.insert("q", [NewJob("new", b"")])
    settlements = [Settlement(j.id, j.fence, Action.COMPLETE, b"r", 60_000) for j in claimed]
    drained = 0
    while settlements:
        answer = await storage.exchange("q", "w", settlements, 50, LEASE)
        assert set(answer.settled) == {SettleStatus.ACCEPTED}
        drained += len(settlements)
        settlements = [Settlement(j.id, j.fence, Action.FAIL, b"{}", 60_000) for j in answer.jobs]
    assert drained == 200
    assert await storage.get("q", ["new"]) == [None]
    assert await storage.check("q") == []
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert (await storage.insert("q", [NewJob("new", b"")]))[0].status is InsertStatus.CREATED


async def test_a_crash_loses_nothing_acknowledged_with_aof_always(
    start_server: Callable[..., Server],
) -> None:
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    storage = RedisStorage(server.url)
    await storage.open()
    crashes = 0

    async def crash() -> None:
        nonlocal crashes
        await SYSTEM_CLOCK.sleep(0.005)
        if crashes < 3 and len(load.accepted) > 70 * (crashes + 1):
            crashes += 1
            server.kill()
            await asyncio.to_thread(server.start)

    load = Load(storage, 300)
    await load.run(crash)
    load.verify()
    assert crashes == 3
    assert await storage.check("q") == []
    await storage.close()


async def test_a_crash_without_persistence_loses_all_and_hangs_nothing(server: Server) -> None:
    storage = RedisStorage(server.url)
    await storage.open()
    await storage.insert("q", [NewJob("a", b"")])
    before = (await storage.exchange("q", "w", [], 1, LEASE)).jobs[0]
    server.kill()
    server.start()
    assert await storage.get("q", ["a"]) == [None]
    assert await storage.queues() in ([], ["q"])  # a worker that waits adds its queue again
    lost = await storage.exchange("q", "w", [Settlement("a", before.fence, Action.COMPLETE)], 1, LEASE)
    assert (lost.settled, lost.jobs) == ([SettleStatus.LOST], [])
    await storage.insert("q", [NewJob("a", b"")])
    after = (await storage.exchange("q", "w", [], 1, LEASE)).jobs[0]
    assert after.fence > before.fence  # numbers never repeat, even though the counter is gone
    assert await storage.queues() == ["q"]
    await storage.close()


async def test_replies_in_single_bytes(server: Server) -> None:
    async with chaos_proxy(server.port) as proxy:
        proxy.drip = True
        storage = RedisStorage(proxy.url)
        await storage.open()
        load = Load(storage, 20)
        await load.run(lambda: SYSTEM_CLOCK.sleep(0.05))
        load.verify()
        await storage.close()


@pytest.mark.parametrize("cut_at", [0, 1, 20])
async def test_calls_whose_reply_is_cut_off_are_repeated_without_effect(server: Server, cut_at: int) -> None:
    async with chaos_proxy(server.port) as proxy:
        storage = RedisStorage(proxy.url)
        await storage.open()
        proxy.cut_at = cut_at

        def cut() -> None:
            proxy.cut_replies = 1

        cut()
        jobs = [NewJob("a", b"1"), NewJob("a", b"2"), NewJob("b", b"3", delay=60_000)]
        statuses = [one.status for one in await storage.insert("q", jobs)]
        assert statuses == [InsertStatus.CREATED, InsertStatus.FOUND, InsertStatus.CREATED]
        cut()
        [job] = (await storage.exchange("q", "w", [], 5, LEASE)).jobs
        assert (job.id, job.payload, job.attempts) == ("a", b"1", 1)
        cut()
        settlements = [Settlement("a", job.fence, Action.RELEASE), Settlement("b", 1, Action.COMPLETE)]
        answer = await storage.exchange("q", "w", settlements, 5, LEASE)
        assert answer.settled == [SettleStatus.ACCEPTED, SettleStatus.LOST]
        assert [(j.id, j.attempts) for j in answer.jobs] == [("a", 1)]
        cut()
        assert await storage.lock_acquire("lock", "me", 1000) is not None
        assert proxy.cuts == 4
        assert await storage.check("q") == []
        await storage.close()


async def test_cutting_replies_again_and_again(server: Server) -> None:
    async with chaos_proxy(server.port) as proxy:
        storage = RedisStorage(proxy.url)
        await storage.open()
        proxy.cut_every = 9
        load = Load(storage, 200)
        await load.run(lambda: SYSTEM_CLOCK.sleep(0.05))
        load.verify()
        assert proxy.cuts > 5
        assert await storage.check("q") == []
        await storage.close()


async def test_a_silent_server_is_given_up(server: Server) -> None:
    async with chaos_proxy(server.port) as proxy:
        storage = RedisStorage(proxy.url, retry_for=0.5, connect_timeout=0.3, reply_timeout=0.2)
        await storage.open()
        proxy.swallow = True
        with pytest.raises(StorageUnavailableError):
            await asyncio.wait_for(storage.counts("q"), 5)
        proxy.swallow = False
        assert (await storage.counts("q")).queued == 0
        await storage.close()


async def test_an_unreachable_server_is_reported(flavour: str) -> None:
    storage = RedisStorage(f"redis://user:secret@127.0.0.1:{free_port()}/0", retry_for=0.2)
    with pytest.raises(StorageUnavailableError) as raised:
        await asyncio.wait_for(storage.open(), 5)
    assert "secret" not in str(raised.value)
    with pytest.raises(StorageError, match="open"):
        await storage.counts("q")


async def test_a_master_that_became_a_replica_is_waited_for(server: Server) -> None:
    storage = RedisStorage(server.url, retry_for=0.3)
    await storage.open()
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    with pytest.raises(StorageUnavailableError, match="READONLY"):
        await storage.insert("q", [NewJob("a", b"")])
    server.command("REPLICAOF", "NO", "ONE")
    assert (await storage.insert("q", [NewJob("a", b"")]))[0].status is InsertStatus.CREATED
    await storage.close()


async def test_a_busy_server_is_waited_for(server: Server, storage: RedisStorage) -> None:
    server.command("CONFIG", "SET", "lua-time-limit", "10")
    connection = await raw_connection(server.url)
    endless = connection.send("EVAL", "while true do end", 0)
    inserting = asyncio.create_task(storage.insert("q", [NewJob("a", b"")]))
    await SYSTEM_CLOCK.sleep(0.2)
    assert not inserting.done()
    server.command("SCRIPT", "KILL")
    assert (await inserting)[0].status is InsertStatus.CREATED
    with pytest.raises(Exception, match="killed"):
        await endless
    await connection.close("done")


async def test_foreign_keys_are_reported_as_such(server: Server, storage: RedisStorage) -> None:
    server.command("SET", "{jq:q}:jobs", "mine")
    with pytest.raises(StorageError, match="another prefix"):
        await storage.insert("q", [NewJob("a", b"")])


async def test_too_many_clients_are_reported(server: Server) -> None:
    connection = await raw_connection(server.url)
    server.command("CONFIG", "SET", "maxclients", "1")
    storage = RedisStorage(server.url, retry_for=0.2)
    with pytest.raises(StorageUnavailableError, match="max number of clients"):
        await storage.open()
    await connection.close("done")
