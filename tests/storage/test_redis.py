"""The Redis store keeps the contract, on Redis and on Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from jobqueue.runtime import unique_id
from jobqueue.storage.base import Storage
from jobqueue.storage.redis import RedisStorage
from jobqueue.testing import FakeClock, StorageContract, model_test
from tests.redis.support import drop_keys
from tests.services import redis_url


@asynccontextmanager
async def make_storage(clock: FakeClock, flavour: str) -> AsyncIterator[Storage]:
    url, prefix = redis_url(flavour), f"test:{unique_id()}"
    yield RedisStorage(url, prefix, clock=clock)
    await drop_keys(url, prefix)


class TestRedisStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock, "redis")


class TestValkeyStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock, "valkey")


TestRedisModel = model_test(partial(make_storage, flavour="redis"))
TestValkeyModel = model_test(partial(make_storage, flavour="valkey"))
