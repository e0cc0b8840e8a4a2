"""Tools for tests of jobs and of stores.

`make_job` makes the job that a handler gets::

    assert await count_words(make_job("one two")) == 2

`FakeClock` replaces the clock of a store and of every queue, worker and reaper on it::

    clock = FakeClock()
    queue = Queue(MemoryStorage(clock=clock))
    ...
    await clock.advance(30)      # half a minute passes, and everything happens that was due in it

These two need nothing but jobqueue. What follows needs the ``test`` extra.

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

import sys
from typing import TYPE_CHECKING, Any

if (pytest := sys.modules.get("pytest")) is not None:
    # The asserts of the suite are to explain themselves: pytest rewrites them if asked before their import.
    pytest.register_assert_rewrite("jobqueue.testing.contract", "jobqueue.testing.model")

from jobqueue.testing.clock import FakeClock
from jobqueue.testing.jobs import make_job

if TYPE_CHECKING:
    from jobqueue.testing.contract import StorageContract
    from jobqueue.testing.model import model_test

__all__ = ["FakeClock", "StorageContract", "make_job", "model_test"]


def __getattr__(name: str) -> Any:
    """Load the conformance suite, which needs pytest and hypothesis, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jobqueue.testing.contract import StorageContract
    from jobqueue.testing.model import model_test

    return {"StorageContract": StorageContract, "model_test": model_test}[name]
