"""Connections: cancellation, addresses, TLS, and what is never shown."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from jobqueue import Job, Queue
from jobqueue.errors import InvalidArgumentError, StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.net.connection import Connection, ReplyError
from jobqueue.storage.redis.net.faults import ConnectionLostError
from jobqueue.storage.redis.net.login import Timeouts, connect
from jobqueue.storage.redis.net.pubsub import PubSub
from jobqueue.storage.redis.net.routes import SingleRoute
from jobqueue.storage.redis.net.target import Address, Login
from jobqueue.storage.redis.net.url import parse_url
from jobqueue.storage.values import NewJob
from tests.services import Server, redis_binary, unavailable
from tests.storage.redis.load import LEASE
from tests.storage.redis.support import certificate, raw_connection


async def test_a_cancelled_call_never_hands_its_reply_to_another(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{i}", b"%d" % i) for i in range(100)])
    choice = random.Random(1)

    async def read(i: int) -> None:
        for _ in range(20):
            [record] = await storage.get("q", [f"{i}"], payload=True)
            assert record is not None
            assert record.payload == b"%d" % i

    tasks = [asyncio.create_task(read(i)) for i in range(100)]
    victims = tasks[::2]
    while victims:
        await asyncio.sleep(0)
        victims.pop(choice.randrange(len(victims))).cancel()
    await asyncio.gather(*tasks[1::2])


async def test_a_cancelled_claim_is_given_back(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    for turns in range(6):
        claiming = asyncio.create_task(storage.exchange("q", "w", [], 1, LEASE))
        for _ in range(turns):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        async with asyncio.timeout(5):
            while not (await storage.counts("q")).queued:
                await asyncio.sleep(0)
    [job] = (await storage.exchange("q", "w", [], 1, LEASE)).jobs
    assert job.attempts == 1


async def test_closing_ends_what_is_under_way(server: Server) -> None:
    storage = RedisStorage(server.url)
    await storage.open()
    server.command("CLIENT", "PAUSE", "2000", "ALL")
    calls = [asyncio.create_task(storage.counts("q")) for _ in range(3)]
    waiting = asyncio.create_task(storage.wait_for_work("q", "w", 30))
    await asyncio.sleep(0)
    await asyncio.wait_for(storage.close(), 5)
    done, _ = await asyncio.wait([*calls, waiting], timeout=5)
    assert len(done) == 4
    for call in calls:
        assert isinstance(call.exception(), StorageError)


async def test_unix_sockets_and_databases(server: Server) -> None:
    one = RedisStorage(f"unix://{server.socket_path}?db=3")
    two = RedisStorage(f"valkey://127.0.0.1:{server.port}/3")
    await one.open()
    await two.open()
    await one.insert("q", [NewJob("a", b"")])
    assert (await two.counts("q")).queued == 1
    assert server.command("DBSIZE") == 0
    await one.close()
    await two.close()


async def test_connections_have_names(server: Server, storage: RedisStorage) -> None:
    listed = server.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    assert b"name=jobqueue-command-" in listed


async def test_a_password_is_used_and_never_shown(start_server: Callable[..., Server]) -> None:
    server = start_server("--requirepass", "p@ss word")
    right = RedisStorage(f"redis://:p%40ss%20word@127.0.0.1:{server.port}")
    await right.open()
    assert "p@ss" not in repr(right)
    assert "p%40ss" not in repr(right)
    await right.close()
    for url in (f"redis://:wrong-one@127.0.0.1:{server.port}", server.url):
        wrong = RedisStorage(url)
        with pytest.raises(StorageError, match="password") as raised:
            await wrong.open()
        assert not isinstance(raised.value, StorageUnavailableError)
        assert "wrong-one" not in str(raised.value)


@pytest.mark.parametrize("prefix", ["", "a b", "a{b}", "a*", "x" * 65, None])
def test_bad_prefixes_are_refused(prefix: object) -> None:
    with pytest.raises(InvalidArgumentError, match="prefix"):
        RedisStorage("redis://localhost", prefix)  # type: ignore[arg-type]


async def test_tls_verifies_the_certificate_and_the_host_name(tmp_path: Path) -> None:
    certificate(tmp_path, "DNS:localhost")
    cert = str(tmp_path / "cert.pem")
    server = Server(
        redis_binary(), "--tls-cert-file", cert, "--tls-key-file", str(tmp_path / "key.pem"),
        "--tls-ca-cert-file", cert, "--tls-auth-clients", "no", tls=True,
    )  # fmt: skip
    try:
        server.start()
    except RuntimeError as error:
        if "tls" not in str(error).lower():
            raise
        unavailable("a redis-server with TLS")
    right = RedisStorage(f"rediss://localhost:{server.port}?ssl_ca_certs={cert}")
    await right.open()
    await right.insert("q", [NewJob("a", b"x" * 100_000)])
    [job] = (await right.exchange("q", "w", [], 1, LEASE)).jobs
    assert len(job.payload) == 100_000
    await right.exchange("q", "w", [Settlement("a", job.fence, Action.COMPLETE)], 0, LEASE)
    await right.close()
    for url in (
        f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={cert}",  # not a name of the certificate
        f"rediss://localhost:{server.port}",  # signed by nobody who is trusted
    ):
        wrong = RedisStorage(url, retry_for=0.1)
        with pytest.raises(StorageUnavailableError, match=r"(?i)certificate"):
            await wrong.open()
    assert isinstance(parse_url("rediss://localhost").login.tls, ssl.SSLContext)
    server.remove()


class Deaf:
    """A listener that nobody tells anything."""

    def message(self, data: bytes) -> None: ...

    def resync(self) -> None: ...

    def close(self) -> None: ...


async def test_an_outage_of_pushed_replies_is_told_once(
    start_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server, tries = start_server(), 0

    async def connect(_name: str) -> Connection:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise ConnectionLostError("nobody there")
        return await raw_connection(server.url)

    hub = PubSub(SingleRoute(connect), 10.0)
    with caplog.at_level(logging.INFO, "jobqueue.storage.redis"):
        await hub.subscribe(b"channel", Deaf())
    await hub.close()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "replies are not pushed now, waiters poll instead: nobody there"),
        ("INFO", "replies are pushed again"),
    ]


async def test_a_host_name_that_is_none_is_an_error_of_the_package() -> None:
    with pytest.raises(ConnectionLostError):
        await connect(Address("a..b", 1), Login(), "name", Timeouts(1, 1))


def test_what_a_server_says_is_shown_in_one_line_of_text() -> None:
    assert str(ReplyError("ERR \x1b]0;owned\x07\nINFO forged")) == r"ERR \x1b]0;owned\x07\nINFO forged"
    assert str(ReplyError("ERR unknown command 'AUTH', with args beginning with: 'u' 'pw'")).endswith(
        "'AUTH'"
    )
    assert str(ReplyError("ERR größer")) == "ERR größer"


# -- event loops -----------------------------------------------------------------------------------


async def count(storage: RedisStorage) -> int:
    await storage.open()
    try:
        return (await storage.counts("q")).queued
    finally:
        await storage.close()


def test_a_store_may_be_opened_in_one_event_loop_after_another(server: Server) -> None:
    storage = RedisStorage(server.url)
    assert [asyncio.run(count(storage)) for _ in range(2)] == [0, 0]


def test_a_store_that_a_dead_event_loop_left_open_can_be_opened_and_closed(server: Server) -> None:
    storage = RedisStorage(server.url)
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # of what was left open
        asyncio.run(storage.open())
        with pytest.raises(StorageError, match="another event loop"):
            asyncio.run(storage.counts("q"))
        assert asyncio.run(count(storage)) == 0
        asyncio.run(storage.open())
        asyncio.run(storage.close())
        gc.collect()
    with pytest.raises(StorageError, match="not open"):
        asyncio.run(storage.counts("q"))


async def test_use_from_another_event_loop_is_refused_with_the_remedy(storage: RedisStorage) -> None:
    for use in (storage.counts("q"), storage.open(), storage.close()):
        with pytest.raises(StorageError, match=r"another event loop.*clone\(\)"):
            await asyncio.to_thread(asyncio.run, use)
    assert await asyncio.to_thread(asyncio.run, count(storage.clone())) == 0
    assert (await storage.counts("q")).queued == 0


def clients(server: Server) -> int:
    """Count the connections to a server, but for the one that asks."""
    listed = server.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    return len(listed.splitlines()) - 1


async def test_a_queue_more_costs_one_connection_more(server: Server, storage: RedisStorage) -> None:
    """Its wait for work: calls, pushes and renewals travel with those of the other queues."""

    async def handler(job: Job[int]) -> int:
        return job.payload

    queues: list[Queue[int, int]] = [Queue(storage, f"q{n}") for n in range(4)]
    connections: list[int] = []
    try:
        for queue in queues:
            queue.execute(handler)
            await queue.start()
            assert await queue.enqueue_and_wait("a", 1) == 1
            # The heartbeat of the first queue connects, and every worker waits for work.
            wanted = connections[-1] + 1 if connections else 4
            async with asyncio.timeout(10):
                while (count := clients(server)) < wanted:
                    await asyncio.sleep(0.01)
            connections.append(count)
    finally:
        for queue in queues:
            await queue.stop()
    # Calls, pushes, heartbeat, and the wait for work of each queue.
    assert connections == [4, 5, 6, 7]
