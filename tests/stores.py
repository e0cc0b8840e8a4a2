"""Stores, queues and reapers of the tests that see these from outside.

The `conftest.py` of a room that has such tests imports them.

A test that asks for ``clock`` moves virtual time, so it runs on the memory store alone; any other runs on
every store of `STORES`. To add one: a function that gets a function which makes a fresh directory, and
provides an unopened, empty store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from jobqueue import FileStorage, Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.support import ArrivalStorage, Lab, Reapers, WireStorage, opened, within

Directory = Callable[[], Path]


@asynccontextmanager
async def memory_store(_directory: Directory) -> AsyncIterator[Storage]:
    yield MemoryStorage()


@asynccontextmanager
async def wire_store(_directory: Directory) -> AsyncIterator[Storage]:
    yield WireStorage(MemoryStorage())


@asynccontextmanager
async def arrival_store(_directory: Directory) -> AsyncIterator[Storage]:
    yield ArrivalStorage(MemoryStorage())


@asynccontextmanager
async def file_store(directory: Directory) -> AsyncIterator[Storage]:
    yield FileStorage(directory(), fsync=False)


STORES: dict[str, Callable[[Directory], AbstractAsyncContextManager[Storage]]] = {
    "memory": memory_store,  # in real time, with leases renewed from a thread
    "file": file_store,
    "wire": wire_store,  # merged calls, each of which takes turns of the loop
    "arrival": arrival_store,  # the same, and jobs that come with a wake-up
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        names = ["virtual"] if "clock" in metafunc.fixturenames else ["virtual", *STORES]
        metafunc.parametrize("storage", names, indirect=True)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """An empty store, open until the end of the test."""
    if request.param == "virtual":
        store: AbstractAsyncContextManager[Storage] = virtual(request.getfixturevalue("clock"))
    else:
        store = STORES[request.param](lambda: request.getfixturevalue("tmp_path"))
    async with store as storage:
        await storage.open()
        try:
            yield storage
        finally:
            await storage.close()


@asynccontextmanager
async def virtual(clock: FakeClock) -> AsyncIterator[Storage]:
    yield MemoryStorage(clock=clock)


@pytest.fixture
async def lab(storage: Storage) -> AsyncIterator[Lab]:
    lab = Lab(storage)
    yield lab
    await lab.close()


@pytest.fixture
async def wire(clock: FakeClock) -> AsyncIterator[WireStorage]:
    async with opened(WireStorage(MemoryStorage(clock=clock))) as storage:
        yield storage


@pytest.fixture
async def reapers(wire: WireStorage) -> AsyncIterator[Reapers]:
    reapers = Reapers(wire)
    yield reapers
    wire.heal()
    for reaper in reapers.made:
        await within(reaper.stop())
