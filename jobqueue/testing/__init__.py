"""Tools for tests of jobs and of stores. Needs the ``test`` extra.

`FakeClock` replaces the clock of a store and of every queue, worker and reaper on it::

    clock = FakeClock()
    queue = Queue(MemoryStorage(clock=clock))
    ...
    await clock.advance(30)      # half a minute passes, and everything happens that was due in it

`StorageContract` is the conformance suite: every promise of `jobqueue.storage.base` as a test, the same
for every store. A store of your own is tested like this::

    from contextlib import asynccontextmanager
    from jobqueue.testing import StorageContract, model_test

    @asynccontextmanager
    async def make_storage(clock):
        yield MyStorage(..., clock=clock)     # empty, not opened; clean up after the yield

    class TestMyStorage(StorageContract):
        def make_storage(self, clock):
            return make_storage(clock)

    TestMyStorageModel = model_test(make_storage)

`model_test` runs random programs on the store and on a plain reference, and compares every answer.

The store must run by the clock it is given: only its ``time()`` decides what is due or expired. Blocking
calls and pushed messages may go by real time; the suite waits for them with real bounds.
"""

from __future__ import annotations

import pytest

from jobqueue.testing.clock import FakeClock

# Their asserts are to explain themselves, so they are rewritten: that has to be asked for first.
pytest.register_assert_rewrite("jobqueue.testing.contract", "jobqueue.testing.model")

from jobqueue.testing.contract import StorageContract  # noqa: E402
from jobqueue.testing.model import model_test  # noqa: E402

__all__ = ["FakeClock", "StorageContract", "model_test"]
