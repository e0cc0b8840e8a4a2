"""Servers that a test may break: each gets its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from jobqueue.storage.redis import RedisStorage
from tests.services import BINARIES, Cluster, Server


@pytest.fixture(params=["redis", "valkey"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start_server(flavour: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*options: str, **more: object) -> Server:
        server = Server(BINARIES[flavour](), *options, **more)  # type: ignore[arg-type]
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


@pytest.fixture
def cluster(flavour: str) -> Iterator[Cluster]:
    cluster = Cluster(BINARIES[flavour]())
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest_asyncio.fixture
async def storage(server: Server) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(server.url)
    await storage.open()
    yield storage
    await storage.close()
