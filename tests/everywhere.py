"""Every kind of store, real servers included, for features that must be the same on all of them.

The `conftest.py` of a room that has such tests imports these fixtures in place of those of `tests.stores`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from jobqueue import Storage
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.redis import RedisStorage
from tests.services import redis_url
from tests.storage.postgres.support import postgres_storage
from tests.storage.redis.support import drop_keys
from tests.stores import STORES, Directory, clock, lab, virtual

__all__ = ["clock", "lab", "pytest_generate_tests", "storage"]


@asynccontextmanager
async def redis_store(_directory: Directory, flavour: str) -> AsyncIterator[Storage]:
    url, prefix = redis_url(flavour), f"test:{unique_id()}"
    yield RedisStorage(url, prefix)
    await drop_keys(url, prefix)


@asynccontextmanager
async def postgres_store(_directory: Directory) -> AsyncIterator[Storage]:
    async with postgres_storage() as store:
        yield store


EVERYWHERE = {
    **{name: STORES[name] for name in ("memory", "file")},
    "redis": partial(redis_store, flavour="redis"),
    "valkey": partial(redis_store, flavour="valkey"),
    "postgres": postgres_store,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        names = ["virtual"] if "clock" in metafunc.fixturenames else list(EVERYWHERE)
        metafunc.parametrize("storage", names, indirect=True)


@pytest.fixture
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """An empty store, open until the end of the test."""
    if request.param == "virtual":
        store = virtual(request.getfixturevalue("clock"))
    else:
        store = EVERYWHERE[request.param](lambda: request.getfixturevalue("tmp_path"))
    async with store as made:
        await made.open()
        try:
            yield made
        finally:
            await made.close()
