"""The Redis store keeps the contract, on Redis and on Valkey."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from jobqueue.runtime.ids import unique_id
from jobqueue.storage.contract import Storage
from jobqueue.storage.redis import RedisStorage
from jobqueue.testing import FakeClock, StorageContract, model_test
from tests.services import redis_url
from tests.storage.redis.restless import RestlessRedisStorage
from tests.storage.redis.support import drop_keys

EXAMPLES = int(os.environ.get("JOBQUEUE_MODEL_EXAMPLES", "20"))
"""How many random programs to run: a nightly run takes 2,000."""


@asynccontextmanager
async def make_storage(
    clock: FakeClock, flavour: str, kind: type[RedisStorage] = RedisStorage
) -> AsyncIterator[Storage]:
    url, prefix = redis_url(flavour), f"test:{unique_id()}"
    yield kind(url, prefix, clock=clock)
    await drop_keys(url, prefix)


class TestRedisStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock, "redis")


class TestValkeyStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock, "valkey")


# Scripts are flushed and replies get lost all the while; the programs use fences of all ages.
restless = partial(make_storage, kind=RestlessRedisStorage)
TestRedisModel = model_test(partial(restless, flavour="redis"), max_examples=EXAMPLES)
TestValkeyModel = model_test(partial(restless, flavour="valkey"), max_examples=EXAMPLES)
