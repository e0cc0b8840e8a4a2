"""The stores that processes share, and processes on them. Every test here runs on each store.

``JOBQUEUE_LIFECYCLE=full`` adds Valkey and larger counts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from jobqueue import PostgresStorage, Queue, Reaper, open_storage
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import Start
from tests.services import BINARIES, Server
from tests.storage.postgres.server import PostgresServer

FULL = os.environ.get("JOBQUEUE_LIFECYCLE") == "full"
SERVERS = ["redis", "valkey"] if FULL else ["redis"]


class Shared(Protocol):
    """A store of the test's own that processes share."""

    url: str

    def freeze(self) -> None:
        """Let nobody get an answer from it."""

    def thaw(self) -> None:
        """Let it answer again."""


class FileStore:
    def __init__(self, path: Path) -> None:
        self.url = f"file://{path}"
        self._path = path
        self._held: int | None = None

    def freeze(self) -> None:
        self._held = os.open(self._path / "lock", os.O_RDWR)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def thaw(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


class ServerStore:
    def __init__(self, server: Server) -> None:
        self.url = server.url
        self._server = server

    def freeze(self) -> None:
        self._server.pause()

    def thaw(self) -> None:
        self._server.resume()


class PostgresStore:
    """A server of its own for the tests that freeze it; each store has a schema of its own."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.url = f"{server.url}&schema=test-{unique_id()}"
        asyncio.run(PostgresStorage(self.url).apply_schema())

    def freeze(self) -> None:
        self._server.pause()

    def thaw(self) -> None:
        self._server.resume()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer().start()
    yield server
    server.remove()


@pytest.fixture(scope="session", params=SERVERS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Server]]:
    """Servers by flavour, started when first asked for. Not those of other tests: they are frozen here."""
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.remove()


@pytest.fixture(params=["file", *SERVERS, "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, servers: dict[str, Server]) -> Iterator[Shared]:
    """An empty store, once of each kind."""
    kind = str(request.param)
    if kind == "file":
        made: Shared = FileStore(tmp_path / "store")
    elif kind == "postgres":
        made = PostgresStore(request.getfixturevalue("postgres"))
    else:
        if kind not in servers:
            servers[kind] = Server(BINARIES[kind]()).start()
        servers[kind].command("FLUSHALL")
        made = ServerStore(servers[kind])
    yield made
    made.thaw()


@pytest_asyncio.fixture
async def start(shared: Shared) -> AsyncIterator[Start]:
    starter = Start(shared.url)
    yield starter
    shared.thaw()
    await starter.end()


@pytest_asyncio.fixture
async def storage(shared: Shared, start: Start) -> AsyncIterator[Storage]:
    """This process's own handle, open."""
    made = open_storage(shared.url)
    await made.open()
    yield made
    shared.thaw()
    await made.close()


@pytest_asyncio.fixture
async def queue(storage: Storage) -> AsyncIterator[Queue[Any, Any]]:
    """The producer of queue ``q``."""
    async with Queue[Any, Any](storage, "q") as made:
        yield made


@pytest_asyncio.fixture
async def reaper(storage: Storage) -> AsyncIterator[Reaper]:
    """A reaper in this process that sweeps often."""
    async with Reaper(storage, sweep_interval=0.2) as made:
        yield made
