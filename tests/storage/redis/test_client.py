"""What users configure by redis-py: clients of theirs, credential providers, options."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.cluster import LoadBalancingStrategy
from redis.credentials import CredentialProvider

from jobqueue.errors import InvalidArgumentError, StorageError, StorageUnavailableError
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.net.login import Timeouts, connect
from jobqueue.storage.redis.net.url import parse_url
from jobqueue.storage.values import NewJob
from jobqueue.testing.contract.support import Box
from tests.services import BINARIES, Cluster, Sentinels, Server, redis_binary, unavailable
from tests.storage.redis.support import certificate


async def opened(storage: RedisStorage) -> RedisStorage:
    await storage.open()
    return storage


async def insert_and_count(storage: RedisStorage) -> int:
    await storage.open()
    try:
        await storage.insert("q", [NewJob("a", b"1")])
        return (await storage.counts("q")).queued
    finally:
        await storage.close()


def names(server: Server) -> bytes:
    listed = server.command("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    return listed


# -- clients ---------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Server], Redis]] = {
    "plain": lambda server: Redis(port=server.port),
    "text": lambda server: Redis(port=server.port, decode_responses=True),
    "RESP3": lambda server: Redis(port=server.port, protocol=3),
    "of a URL": lambda server: Redis.from_url(server.url),
    "of a pool": lambda server: Redis(connection_pool=BlockingConnectionPool(port=server.port)),
    "of a Unix socket": lambda server: Redis(unix_socket_path=server.socket_path),
    "of one connection": lambda server: Redis(port=server.port, single_connection_client=True),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
async def test_a_client_of_the_users_is_taken_and_left_alone(
    server: Server, make: Callable[[Server], Redis]
) -> None:
    client: Any = make(server)
    assert await client.ping()
    used = RedisStorage(client=client)
    assert await insert_and_count(used) == 1
    assert await client.ping()
    await client.aclose()
    await client.connection_pool.disconnect()
    assert await insert_and_count(used) == 1, "nor does the store need it"


async def test_the_user_database_and_name_of_a_client_are_used(server: Server) -> None:
    server.command("ACL", "SETUSER", "me", "on", ">p@ss", "allkeys", "allchannels", "+@all")
    client = Redis(port=server.port, username="me", password="p@ss", db=3, client_name="mine")
    storage = await opened(RedisStorage(client=client))
    await storage.insert("q", [NewJob("a", b"1")])
    listed = names(server)
    assert b"name=mine-command-" in listed
    assert b"user=me" in listed
    assert server.command("DBSIZE") == 0
    assert repr(storage) == f"RedisStorage('localhost:{server.port}/3', prefix='jq')"
    await storage.close()


async def test_a_client_of_another_event_loop_is_taken(server: Server) -> None:
    client: Any = Redis(port=server.port)
    assert await client.ping()
    storage = RedisStorage(client=client)
    assert await asyncio.to_thread(asyncio.run, insert_and_count(storage)) == 1
    await storage.open()
    assert await asyncio.to_thread(asyncio.run, insert_and_count(storage.clone())) == 1
    await storage.close()
    assert await client.ping()
    await client.aclose()


async def test_the_time_limits_of_a_client_are_used_where_the_store_is_given_none() -> None:
    client = Redis(socket_timeout=7, socket_connect_timeout=3)
    assert RedisStorage(client=client)._settings.timeouts == Timeouts(3, 7)
    assert RedisStorage(client=client, reply_timeout=2)._settings.timeouts == Timeouts(3, 2)
    assert RedisStorage(client=Redis())._settings.timeouts == Timeouts(5, 5)
    url = "redis://h?socket_timeout=7&socket_connect_timeout=3"
    assert RedisStorage(url)._settings.timeouts == Timeouts(3, 7)


async def test_keepalive_is_as_a_client_says_and_on_by_default(server: Server) -> None:
    async def options(client: Redis) -> tuple[int, int]:
        target = RedisStorage(client=client)._settings.target
        connection = await connect(target.addresses[0], target.login, "test", Timeouts(5, 5))
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        await connection.close("seen")
        return on, idle

    asked = {socket.TCP_KEEPIDLE: 17}
    assert await options(Redis(port=server.port)) == (1, 30)
    assert await options(Redis(port=server.port, socket_keepalive=True, socket_keepalive_options=asked)) == (
        1,
        17,
    )
    assert (await options(Redis(port=server.port, socket_keepalive=False)))[0] == 0
    refused = Redis(port=server.port, socket_keepalive_options={9999: 1})
    with pytest.raises(StorageUnavailableError, match="socket_keepalive_options"):
        await RedisStorage(client=refused, retry_for=0).open()


class Another(redis.asyncio.Connection):
    pass


async def log_in(connection: object) -> None: ...


REFUSED: dict[str, tuple[Any, str]] = {
    "a synchronous one": (redis.Redis(), r"is synchronous: make it by redis\.asyncio\.Redis"),
    "none": ("redis://h", r"must be a redis\.asyncio\.Redis or RedisCluster, not str"),
    "one that logs in itself": (
        Redis.from_url("redis://h", redis_connect_func=log_in),
        "credential_provider=",
    ),
    "one of a connection of its own": (
        Redis(connection_pool=redis.asyncio.ConnectionPool(connection_class=Another)),
        "another class, Another",
    ),
    "one with an unknown option": (Redis.from_url("redis://h?nonsense=1"), "nonsense"),
    "one with a bad database": (Redis(db="x"), "database that is a number"),
    "one with a time limit of nothing": (Redis(socket_timeout=0), r"^client\.socket_"),
    "one without the file of its TLS": (Redis(ssl=True, ssl_ca_certs="/does/not/exist"), "TLS files"),
    "one that reads from replicas": (Sentinel([("h", 1)]).slave_for("main"), "master_for"),
    "one without sentinels": (Sentinel([]).master_for("main"), "no sentinel"),
}


@pytest.mark.parametrize(("client", "problem"), REFUSED.values(), ids=REFUSED)
def test_clients_that_cannot_be_taken_are_refused_with_the_remedy(client: Any, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem) as raised:
        RedisStorage(client=client)
    assert raised.value.argument.startswith("client")


def test_a_client_of_fakeredis_is_refused() -> None:
    fakeredis = pytest.importorskip("fakeredis")
    with pytest.raises(InvalidArgumentError, match=r"another class, Fake.*give a url"):
        RedisStorage(client=fakeredis.FakeAsyncRedis())


def test_a_url_or_a_client_is_needed_and_not_both() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^url: .*or a client"):
        RedisStorage()
    with pytest.raises(InvalidArgumentError, match=r"^client: .*one of them"):
        RedisStorage("redis://h", client=Redis())
    with pytest.raises(InvalidArgumentError, match=r"^credential_provider: .*to the client"):
        RedisStorage(client=Redis(), credential_provider=Tokens())


def test_a_plain_url_does_not_load_redis_py() -> None:
    script = (
        "import sys; from jobqueue.storage.redis import RedisStorage; "
        "RedisStorage('redis://u:p@h:1/2'); assert 'redis' not in sys.modules; "
        "RedisStorage('redis://h?client_name=x'); assert 'redis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# -- Sentinel and clusters -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    sentinels = Sentinels(redis_binary())
    try:
        yield sentinels.start()
    finally:
        sentinels.remove()


async def test_a_client_of_sentinel_leads_to_the_master(sentinels: Sentinels) -> None:
    gone = ("127.0.0.1", 1)
    manager = Sentinel([gone, *(("127.0.0.1", node.port) for node in sentinels.sentinels)])
    client: Any = manager.master_for("main", db=2, client_name="mine")
    storage = await opened(RedisStorage(client=client))
    await storage.insert("q", [NewJob("a", b"1")])
    assert b"name=mine-command-" in names(sentinels.master)
    assert "sentinel 127.0.0.1:1," in repr(storage)
    assert "/main/2" in repr(storage)
    first = manager.sentinels[0].connection_pool.connection_kwargs
    assert first["port"] == 1, "the user's Sentinel is left alone"
    await storage.close()
    await client.aclose()


@pytest.mark.parametrize(
    ("service", "options", "problem"),
    [
        ("main", {"min_other_sentinels": 3}, "of 'main': No master found"),
        ("other", {}, "'other'.*No such master"),
    ],
)
async def test_the_rules_of_a_sentinel_hold(
    sentinels: Sentinels, service: str, options: dict[str, Any], problem: str
) -> None:
    manager = Sentinel([("127.0.0.1", sentinels.sentinels[0].port)], **options)
    storage = RedisStorage(client=manager.master_for(service), retry_for=0.2)
    with pytest.raises(StorageUnavailableError, match=problem):
        await storage.open()


async def test_the_address_that_a_sentinel_is_made_to_tell_is_used(sentinels: Sentinels) -> None:
    manager = Sentinel([("127.0.0.1", sentinels.sentinels[0].port)], force_master_ip="::1")
    storage = RedisStorage(client=manager.master_for("main"), retry_for=0)
    with pytest.raises(StorageUnavailableError, match="::1"):  # where none listens
        await storage.open()


async def test_sentinels_are_asked_with_their_own_password_and_few_rights(sentinels: Sentinels) -> None:
    node = sentinels.sentinels[0]
    node.command("ACL", "SETUSER", "asks", "on", ">pw", "-@all", "+sentinel|master", "+client|setname")
    url = f"redis+sentinel://127.0.0.1:{node.port}/main?sentinel_username=asks&sentinel_password="
    assert await insert_and_count(RedisStorage(f"{url}pw")) == 1
    with pytest.raises(StorageUnavailableError, match="WRONGPASS"):
        await RedisStorage(f"{url}wrong", retry_for=0).open()
    options = {"username": "asks", "password": "pw"}
    manager = Sentinel([("127.0.0.1", node.port)], sentinel_kwargs=options)
    assert await insert_and_count(RedisStorage(client=manager.master_for("main"))) == 1


async def test_a_client_of_a_cluster_is_taken(flavour: str) -> None:
    cluster = Cluster(BINARIES[flavour]())
    try:
        cluster.start()
        first = cluster.nodes[0].port
        client: Any = RedisCluster(
            host="127.0.0.1",
            port=first,
            client_name="mine",
            load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN,
        )
        await client.initialize()
        storage = await opened(RedisStorage(client=client))
        for i in range(20):
            await storage.insert(f"q{i}", [NewJob("a", b"1")])
        assert len(await storage.queues()) == 20
        assert all(b"name=mine-command-" in names(node) for node in cluster.nodes[:3])
        await storage.close()
        assert await client.ping()
        await client.aclose()
        await check_remap(cluster)
    finally:
        cluster.remove()


async def check_remap(cluster: Cluster) -> None:
    """The addresses of a cluster behind a translation are translated as the client of the user's does."""
    asked: list[tuple[str, int]] = []

    def remap(address: tuple[str, int]) -> tuple[str, int]:
        asked.append(address)
        return "localhost", address[1]

    client = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, address_remap=remap)
    storage = await opened(RedisStorage(client=client))
    await storage.insert("q", [NewJob("b", b"1")])
    assert asked
    assert {host for host, _ in asked} == {"127.0.0.1"}
    await storage.close()

    def broken(address: tuple[str, int]) -> tuple[str, int]:
        raise KeyError(address)

    client = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, address_remap=broken)
    with pytest.raises(StorageUnavailableError, match="address_remap"):
        await RedisStorage(client=client, retry_for=0).open()


# -- credential providers --------------------------------------------------------------------------


class Tokens(CredentialProvider):
    """Gives a new token each time, as providers for IAM and Entra do when theirs is over."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.threads: set[threading.Thread] = set()

    async def get_credentials_async(self) -> tuple[str, str]:
        self.threads.add(threading.current_thread())
        return "app", self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]


class BlockingTokens(CredentialProvider):
    """As most are written: asked synchronously, over the network."""

    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()

    def get_credentials(self) -> tuple[str, str]:
        self.threads.add(threading.current_thread())
        return "app", "one"


@pytest.fixture
def guarded(server: Server) -> Server:
    server.command("ACL", "SETUSER", "app", "on", ">one", "allkeys", "allchannels", "+@all")
    return server


async def test_each_connection_asks_for_its_credentials(guarded: Server) -> None:
    provider = Tokens("one", "two")
    storage = await opened(RedisStorage(guarded.url, credential_provider=provider))
    await storage.insert("q", [NewJob("a", b"1")])
    assert b"user=app" in names(guarded)
    assert "one" not in repr(storage)
    guarded.command("ACL", "SETUSER", "app", "resetpass", ">two")
    guarded.command("CLIENT", "KILL", "USER", "app")
    await storage.insert("q", [NewJob("b", b"1")])
    assert (await storage.counts("q")).queued == 2
    await storage.close()


async def test_a_login_that_the_server_has_ended_is_made_anew(guarded: Server) -> None:
    guarded.command("ACL", "SETUSER", "default", "resetpass", ">other")
    storage = await opened(RedisStorage(f"{guarded.url}", credential_provider=Tokens("one")))
    box = Box()
    await storage.subscribe("q", "me", box)
    assert await storage._open_session().transport.command(b"RESET") == b"RESET"
    for line in storage._open_session().pubsub._lines.values():
        assert line._connection is not None
        line._connection.post(b"RESET")
        line._connection.post(b"PING")
    assert (await storage.counts("q")).queued == 0
    async with asyncio.timeout(10):
        while not box.resyncs:
            await asyncio.sleep(0.01)
    await storage.close()


async def test_the_credential_provider_of_a_client_is_asked(guarded: Server) -> None:
    client = Redis(port=guarded.port, credential_provider=Tokens("one"))
    assert await insert_and_count(RedisStorage(client=client)) == 1


async def test_a_provider_that_blocks_is_asked_in_a_thread(guarded: Server) -> None:
    provider = BlockingTokens()
    assert await insert_and_count(RedisStorage(guarded.url, credential_provider=provider)) == 1
    assert threading.current_thread() not in provider.threads


class Leaving(BlockingTokens):
    def get_credentials(self) -> Any:
        raise SystemExit


class Failing(Tokens):
    async def get_credentials_async(self) -> Any:
        raise ValueError("token abc is over")


class Wrong(Tokens):
    async def get_credentials_async(self) -> Any:
        return "a-token"


class Silent(Tokens):
    async def get_credentials_async(self) -> Any:
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        (Failing(), "provider failed: ValueError"),
        (Leaving(), "provider failed: SystemExit"),
        (Wrong(), r"must return \(password,\)"),
        (Silent(), "no connection within"),
    ],
)
async def test_a_provider_that_fails_makes_the_store_unavailable(
    provider: CredentialProvider, problem: str
) -> None:
    storage = RedisStorage("redis://h", credential_provider=provider, retry_for=0, connect_timeout=0.05)
    with pytest.raises(StorageUnavailableError, match=problem) as raised:
        await storage.open()
    error: BaseException | None = raised.value
    while error is not None:  # nor in what a traceback shows of its origin
        assert "token" not in str(error)
        error = error.__cause__ or error.__context__


async def test_a_wrong_token_is_no_matter_of_patience(guarded: Server) -> None:
    storage = RedisStorage(guarded.url, credential_provider=Tokens("wrong"))
    with pytest.raises(StorageError, match="WRONGPASS") as raised:
        await storage.open()
    assert not isinstance(raised.value, StorageUnavailableError)


def test_a_provider_beside_a_password_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^credential_provider") as raised:
        RedisStorage("redis://u:hunter2@h", credential_provider=Tokens())
    assert "hunter2" not in str(raised.value)
    with pytest.raises(InvalidArgumentError, match=r"^credential_provider: must be a CredentialProvider"):
        RedisStorage("redis://h", credential_provider="token")  # type: ignore[arg-type]


# -- names and TLS ---------------------------------------------------------------------------------


async def test_a_name_that_the_server_refuses_keeps_nobody_out(server: Server) -> None:
    named = await opened(RedisStorage(f"{server.url}?client_name=mine"))
    assert b"name=mine-command-" in names(server)
    await named.close()
    assert await insert_and_count(RedisStorage(f"{server.url}?client_name=a%20b")) == 1


async def test_options_of_tls_are_those_of_redis_py(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    at = f"rediss://127.0.0.1:{server.port}"
    with caplog.at_level(logging.WARNING, "jobqueue.storage.redis"):
        trusting = f"{at}?ssl_ca_certs={cert}&ssl_check_hostname=no"
        for storage, unverified in (
            (RedisStorage(trusting), "host name"),
            (RedisStorage(f"{at}/1?ssl_cert_reqs=none"), "certificate"),
            (RedisStorage(client=Redis.from_url(f"{at}/2?ssl_cert_reqs=none")), "certificate"),
            (RedisStorage(client=Redis(port=server.port, ssl=True, ssl_ca_certs=cert)), ""),
        ):
            caplog.clear()
            await storage.open()
            warned = [record.message for record in caplog.records if "TLS does not" in record.message]
            assert len(warned) == bool(unverified)
            assert unverified in "".join(warned)
            await storage.close()
    server.remove()


def test_text_in_an_option_is_decoded_once() -> None:
    assert parse_url("redis://h?client_name=a%2525+b").login.name == "a%25+b"
