"""A memory store with virtual time, some jobs in it, and a visitor of its dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobqueue import MemoryStorage
from jobqueue.testing import FakeClock
from jobqueue.web import dashboard
from tests.everywhere import lab, pytest_generate_tests, storage
from tests.web.visitor import Visitor

__all__ = ["clock", "lab", "pytest_generate_tests", "storage", "store", "visitor"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store() -> AsyncIterator[MemoryStorage]:
    made = MemoryStorage(clock=FakeClock())
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def visitor(store: MemoryStorage) -> AsyncIterator[Visitor]:
    async with Visitor(dashboard(store)) as made:
        yield made
