"""The PostgreSQL store keeps the contract."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager

from jobqueue.storage.contract import Storage
from jobqueue.testing import FakeClock, StorageContract, model_test
from tests.storage.postgres.support import postgres_storage

EXAMPLES = int(os.environ.get("JOBQUEUE_MODEL_EXAMPLES", "12"))
"""How many random programs to run: a nightly run takes 2,000."""


class TestPostgresStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return postgres_storage(clock)


TestPostgresModel = model_test(postgres_storage, max_examples=EXAMPLES)
