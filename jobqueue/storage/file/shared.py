"""The parts that the clones of one `FileStorage` share."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.runtime.clock import Clock
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.disk.files import Files, fault
from jobqueue.storage.file.disk.lock import LOCK_NAME
from jobqueue.storage.file.pump import Pump
from jobqueue.storage.file.upkeep import doctor, fsck
from jobqueue.storage.file.upkeep.progress import Progress
from jobqueue.storage.file.upkeep.recovery import StoreDirectory
from jobqueue.storage.findings import Finding
from jobqueue.storage.opening import forked_error

__all__ = ["SharedPump", "StoreOptions"]


class SharedPump:
    """The pump that a store and its clones share."""

    def __init__(self, options: StoreOptions, progress: Progress | None) -> None:
        self._options = options
        self.path, self.clock = options.path, options.clock
        self.progress = progress
        self._guard = threading.Lock()
        self._users = 0
        self._pid = 0
        self._pump: Pump | None = None

    def here(self) -> SharedPump:
        """Return what clones made in this process share: not what a parent had in use when it forked."""
        if self._pid in {0, os.getpid()} or (self._pump is None and not self._guard.locked()):
            return self
        return SharedPump(self._options, self.progress)

    def acquire(self) -> Pump:
        if self._pump is not None and self._pid != os.getpid():
            raise forked_error("file", "FileStorage")
        self._pid = os.getpid()
        with self._guard:
            if self._pump is None:
                self._pump = self._start_pump()
            self._users += 1
            return self._pump

    def _start_pump(self) -> Pump:
        options = self._options
        doing = f"the file store in {options.path} could not be opened"
        try:
            return Pump(partial(options.open_core, self.progress), options.path)
        except OSError as error:
            raise fault(error, doing) from error
        except RuntimeError as error:
            raise StorageUnavailableError(f"{doing}: {error}: raise the limit of threads") from error

    def diagnose(self) -> list[Finding]:
        options = self._options
        try:
            return doctor.diagnose(options.files, options.path, options.clock, fsync=options.fsync)
        except OSError as error:
            raise StorageError(str(fault(error, f"{options.path} could not be looked at"))) from error

    def check(self, *, repair: bool) -> list[Finding]:
        options = self._options
        try:
            if not (options.path / LOCK_NAME).is_file():
                raise StorageError(f"{options.path} is not the directory of a file store")
            return (fsck.repair if repair else fsck.check)(options.files, options.path, self.progress)
        except OSError as error:
            raise StorageError(str(fault(error, f"{options.path} could not be checked"))) from error

    def release(self) -> Future[None] | None:
        """End one use; return the future to wait for if it was the last."""
        with self._guard:
            self._users -= 1
            pump = self._pump
            if self._users or pump is None:
                return None
            self._pump = None
        failed = pump.ready.done() and pump.ready.exception() is not None
        if failed:
            return None
        pump.stop()
        return pump.finished


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The arguments of a store's constructor."""

    path: Path
    clock: Clock
    fsync: bool
    force: bool
    files: Files
    rotate_at: int

    def open_core(self, progress: Progress | None) -> StoreCore:
        """Open the directory, in the pump's thread."""
        home = StoreDirectory(self.files, self.path, progress, force=self.force)
        core = StoreCore(home, self.clock, fsync=self.fsync, rotate_at=self.rotate_at)
        try:
            core.open()
        except BaseException:
            core.close()
            raise
        return core
