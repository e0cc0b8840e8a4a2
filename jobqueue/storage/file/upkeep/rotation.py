"""Bounds the growth of a store: begins new journals and compacts the ones before.

A rotation makes the next journal, seals the current one and goes on; it takes a few milliseconds, however
much the store holds. Sealed journals never change again, so compacting needs no lock: another process
reads the newest snapshot and the sealed journals, writes the resulting state as the next snapshot, and
removes them. If it dies, the next one starts over.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from jobqueue.errors import StorageError
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.frames import HEADER_SIZE
from jobqueue.storage.file.disk.journal import Journal, journal_name
from jobqueue.storage.file.disk.lock import COMPACT_LOCK, LockFile
from jobqueue.storage.file.upkeep.recovery import StoreDirectory, seal
from jobqueue.storage.file.upkeep.replica import Generations, Replica
from jobqueue.storage.file.upkeep.snapshot import snapshot_name, write_snapshot

__all__ = [
    "ROTATE_AT",
    "Compaction",
    "compact",
    "prepare_rotation",
    "replace_by_snapshot",
    "rotate",
    "rotation_due",
    "snapshot_is_cheap",
]

log = get_logger("jobqueue.storage.file")
ROTATE_AT = 32 << 20
"""Smallest size of a journal, in bytes, at which the next one is begun."""
CLOSING_SNAPSHOT = 4 << 20
"""Largest size of snapshot and journal, in bytes, at which the last close writes a snapshot: so it takes a
fraction of a second."""
_left: list[subprocess.Popen[bytes]] = []
"""Compacting processes that were still at work when their store was closed."""
_JOB_SIZE = 256


def rotation_due(replica: Replica, rotate_at: int) -> bool:
    """Return whether to begin the next journal: when this one is larger than the live data.

    So compacting costs a constant share of the writing, and the directory stays within a few times the
    size of the live data, also after most of the last snapshot has expired.
    """
    if replica.position < rotate_at // 8:
        return False
    live, size = replica.state.engine.size(), replica.base_size
    shrunk = size > rotate_at and 2 * live < replica.base_jobs
    return shrunk or replica.position >= max(rotate_at, _weight(replica))


def _weight(replica: Replica) -> int:
    live = replica.state.engine.size()
    if not replica.base_jobs:
        return live * _JOB_SIZE
    return replica.base_size * live // replica.base_jobs


def prepare_rotation(home: StoreDirectory, replica: Replica) -> Journal:
    """Make the next journal. If that fails, nothing has happened."""
    journal = Journal.create(home.directory, replica.journal.generation + 1)
    try:
        home.directory.sync()
    except BaseException:
        journal.close()
        raise
    return journal


def rotate(home: StoreDirectory, replica: Replica, journal: Journal) -> None:
    """Seal the journal and continue in the next one; with the lock."""
    try:
        seal(home, replica)
    except BaseException:
        journal.close()
        raise
    weight = _weight(replica)
    replica.switch(journal)
    replica.base_size, replica.base_jobs = weight, replica.state.engine.size()
    home.publish_rotation(replica)


def snapshot_is_cheap(home: StoreDirectory, replica: Replica) -> bool:
    """Return whether to write a snapshot when the store is closed.

    So that the next opening, perhaps of a later version, need not replay commands. What was written since the
    last snapshot has to be worth it: a process that opens a store, adds a job and closes it, again and again,
    must not write the whole store each time.
    """
    written = replica.position - HEADER_SIZE
    # By the files themselves: `base_size` is an estimate.
    directory, current = home.directory, journal_name(replica.journal.generation)
    names = [name for name in directory.names() if name.startswith(("journal-", "snapshot-"))]
    before = directory.size(name for name in names if name != current)
    return written > 0 and before + replica.position <= CLOSING_SNAPSHOT and 4 * written >= before


def replace_by_snapshot(home: StoreDirectory, replica: Replica) -> bool:
    """Replace journal and snapshot by a snapshot of the state; with the lock. False if a compaction runs."""
    directory = home.directory
    fd = directory.open_or_create(COMPACT_LOCK)
    try:
        if not directory.files.try_lock(fd):
            return False
        rotate(home, replica, prepare_rotation(home, replica))
        generation = replica.journal.generation
        write_snapshot(directory, generation, replica.state)
        _remove_before(generation, directory, Generations(directory.names()))
        return True
    finally:
        directory.files.close(fd)


def compact(directory: Directory) -> bool:
    """Replace the sealed journals by a snapshot; return False if none is left or another process does it."""
    fd = directory.open_or_create(COMPACT_LOCK)
    try:
        return directory.files.try_lock(fd) and _compact(directory)
    finally:
        directory.files.close(fd)


def _compact(directory: Directory) -> bool:
    names = Generations(directory.names())
    for name in names.temporary:
        directory.unlink(name)
    target = _published_generation(directory)
    if names.base is None or target is None:
        return False
    if target > names.base:
        # Exactly where that journal begins: not one command of it may be part of its snapshot.
        replica = Replica.load(directory, (target, HEADER_SIZE))
        replica.close()
        if replica.where != (target, HEADER_SIZE):
            raise StorageError(f"{replica.journal.path} is not sealed: run `jobqueue fsck --repair`")
        write_snapshot(directory, target, replica.state)
    _remove_before(max(target, names.base), directory, names)
    return target > names.base


def _published_generation(directory: Directory) -> int | None:
    """Return the journal being written; all before it are sealed, and safe on the disk.

    The existence of a later one, or a readable seal, is no proof: its writer may be about to fail.
    """
    lock = LockFile(directory)
    try:
        page = lock.read()
    finally:
        lock.close()
    if page is None or page.boot != directory.files.boot_id() or page.suspect:
        return None
    return page.generation


def _remove_before(target: int, directory: Directory, names: Generations) -> None:
    for generation in names.snapshots:
        if generation < target:
            directory.unlink(snapshot_name(generation))
    for generation in names.journals:
        if generation < target:
            directory.unlink(journal_name(generation))


class Compaction:
    """A compaction that runs beside this process."""

    def __init__(self) -> None:
        self._path = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def start(self, directory: Directory) -> None:
        """Begin one, unless one is running."""
        if self.running():
            return
        self._path = directory.path
        # A process of its own, because a thread would compete with the event loop for the interpreter.
        try:
            self._process = directory.files.spawn(directory.fd, directory.path)
        except OSError as error:
            log.warning("could not start a process to compact the journal: %s", error)
        if self._process is None:
            self._start_thread(directory)

    def _start_thread(self, directory: Directory) -> None:
        try:
            copy = directory.copy()
            self._thread = threading.Thread(
                target=_compact_here, args=(copy,), name="jobqueue-compact", daemon=True
            )
            self._thread.start()
        except (OSError, RuntimeError) as error:  # no descriptor, or no thread, is to be had
            self._thread = None
            log.warning("could not begin to compact the journal, and will try again: %s", error)

    def running(self) -> bool:
        """Return whether it still runs; log its end."""
        if self._thread is not None and self._thread.is_alive():
            return True
        process = self._process
        if process is None:
            return False
        if process.poll() is None:
            return True
        self._process = None
        told = _output(process)
        if process.returncode:
            log.warning("compacting %s failed, and will be tried again: %s", self._path, told[-2000:])
        return False

    def stop(self) -> None:
        """Leave it to finish by itself: a program that runs for a moment only must not undo its work."""
        if self.running() and self._process is not None:
            if self._process.stderr is not None:
                self._process.stderr.close()
            _left.append(self._process)
            self._process = None
        _left[:] = [process for process in _left if process.poll() is None]
        if self._thread is not None:
            self._thread.join()


def _output(process: subprocess.Popen[bytes]) -> str:
    if process.stderr is None:
        return ""
    with process.stderr as stream:
        return stream.read().decode(errors="replace").strip()


def _compact_here(directory: Directory) -> None:
    try:
        with directory:
            compact(directory)
    except Exception as error:  # noqa: BLE001 - reported; the next rotation tries again
        log.warning("compacting %s failed, and will be tried again: %s", directory.path, error)
