"""The parts for authors of stores: the contract, its values, checks, and an engine to build on.

* `Storage` is the contract: the sum of `Opening`, `Jobs`, `Work`, `Upkeep`, `Listing`, `Pushes` and `Locks`.
  `Sink` receives what a store pushes. The calls take and answer the values of ``jobqueue.storage.values``.
* `arguments` checks the arguments of each call, before anything is stored.
* Optional abilities are the protocols of ``jobqueue.storage.capabilities``; `require` asks for one.
* `TRANSITIONS`, `Settlement` and `STALLED_ERROR` are policy, which a store writes down and never decides.
* `Engine` is the state machine as plain data, `WakeUps` wakes waiters of this process: the memory store is
  both with a lock around them. `SavedJob` and `Counters` are the engine's state in a form to keep.

``docs/guides/write-a-store.md`` shows how; `jobqueue.testing.StorageContract` tests the result. Importing
this loads nothing: each name is loaded when it is asked for, and none needs a third-party package.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as `typing` has it, whose loading would take longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from jobqueue.storage.public import *  # noqa: F403 - what it lists is what this package exports
    from jobqueue.storage.public import __all__ as __all__


def __getattr__(name: str) -> Any:
    """Load the names of `jobqueue.storage.public` when one is asked for."""
    public = importlib.import_module("jobqueue.storage.public")
    if name in globals():  # a module, which is loaded by now
        return globals()[name]
    if name in {*public.__all__, "__all__"}:
        return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
