"""The Redis store keeps the contract on fakeredis: its scripts are tried where no server can be installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from jobqueue.storage.base import Storage
from jobqueue.storage.redis import RedisStorage
from jobqueue.testing import FakeClock, StorageContract, model_test
from tests.redis.fake import fake_redis


@asynccontextmanager
async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
    async with fake_redis() as url:
        yield RedisStorage(url, clock=clock)


class TestFakeRedisStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)


TestFakeRedisModel = model_test(make_storage, max_examples=5)
