"""The one place where tests reach below a `FileStorage`."""

from __future__ import annotations

from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.upkeep.recovery import StoreDirectory


def core_of(store: FileStorage) -> StoreCore:
    """Return the core of an open store. Its thread uses it too: call it between turns."""
    pump = store._open_session()._pump
    assert pump is not None
    core = pump._core
    assert core is not None
    return core


def home_of(core: StoreCore) -> StoreDirectory:
    """Return the directory of a core, with its lock and its published page."""
    return core._home
