"""The memory store keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from jobqueue.storage.base import Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock, StorageContract, model_test


@asynccontextmanager
async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
    yield MemoryStorage(clock=clock)


class TestMemoryStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)


TestMemoryStorageModel = model_test(make_storage)
