"""The fixtures of every case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from jobqueue.storage.contract import Storage
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.contract.support import Jobs

__all__ = ["Cases"]


class Cases(ABC):
    """An empty open store with a clock that only tests move."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        """Provide an empty store that runs by ``clock``, not opened; and clean up afterwards."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest_asyncio.fixture
    async def unopened(self, clock: FakeClock) -> AsyncIterator[Storage]:
        async with self.make_storage(clock) as storage:
            yield storage

    @pytest_asyncio.fixture
    async def storage(self, unopened: Storage) -> AsyncIterator[Storage]:
        await unopened.open()
        try:
            yield unopened
        finally:
            await unopened.close()

    @pytest_asyncio.fixture
    async def other(self, storage: Storage) -> AsyncIterator[Storage]:
        """Another handle on the same jobs, as another process would have."""
        other = storage.clone()
        await other.open()
        try:
            yield other
        finally:
            await other.close()

    @pytest.fixture
    def jobs(self, storage: Storage, clock: FakeClock) -> Jobs:
        return Jobs(storage, clock)
