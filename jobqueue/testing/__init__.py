"""What tests of jobs, and of stores, are built with. Needs the ``test`` extra: ``jobqueue[test]``.

`FakeClock` replaces the clock of a store and of every queue, worker and reaper on it::

    clock = FakeClock()
    queue = Queue(MemoryStorage(clock=clock))
    ...
    await clock.advance(30)      # half a minute passes, and everything happens that was due in it

`StorageContract` is the conformance suite: every promise of `jobqueue.storage.base` as a test, the same
for every store. A store of your own is tested like this::

    from contextlib import asynccontextmanager
    from jobqueue.testing import StorageContract

    @asynccontextmanager
    async def make_storage(clock):
        yield MyStorage(..., clock=clock)     # empty, not opened; clean up after the yield

    class TestMyStorage(StorageContract):
        def make_storage(self, clock):
            return make_storage(clock)

The store must run by the clock it is given: only its ``time()`` decides what is due or expired. Blocking
calls and pushed messages may go by real time; the suite waits for them with real bounds.
"""

from __future__ import annotations

import pytest

from jobqueue.testing.clock import FakeClock

pytest.register_assert_rewrite("jobqueue.testing.contract")

from jobqueue.testing.contract import StorageContract  # noqa: E402 - after the rewriting of its asserts is asked for

__all__ = ["FakeClock", "StorageContract"]
