"""The Redis store keeps the contract on fakeredis: quick, and where there is no server.

Every case of the kit runs. What fakeredis lacks is outside of the contract: replication and ``WAIT``,
clusters, sentinels, limits of memory, script flags, persistence. tests/storage/redis has these, on
real servers. Where these are required, the kit runs on them, and here it is left out.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest

from jobqueue.storage.contract import Storage
from jobqueue.storage.redis import RedisStorage
from jobqueue.testing import FakeClock, StorageContract, model_test
from tests.storage.redis.fake import fake_redis
from tests.storage.redis.restless import RestlessRedisStorage

pytestmark = pytest.mark.skipif(
    os.environ.get("JOBQUEUE_REQUIRE_SERVICES") == "1", reason="real servers keep the contract in this run"
)


@asynccontextmanager
async def make_storage(clock: FakeClock, kind: type[RedisStorage] = RedisStorage) -> AsyncIterator[Storage]:
    async with fake_redis() as url:
        yield kind(url, clock=clock)


class TestFakeRedisStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)


TestFakeRedisModel = model_test(partial(make_storage, kind=RestlessRedisStorage), max_examples=5)
