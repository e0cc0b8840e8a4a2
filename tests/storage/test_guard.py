"""A guarded store keeps the contract of the store that it guards."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from jobqueue.storage.contract import Storage
from jobqueue.testing import FakeClock, StorageContract, model_test
from tests.storage.guard.support import guarded_memory


class TestGuardedStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return guarded_memory(clock)


TestGuardedModel = model_test(guarded_memory, max_examples=12)
