"""The Redis store keeps the contract on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from jobqueue.storage.contract import Storage
from jobqueue.storage.redis import RedisStorage
from jobqueue.testing import FakeClock, StorageContract
from tests.services import shared_cluster


@asynccontextmanager
async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
    cluster = shared_cluster("redis")
    yield RedisStorage(cluster.url, clock=clock)
    for node in cluster.nodes:
        node.command("FLUSHALL")


class TestRedisClusterStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)
