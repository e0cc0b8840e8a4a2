"""The file store keeps the contract: through a clone, and through a second opening of the directory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest_asyncio

from jobqueue.storage.base import Storage
from jobqueue.storage.file import FileStorage
from jobqueue.testing import FakeClock, StorageContract


@asynccontextmanager
async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
    with tempfile.TemporaryDirectory() as directory:
        yield FileStorage(Path(directory) / "store", clock=clock)


class TestFileStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)


class TestFileStorageOpenedTwice(StorageContract):
    """The other handle shares nothing but the directory, as in another process."""

    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)

    @pytest_asyncio.fixture
    async def other(self, storage: FileStorage, clock: FakeClock) -> AsyncIterator[Storage]:
        other = FileStorage(storage.path, clock=clock)
        await other.open()
        try:
            yield other
        finally:
            await other.close()
