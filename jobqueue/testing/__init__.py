"""Tools for tests of jobs and of stores.

`make_job` makes the job that a handler gets::

    assert await count_words(make_job("one two")) == 2

`FakeClock` replaces the clock of a store and of every queue, worker and reaper on it::

    clock = FakeClock()
    queue = Queue(MemoryStorage(clock=clock))
    ...
    await clock.advance(30)      # half a minute passes, and everything happens that was due in it

`JobQueueFixture` puts the queues of an application on a store in memory, runs their jobs, and says what was
enqueued; with pytest it is the fixture ``jobqueue``::

    def test_signup(jobqueue):
        jobqueue.use(queue)
        sign_up("ann")
        jobqueue.assert_enqueued(welcome.request("ann"))
        assert jobqueue.drain_sync().completed == 1

These need nothing but jobqueue. What follows needs the ``test`` extra.

`StorageContract` is the conformance suite: every promise of `jobqueue.storage.contract` as a test, the same
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

import importlib
import sys
from typing import TYPE_CHECKING, Any

if (pytest := sys.modules.get("pytest")) is not None:
    # The asserts of the suite are to explain themselves: pytest rewrites them if asked before their import.
    pytest.register_assert_rewrite(
        "jobqueue.testing.contract",
        "jobqueue.testing.model",
        "jobqueue.testing.compared_store",
        "jobqueue.testing.programs",
    )

from jobqueue.testing.clock import FakeClock
from jobqueue.testing.jobs import make_job

if TYPE_CHECKING:
    from jobqueue.testing.contract import StorageContract
    from jobqueue.testing.fixture import Enqueued, JobQueueFixture
    from jobqueue.testing.model import model_test

__all__ = ["Enqueued", "FakeClock", "JobQueueFixture", "StorageContract", "make_job", "model_test"]


_ON_DEMAND = {
    "Enqueued": "jobqueue.testing.fixture",
    "JobQueueFixture": "jobqueue.testing.fixture",
    "StorageContract": "jobqueue.testing.contract",
    "model_test": "jobqueue.testing.model",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for: the conformance suite needs pytest and hypothesis."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)
